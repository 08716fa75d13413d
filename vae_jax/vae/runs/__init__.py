"""A training run in its folder: its metrics, its checkpoints, resuming it."""
