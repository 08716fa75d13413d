"""A NumPyro model as a log joint and the supports of its latents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from numpyro import handlers
from numpyro.infer.util import log_density

from vae_jax.inference.latent_space import Support
from vae_jax.typing import Latents, LogDensity, Scalar


class NumPyroTarget(NamedTuple):
    """A model's log joint for `fit`, and its supports for a family."""

    log_joint: LogDensity
    """Maps a dict of the latents, in their own spaces and by the names of their sites, to log p(x, z) (nats)."""
    supports: dict[str, Support]
    """Supports of the latents by the same names."""


def numpyro_log_joint(model: Callable[..., Any], *args: Any, **kwargs: Any) -> NumPyroTarget:
    """Returns the log joint of a NumPyro model with its data, and the supports of its latents.

    Arrays among the arguments are passed to compiled programs. So a fit of the same model and family object to other
    data of the same shapes, with equal settings, compiles nothing again.

    Args:
        model: a NumPyro model whose latents are continuous.
        args, kwargs: the arguments of the model: data and settings.

    Returns:
        `log_joint`, for `fit`, and `supports`, for a family.

    Raises:
        TypeError: a latent is discrete, or its prior cannot be drawn from.
        ValueError: the model has no latent, has a `numpyro.param` or a plate that draws a subsample, or has a latent
            whose shape or support depends on another latent's value.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro
        >>> from numpyro.distributions import Exponential, Poisson
        >>> from vae_jax.inference import numpyro_log_joint
        >>> def model(counts):
        ...     rate = numpyro.sample("rate", Exponential(1.0))
        ...     numpyro.sample("counts", Poisson(rate).expand(counts.shape).to_event(1), obs=counts)
        >>> log_joint, supports = numpyro_log_joint(model, jnp.array([0, 0]))
        >>> sorted(supports), f"{log_joint({'rate': 2.0}):.2f}"  # exp(-2) from the prior and from each count
        (['rate'], '-6.00')
    """
    first, second = (_trace(model, seed, args, kwargs) for seed in (0, 1))
    for name, site in first.items():
        _check(name, site)
    latents = {name: site for name, site in first.items() if _is_latent(site)}
    if not latents:
        raise ValueError("model must have a latent, got none: every sample site is observed")
    if set(latents) != {name for name, site in second.items() if _is_latent(site)}:
        raise ValueError("model must have the same latents whatever their values, got others: write the log joint")
    for name, site in latents.items():
        _check_fixed(name, site, second[name])
    supports = {name: Support(site["fn"].support, np.shape(site["value"])) for name, site in latents.items()}
    return NumPyroTarget(_log_joint(model, args, kwargs), supports)


@dataclass(frozen=True)
class _ModelDensity:
    """A model's log joint of its arrays and a sample. Equal ones share compiled programs."""

    model: Callable[..., Any]
    structure: Any
    is_data: tuple[bool, ...]
    settings: tuple[tuple[type, Any], ...]
    """The arguments' other leaves with their types, since 1 equals True."""

    def __call__(self, data: Sequence[Any], sample: Latents) -> Scalar:
        arrays, settings = iter(data), iter(self.settings)
        leaves = [next(arrays) if known else next(settings)[1] for known in self.is_data]
        args, kwargs = self.structure.unflatten(leaves)
        # NumPyro adds and compares arrays of different ranks.
        with jax.numpy_rank_promotion("allow"):
            return jnp.asarray(log_density(self.model, args, kwargs, sample)[0])


def _log_joint(model: Callable[..., Any], args: Any, kwargs: Any) -> LogDensity:
    leaves, structure = jax.tree.flatten((args, kwargs))
    is_data = tuple(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
    data = [leaf for known, leaf in zip(is_data, leaves, strict=True) if known]
    settings = tuple((type(leaf), leaf) for known, leaf in zip(is_data, leaves, strict=True) if not known)
    density = _ModelDensity(model, structure, is_data, settings)
    try:
        hash(density)
    except TypeError:
        # A setting cannot be compared, and so the programs are this log joint's alone.
        return Partial(lambda data, sample: density(data, sample), data)
    return Partial(density, data)


def _trace(model: Callable[..., Any], seed: int, args: Any, kwargs: Any) -> dict[str, Any]:
    try:
        with jax.numpy_rank_promotion("allow"):
            return dict(handlers.trace(handlers.seed(model, jax.random.key(seed))).get_trace(*args, **kwargs))
    except NotImplementedError as error:
        raise TypeError(
            "model must have latents that can be drawn, got one that cannot, such as an improper prior: give it a "
            "proper one, or write the log joint"
        ) from error


def _is_latent(site: Any) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _check(name: str, site: Any) -> None:
    if site["type"] == "param":
        raise ValueError(f"model must have no numpyro.param, got {name}: give it a prior, or a value")
    if site["type"] == "plate":
        size, subsample_size = site["args"]
        if subsample_size is not None and subsample_size != size:
            raise ValueError(
                f"plate {name} must hold all of its {size} elements, got a subsample of {subsample_size}: leave "
                "subsample_size out, or write the log joint with Minibatched"
            )
    if _is_latent(site) and site["fn"].support is not None and site["fn"].support.is_discrete:
        raise TypeError(f"latent {name} must be continuous, got {type(site['fn']).__name__}: sum it out of the model")


def _check_fixed(name: str, first: Any, second: Any) -> None:
    if np.shape(first["value"]) != np.shape(second["value"]):
        raise ValueError(f"latent {name} must have a fixed shape, got one that depends on other latents: fix it")
    bounds = [jax.tree.leaves(site["fn"].support) for site in (first, second)]
    if not all(np.array_equal(one, other) for one, other in zip(*bounds, strict=True)):
        raise ValueError(
            f"latent {name} must have a fixed support, got one that depends on other latents: scale a latent of fixed "
            "support instead"
        )
