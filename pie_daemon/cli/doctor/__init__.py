"""`pie doctor`: every failure that was ever met and mended has a check here."""
