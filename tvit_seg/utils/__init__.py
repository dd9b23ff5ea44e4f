"""Small helpers that are independent of networks."""
