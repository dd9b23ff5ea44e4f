"""Weights of other code bases: reading, names, shapes, publishing. Dict in, dict out."""
