"""The speed of coordinate ascent and of stochastic fits, compared with peers."""
