"""The parts of training_speed.py."""
