"""The Poisson-Gamma model, the exact moments of its gradient estimators and its posterior."""
