"""Training hooks: safe checkpoints, exact resuming, divergence, log lines."""
