"""Results of a trained model: scores, likelihoods, images, the noise of its gradient."""
