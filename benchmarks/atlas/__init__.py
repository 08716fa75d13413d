"""The parts of estimator_atlas.py."""
