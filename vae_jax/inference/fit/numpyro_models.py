"""A NumPyro model as a log joint and the supports of its latents."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.tree_util import Partial
from numpyro import handlers
from numpyro.infer.util import log_density

from vae_jax.distributions import base_distribution
from vae_jax.inference.fit.partly_observed_sites import (
    Hidden,
    MissingEntries,
    is_improper,
    missing_entries,
    unused_entries,
)
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
    data of the same shapes, with equal settings, compiles nothing again. Arrays that the model reads in Python, to
    count its groups, say, become constants of the programs.

    Where `obs_mask` observes a site in part, the entries that were not observed are a latent [M, *event_shape], named
    `..._unobserved`, if another site depends on them. Otherwise they integrate to one and are left out.

    Args:
        model: a NumPyro model whose latents are continuous.
        args, kwargs: the arguments of the model: data and settings.

    Returns:
        `log_joint`, for `fit`, and `supports`, for a family.

    Raises:
        TypeError: a latent is discrete, or has no proper prior: an `ImproperUniform`, or one that is masked away.
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
    values = {name: site["value"] for name, site in first.items() if _is_latent(site)}
    missing = missing_entries(first)

    def shifted(hidden: Collection[MissingEntries], name: str, shift: int) -> float:
        moved = values | {name: jnp.asarray(values[name]) + shift}
        return float(_log_density(Hidden(model, hidden), args, kwargs, moved))

    unused = tuple(unused_entries(missing, shifted))
    latents = {name: first[name] for name in values if name not in {each.name for each in unused}}
    if not latents:
        raise ValueError("model must have a latent, got none: every sample site is observed")
    if set(values) != {name for name, site in second.items() if _is_latent(site)}:
        raise ValueError("model must have the same latents whatever their values, got others: write the log joint")
    for name, site in latents.items():
        _check_latent(name, site, missing)
        _check_fixed(name, site, second[name])
    supports = {name: _support(site, missing.get(name)) for name, site in latents.items()}
    used = tuple(missing[name] for name in latents if name in missing)
    sample = {name: jnp.zeros(support.shape) for name, support in supports.items()}
    return NumPyroTarget(_log_joint(_SplitModel(model, used, unused), args, kwargs, sample), supports)


class _SplitModel(NamedTuple):
    """A model, with the entries of its partly observed sites that are latents, and those that are left out."""

    model: Callable[..., Any]
    used: tuple[MissingEntries, ...]
    unused: tuple[MissingEntries, ...]

    def log_joint(self, args: Any, kwargs: Any, sample: Latents) -> Scalar:
        """log p(x, z) (nats)."""
        whole = {each.name: each.spread(jnp.asarray(sample[each.name])) for each in self.used}
        return _log_density(Hidden(self.model, self.unused), args, kwargs, {**sample, **whole})


def _log_density(model: Any, args: Any, kwargs: Any, values: dict[str, Any]) -> Scalar:
    # NumPyro adds and compares arrays of different ranks.
    with jax.numpy_rank_promotion("allow"):
        return jnp.asarray(log_density(model, args, kwargs, values)[0])


@dataclass(frozen=True)
class _ModelDensity:
    """A model's log joint of its arrays and a sample. Equal ones share compiled programs."""

    model: _SplitModel
    structure: Any
    is_data: tuple[bool, ...]
    settings: tuple[tuple[type, Any], ...]
    """The arguments' other leaves with their types, since 1 equals True."""

    def __call__(self, data: Sequence[Any], sample: Latents) -> Scalar:
        arrays, settings = iter(data), iter(self.settings)
        leaves = [next(arrays) if known else next(settings)[1] for known in self.is_data]
        args, kwargs = self.structure.unflatten(leaves)
        return self.model.log_joint(args, kwargs, sample)


def _log_joint(model: _SplitModel, args: Any, kwargs: Any, sample: Latents) -> LogDensity:
    """The log joint, with as many of the arrays as the model allows as arguments of compiled programs."""
    for kinds in ((jax.Array, np.ndarray), (jax.Array,)):
        log_joint = _log_joint_of(model, args, kwargs, kinds)
        try:
            jax.eval_shape(lambda log_joint, sample: log_joint(sample), log_joint, sample)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
            continue  # It reads an array in Python.
        return log_joint
    # In a compiled function even a concrete array of JAX is traced once something is computed from it.
    args, kwargs = jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, (args, kwargs))
    return _log_joint_of(model, args, kwargs, ())


def _log_joint_of(model: _SplitModel, args: Any, kwargs: Any, kinds: tuple[type, ...]) -> LogDensity:
    leaves, structure = jax.tree.flatten((args, kwargs))
    is_data = tuple(isinstance(leaf, kinds) for leaf in leaves)
    data = [leaf for known, leaf in zip(is_data, leaves, strict=True) if known]
    settings = tuple((type(leaf), leaf) for known, leaf in zip(is_data, leaves, strict=True) if not known)
    density = _ModelDensity(model, structure, is_data, settings)
    try:
        hash(density)
    except TypeError:
        # A setting cannot be compared, and so the programs are this log joint's alone.
        return Partial(lambda data, sample: density(data, sample), data)
    return Partial(density, data)


def _support(site: Any, missing: MissingEntries | None) -> Support:
    if missing is None:
        return Support(site["fn"].support, np.shape(site["value"]))
    return Support(base_distribution(site["fn"].base_dist).support, missing.shape)


def _trace(model: Callable[..., Any], seed: int, args: Any, kwargs: Any) -> dict[str, Any]:
    seeded = handlers.seed(handlers.substitute(model, substitute_fn=_refuse_improper), jax.random.key(seed))
    with jax.numpy_rank_promotion("allow"):
        return dict(handlers.trace(seeded).get_trace(*args, **kwargs))


def _refuse_improper(site: Any) -> None:
    """Raises TypeError for a latent that cannot be drawn; NumPyro's own error does not name it."""
    if site["type"] == "sample" and isinstance(base_distribution(site["fn"]), dist.ImproperUniform):
        raise TypeError(
            f"latent {site['name']} must have a proper prior, got ImproperUniform: give it a density that integrates "
            "to one, or write the log joint"
        )


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


def _check_latent(name: str, site: Any, missing: Mapping[str, MissingEntries]) -> None:
    leaf = site["fn"].base_dist if name in missing else site["fn"]
    if leaf.support is not None and leaf.support.is_discrete:
        raise TypeError(f"latent {name} must be continuous, got {type(leaf).__name__}: sum it out of the model")
    if name in missing and any(np.ndim(bound) for bound in jax.tree.leaves(leaf.support)):
        raise TypeError(f"latent {name} must have one support for all entries, got one for each: observe all of them")
    if name not in missing and is_improper(site):
        raise TypeError(
            f"latent {name} must have a proper prior, got a density that is masked away: take the mask off, or write "
            "the log joint"
        )


def _check_fixed(name: str, first: Any, second: Any) -> None:
    if np.shape(first["value"]) != np.shape(second["value"]):
        raise ValueError(f"latent {name} must have a fixed shape, got one that depends on other latents: fix it")
    bounds = [jax.tree.leaves(site["fn"].support) for site in (first, second)]
    if not all(np.array_equal(one, other) for one, other in zip(*bounds, strict=True)):
        raise ValueError(
            f"latent {name} must have a fixed support, got one that depends on other latents: scale a latent of fixed "
            "support instead"
        )
