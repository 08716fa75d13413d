"""The single numbers that a pytree holds, and what messages and figures call them."""

from typing import Any

import jax
import numpy as np


def scalar_names(tree: Any) -> tuple[str, ...]:
    """A name for each number, such as "loc[0]" or "weights.scale", in the order of `jax.tree.leaves`.

    A pytree that is one array is called "value".

    Args:
        tree: of arrays, or of anything that has a shape.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return tuple(
        name + ("[" + ", ".join(map(str, place)) + "]" if place else "")
        for path, leaf in leaves
        for name in [jax.tree_util.keystr(path, simple=True, separator=".") or "value"]
        for place in np.ndindex(*np.shape(leaf) if not hasattr(leaf, "shape") else leaf.shape)
    )
