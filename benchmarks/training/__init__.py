"""The speed of training VAEs, compared with peers."""
