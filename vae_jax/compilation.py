"""How programs are compiled."""

import jax


def wide_vectors() -> dict[str, int] | None:
    """Options of `jax.jit` for a program whose time goes into arithmetic by element.

    XLA keeps to vectors of 256 bits on CPUs that have 512: a step of Adam then takes 1.6 times as long. Narrower
    CPUs use what they have.
    """
    return {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else None
