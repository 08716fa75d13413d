"""Sites of a NumPyro model that `obs_mask` observes in part: the entries that were not observed, and their use."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.primitives import Messenger

from vae_jax.distributions import base_distribution

SUFFIX = "_unobserved"
"""NumPyro's name for the latent of a partly observed site is the site's own with this suffix."""


class MissingEntries(NamedTuple):
    """The entries of a partly observed site that were not observed."""

    name: str
    """The site of its latent, `..._unobserved`."""
    places: tuple[tuple[int, ...], ...]
    """Their indices along each axis of the batch."""
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of their values: the number of entries, and the shape of an event."""
        return (len(self.places[0]) if self.places else 1, *self.event_shape)

    def spread(self, values: Array) -> Array:
        """The site's whole array. Where it is observed the value does not count, and is the first of the others."""
        whole = jnp.broadcast_to(values[0], (*self.batch_shape, *self.event_shape))
        return whole.at[self.places].set(values) if self.places else values[0]


class Hidden(Messenger):
    """A model whose sites of some names count nothing and have the value zero."""

    def __init__(self, model: Callable[..., Any], entries: Iterable[MissingEntries]) -> None:
        super().__init__(model)
        self.entries = {each.name: each for each in entries}

    def process_message(self, msg: Any) -> None:
        """Masks the distribution of a hidden site."""
        if msg["type"] == "sample" and msg["name"] in self.entries:
            each = self.entries[msg["name"]]
            msg["fn"] = msg["fn"].mask(False)
            if msg["value"] is None:
                msg["value"] = jnp.zeros((*each.batch_shape, *each.event_shape), each.dtype)


def missing_entries(trace: Mapping[str, Any]) -> dict[str, MissingEntries]:
    """The entries that were not observed, by the names of their latents, from a trace of the model."""
    return {name: _missing(name, site) for name, site in trace.items() if is_unobserved_part(site, trace)}


def is_unobserved_part(site: Any, trace: Mapping[str, Any]) -> bool:
    """Whether a site is the latent part of one that `obs_mask` observes in part."""
    name = site["name"]
    whole = name.removesuffix(SUFFIX)
    is_split = name.endswith(SUFFIX) and f"{whole}_observed" in trace and whole in trace
    return is_split and site["type"] == "sample" and isinstance(site["fn"], dist.MaskedDistribution)


def is_improper(site: Any) -> bool:
    """Whether a mask takes the density of some entries away."""
    leaf = base_distribution(site["fn"])
    return isinstance(leaf, dist.MaskedDistribution) and not np.all(leaf._mask)


def unused_entries(
    missing: Mapping[str, MissingEntries], log_joint: Callable[[Collection[MissingEntries], str, int], Any]
) -> list[MissingEntries]:
    """The entries that no other site depends on: they integrate to one.

    Args:
        missing: the entries of each partly observed site, in the model's order.
        log_joint: the log joint without the density of some entries, with a number added to the values of one site.
    """
    unused: list[MissingEntries] = []
    # The last first: what depends on an entry may itself be left out.
    for name, each in reversed(list(missing.items())):
        here, elsewhere = (log_joint([*unused, each], name, shift) for shift in (0, 1))
        if here == elsewhere:
            unused.append(each)
    return unused


def _missing(name: str, site: Any) -> MissingEntries:
    leaf = site["fn"]
    mask = np.broadcast_to(np.asarray(leaf._mask), leaf.batch_shape)
    places = tuple(tuple(int(place) for place in axis) for axis in np.nonzero(mask)) if mask.ndim else ()
    return MissingEntries(name, places, leaf.batch_shape, leaf.event_shape, str(jnp.result_type(site["value"])))
