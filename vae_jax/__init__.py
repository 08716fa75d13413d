"""Variational inference by Monte Carlo: gradient estimators, and how good they are.

Names are loaded on first use, so that importing the package and asking a command for help import no JAX. They are
listed, for readers and type checkers, in `__init__.pyi`.
"""

import lazy_loader

from vae_jax.runtime import keep_reductions_right

keep_reductions_right()
del keep_reductions_right

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
