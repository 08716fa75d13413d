"""The total derivative of the ELBO, split into its path and its score."""
