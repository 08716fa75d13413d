"""Figures of a mixture that coordinate ascent has fitted: where its components are, how it fits, how it was found."""

from vae_jax.plotting.cavi.component_colours import component_colours
from vae_jax.plotting.cavi.component_counts import counts_by_component
from vae_jax.plotting.cavi.elbo_curves import elbo_by_num_components, elbo_by_sweep
from vae_jax.plotting.cavi.responsibility_map import responsibility_map

__all__ = [
    "component_colours",
    "counts_by_component",
    "elbo_by_num_components",
    "elbo_by_sweep",
    "responsibility_map",
]
