"""Speed and exactness of the library on whatever accelerator is present."""
