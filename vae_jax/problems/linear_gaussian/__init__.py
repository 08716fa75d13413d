"""Linear-Gaussian models, whose posterior and evidence are exact."""
