"""`make gpu-check`: whether and how fast Pie computes on a GPU."""
