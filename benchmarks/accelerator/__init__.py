"""Speed and exactness of the library on whatever accelerator is present.

Each script runs as a module or as a file, with the checkout among Python's paths. Its options take their defaults from
environment variables: OUT, LIMIT, SCALE and TAG.
"""
