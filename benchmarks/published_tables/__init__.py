"""Tables that others published, recomputed."""
