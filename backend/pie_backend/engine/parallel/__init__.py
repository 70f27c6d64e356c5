"""One model on several devices: each rank holds its heads and its part of every MLP."""
