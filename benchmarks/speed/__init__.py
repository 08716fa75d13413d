"""The parts of variance_speed.py."""
