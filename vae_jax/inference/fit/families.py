"""Variational families: from parameters without constraints to a distribution that an estimator takes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import vec_to_tril_matrix

from vae_jax.bijections import bijection_to
from vae_jax.distributions import LocationScalePositiveNormal, PositiveNormal
from vae_jax.inference.latent_space import LatentSpace, Pushforward, normal_latent
from vae_jax.typing import Distributions, Latents, Parameters, PRNGKey, Vector


@runtime_checkable
class Family(Protocol):
    """The functions of a family that `fit` calls. Compiled programs are kept for one and the same object."""

    def init(self, key: PRNGKey, /) -> Parameters:
        """Unconstrained parameters to start from."""
        ...

    def distribution(self, params: Parameters, /) -> Distributions:
        """The distribution of the latents at these parameters, in their own space."""
        ...


@dataclass(frozen=True, eq=False)
class NormalFamily:
    """Base of the families of normals over D unconstrained numbers; every one starts from independent normals.

    Args:
        supports: a pytree of `Support`, or of NumPyro's constraints for scalars, that has the structure of a sample.
        start: latents, in their own space, at which the mean starts. By default those of the vector of zeros.
        start_scale: initial standard deviation of every unconstrained number.
        spread: standard deviation of the noise added to the mean of each start. Raise it so that restarts look for
            other modes.

    Raises:
        TypeError: as for `LatentSpace`.
        ValueError: as for `LatentSpace`, or `start` is outside the supports, or a scale or spread is out of range.
    """

    supports: Any
    start: Latents = None
    start_scale: float = 0.1
    spread: float = 0.1
    space: LatentSpace = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.start_scale < math.inf:
            raise ValueError(f"start_scale must be positive and finite, got {self.start_scale}: change it")
        if not 0 <= self.spread < math.inf:
            raise ValueError(f"spread must be 0 or more and finite, got {self.spread}: change it")
        object.__setattr__(self, "space", LatentSpace(self.supports))
        if self.start is not None and not jnp.isfinite(self.space.unconstrain(self.start)).all():
            raise ValueError("start must lie inside of the supports, got a value that does not: move it")

    def _start(self, key: PRNGKey) -> dict[str, Vector]:
        size = self.space.size
        center = jnp.zeros(size) if self.start is None else self.space.unconstrain(self.start)
        log_scale = jnp.full(size, math.log(self.start_scale), center.dtype)
        return {"loc": center + self.spread * jax.random.normal(key, (size,), center.dtype), "log_scale": log_scale}


class MeanFieldNormal(NormalFamily):
    """Family of independent normals over the unconstrained numbers.

    A real latent has a normal distribution, and a positive latent a log-normal one. The parameters are loc [D] and
    log_scale [D]. The arguments are those of `NormalFamily`.

    Example:
        >>> import jax
        >>> from numpyro.distributions import constraints
        >>> from vae_jax.inference import MeanFieldNormal
        >>> family = MeanFieldNormal({"shift": constraints.real, "rate": constraints.positive}, spread=0.0)
        >>> q = family.distribution(family.init(jax.random.key(0)))
        >>> {name: type(factor).__name__ for name, factor in q.items()}
        {'rate': 'LogNormal', 'shift': 'Normal'}

    Reference: Kucukelbir, Tran, Ranganath, Gelman & Blei (2017), section 2.4.
    """

    def init(self, key: PRNGKey, /) -> Parameters:
        """Draws initial parameters."""
        return self._start(key)

    def distribution(self, params: Parameters, /) -> Distributions:
        """The pytree of NumPyro's independent distributions, with the structure of the supports."""
        return self.space.by_latent(normal_latent, params["loc"], jnp.exp(params["log_scale"]))


class FullRankNormal(NormalFamily):
    """Family of normals with any covariance, over the vector of all unconstrained numbers.

    The parameters are loc [D], log_scale [D] and below_diagonal [D (D - 1) / 2]. The Cholesky factor of the covariance
    is diag(exp(log_scale)) times a lower triangle with ones on its diagonal, so that below_diagonal does not depend on
    the latents' units. The arguments are those of `NormalFamily`.

    Example:
        Three numbers have three standard deviations and three correlations:

        >>> import jax
        >>> from numpyro.distributions import constraints
        >>> from vae_jax.inference import FullRankNormal, Support
        >>> family = FullRankNormal(Support(constraints.real, (3,)))
        >>> {name: leaf.shape for name, leaf in sorted(family.init(jax.random.key(0)).items())}
        {'below_diagonal': (3,), 'loc': (3,), 'log_scale': (3,)}

    Reference: Kucukelbir, Tran, Ranganath, Gelman & Blei (2017), section 2.4.
    """

    def init(self, key: PRNGKey, /) -> Parameters:
        """Draws initial parameters, without correlation."""
        start = self._start(key)
        size = self.space.size
        return start | {"below_diagonal": jnp.zeros(size * (size - 1) // 2, start["loc"].dtype)}

    def distribution(self, params: Parameters, /) -> Distributions:
        """The joint distribution of all latents at these parameters."""
        scale = jnp.exp(params["log_scale"])[:, None]
        triangle = jnp.eye(self.space.size, dtype=scale.dtype)
        if self.space.size > 1:
            triangle += vec_to_tril_matrix(params["below_diagonal"], diagonal=-1)
        return Pushforward(dist.MultivariateNormal(params["loc"], scale_tril=scale * triangle), self.space)


@dataclass(frozen=True, eq=False)
class LowRankNormal(NormalFamily):
    """Family of normals with the covariance diag(s) (I + F F') diag(s), over all unconstrained numbers.

    The parameters are loc [D], log_scale [D], which is log s, and factor [D, rank], which is F. The other arguments are
    those of `NormalFamily`.

    Args:
        rank: number of columns of F.

    Raises:
        TypeError: as for `NormalFamily`.
        ValueError: as for `NormalFamily`, or the rank is below 1 or above D.

    Example:
        With s = 1 and F = (1, 1)' the covariance is I + F F', of variance 2 and covariance 1:

        >>> import jax.numpy as jnp
        >>> from numpyro.distributions import constraints
        >>> from vae_jax.inference import LowRankNormal, Support
        >>> family = LowRankNormal(Support(constraints.real, (2,)), rank=1)
        >>> params = {"loc": jnp.zeros(2), "log_scale": jnp.zeros(2), "factor": jnp.ones((2, 1))}
        >>> family.distribution(params).base.covariance_matrix.tolist()
        [[2.0, 1.0], [1.0, 2.0]]

    Reference: Ong, Nott & Smith (2018), section 3.
    """

    rank: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.rank <= self.space.size:
            raise ValueError(f"rank must be from 1 to the {self.space.size} numbers, got {self.rank}: change it")

    def init(self, key: PRNGKey, /) -> Parameters:
        """Draws initial parameters with weak random correlations: at F = 0 the mean gradient of F would be zero."""
        key_start, key_factor = jax.random.split(key)
        start = self._start(key_start)
        factor = 0.1 * jax.random.normal(key_factor, (self.space.size, self.rank), start["loc"].dtype)
        return start | {"factor": factor}

    def distribution(self, params: Parameters, /) -> Distributions:
        """The joint distribution of all latents at these parameters."""
        scale = jnp.exp(params["log_scale"])
        base = dist.LowRankMultivariateNormal(params["loc"], scale[:, None] * params["factor"], scale**2)
        return Pushforward(base, self.space)


PARAMETERS: Mapping[Any, Mapping[str, Any]] = {
    family: {"loc": constraints.real, "scale": constraints.positive}
    for family in (PositiveNormal, LocationScalePositiveNormal)
}
"""Parameters of distributions that are not made from what their `arg_constraints` names."""


@dataclass(frozen=True, eq=False)
class Factor:
    """Factor of `MeanField`: a distribution's constructor and the initial values of its arguments.

    The values are in the arguments' own space, such as a positive rate. Arrays of values make a vector of independent
    latents.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from numpyro.distributions import Gamma
        >>> from vae_jax.inference import Factor, MeanField
        >>> start = {"concentration": jnp.array([1.0, 4.0]), "rate": jnp.array([2.0, 2.0])}
        >>> family = MeanField(Factor(Gamma, start), spread=0.0)
        >>> family.distribution(family.init(jax.random.key(0))).mean.round(2).tolist()
        [0.5, 2.0]
    """

    constructor: Any
    start: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class MeanField:
    """Family of independent factors, each with its own kind of distribution.

    The parameters are a pytree like the factors. Its leaves are dicts of unconstrained numbers, by the names of the
    constructors' arguments.

    Args:
        factors: a pytree, with the structure of a sample, of NumPyro's constructors or of `Factor`. A constructor alone
            makes a scalar whose unconstrained arguments start at zero: a location of 0, a scale or a rate of 1.
        spread: standard deviation of the noise added to the unconstrained parameters of each start.

    Raises:
        TypeError: a factor is not a constructor of a distribution with constraints on its arguments.
        ValueError: there are no factors, a start names something other than an argument, or a value is out of range.

    Example:
        >>> import jax
        >>> from numpyro.distributions import Gamma, Normal
        >>> from vae_jax.inference import MeanField
        >>> family = MeanField({"rate": Gamma, "shift": Normal}, spread=0.0)
        >>> params = family.init(jax.random.key(0))
        >>> {name: float(value) for name, value in family.parameters(params)["rate"].items()}
        {'concentration': 1.0, 'rate': 1.0}
        >>> family.distribution(params)["shift"].variance.item()
        1.0
    """

    factors: Any
    spread: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.spread < math.inf:
            raise ValueError(f"spread must be 0 or more and finite, got {self.spread}: change it")
        if not self._named():
            raise ValueError("factors must hold at least one distribution, got none: name each latent's")
        for name, factor in self._named():
            _check_start(name, factor)

    def init(self, key: PRNGKey, /) -> Parameters:
        """Draws initial parameters."""
        leaves, structure = jax.tree.flatten(self._starts())
        keys = jax.random.split(key, len(leaves))
        moved = [
            leaf + self.spread * jax.random.normal(k, leaf.shape, leaf.dtype)
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return structure.unflatten(moved)

    def parameters(self, params: Parameters) -> Parameters:
        """The arguments of the constructors, in their own space."""
        return self._by_factor(_constrained, params)

    def distribution(self, params: Parameters, /) -> Distributions:
        """The pytree of independent distributions, with the structure of the factors."""
        return self._by_factor(_distribution, params)

    def _by_factor(self, function: Any, params: Parameters) -> Any:
        structure = jax.tree.structure(self.factors, is_leaf=_is_factor)
        pairs = zip(self._named(), structure.flatten_up_to(params), strict=True)
        return structure.unflatten([function(*named, leaf) for named, leaf in pairs])

    def _named(self) -> list[tuple[str, Factor]]:
        paths = jax.tree_util.tree_leaves_with_path(self.factors, is_leaf=_is_factor)
        return [
            (f"factors{jax.tree_util.keystr(path)}", leaf if isinstance(leaf, Factor) else Factor(leaf))
            for path, leaf in paths
        ]

    def _starts(self) -> Parameters:
        structure = jax.tree.structure(self.factors, is_leaf=_is_factor)
        return structure.unflatten([_unconstrained_start(name, factor) for name, factor in self._named()])


def _is_factor(node: object) -> bool:
    return isinstance(node, Factor | type)


def _arguments(name: str, factor: Factor) -> Mapping[str, Any]:
    known = PARAMETERS.get(factor.constructor, getattr(factor.constructor, "arg_constraints", None))
    if not isinstance(known, Mapping) or not known:
        raise TypeError(
            f"{name} must be a distribution's constructor with arg_constraints, got {factor.constructor!r}: use one of "
            "numpyro.distributions"
        )
    return known


def _check_start(name: str, factor: Factor) -> None:
    known = _arguments(name, factor)
    shaped = [argument for argument, constraint in known.items() if constraint.event_dim > 0]
    if factor.start is None and shaped:
        raise ValueError(f"{name} must have a start for {', '.join(shaped)}, got none: write Factor(..., start)")
    unknown = [argument for argument in factor.start or () if argument not in known]
    if unknown:
        raise ValueError(f"{name} must have a start for {', '.join(known)}, got one for {unknown[0]}: rename it")
    for argument, value in _unconstrained_start(name, factor).items():
        if not jnp.isfinite(value).all():
            given = (factor.start or {})[argument]
            raise ValueError(f"{name} must start at a valid {argument}, got {given}: change it")


def _unconstrained_start(name: str, factor: Factor) -> dict[str, Array]:
    known = _arguments(name, factor)
    if factor.start is None:
        return {argument: jnp.zeros(()) for argument in known}
    return {
        argument: jnp.asarray(bijection_to(known[argument]).inv(jnp.asarray(value, jnp.result_type(value, float))))
        for argument, value in factor.start.items()
    }


def _constrained(name: str, factor: Factor, params: Mapping[str, Any]) -> dict[str, Any]:
    known = _arguments(name, factor)
    return {argument: bijection_to(known[argument])(value) for argument, value in params.items()}


def _distribution(name: str, factor: Factor, params: Mapping[str, Any]) -> Any:
    leaf = factor.constructor(**_constrained(name, factor, params))
    return leaf.to_event(len(leaf.batch_shape)) if leaf.batch_shape else leaf
