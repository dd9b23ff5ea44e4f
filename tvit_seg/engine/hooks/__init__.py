"""Hooks of a training: safe checkpoints, exact resuming, divergence, log lines."""
