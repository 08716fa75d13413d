"""Questions about estimators and VAEs, each answered by an experiment with exact references."""
