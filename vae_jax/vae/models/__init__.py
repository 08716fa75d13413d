"""Models: networks, likelihoods and the VAEs made of them."""
