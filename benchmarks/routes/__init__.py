"""The parts of two_routes.py."""
