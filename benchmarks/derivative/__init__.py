"""The parts of total_derivative.py."""
