"""Images: where they come from and what a model sees of them."""
