"""Weights of any code base: reading, names, shapes, publishing. Dict in, dict out."""
