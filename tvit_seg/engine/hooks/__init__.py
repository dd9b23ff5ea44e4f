"""Hooks of a training: safe checkpoints, exact resuming, an end where numbers end."""
