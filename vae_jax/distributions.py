"""Pytrees of independent distributions: drawing from them and evaluating them together."""

import importlib.util
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform
from numpyro.distributions.truncated import (
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TwoSidedTruncatedDistribution,
)

from vae_jax.typing import Distribution, Distributions, Latents, PRNGKey, Scalar


def is_distribution(node: object) -> bool:
    """Whether a node of a pytree is a distribution, rather than a container of distributions.

    Example:
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = {"u": dist.Normal(0.0, 1.0)}
        >>> vj.distributions.is_distribution(q["u"]), vj.distributions.is_distribution(q)
        (True, False)
    """
    return isinstance(node, Distribution) and not isinstance(node, type)


def sample(q: Distributions, key: PRNGKey, num_samples: int) -> Latents:
    """Draws samples from every distribution of `q`, with no gradient to its parameters.

    Args:
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed; each distribution draws from its own split of it.
        num_samples: S, a positive number known before tracing.

    Returns:
        A pytree with the structure of `q`, each leaf [S, *event_shape].

    Raises:
        TypeError: a leaf of `q` is not a distribution.
        ValueError: `num_samples` is not positive, or a distribution has a batch shape.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = {"u": dist.Normal(0.0, 1.0), "v": dist.Normal(jnp.zeros(2), 1.0).to_event(1)}
        >>> samples = vj.distributions.sample(q, jax.random.key(0), 5)
        >>> samples["u"].shape, samples["v"].shape
        ((5,), (5, 2))
    """
    check_latents(q, num_samples)
    return lax.stop_gradient(_draw(q, key, num_samples, "sample"))


def rsample(q: Distributions, key: PRNGKey, num_samples: int) -> Latents:
    """Draws samples of `q` that are differentiable in its parameters.

    Arguments and result as for `sample`.

    Raises:
        TypeError: as `sample`, or a distribution of `q` is not reparameterizable.
        ValueError: as `sample`.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def mean(loc):
        ...     return vj.distributions.rsample(dist.Normal(loc, 1.0), jax.random.key(0), 5).mean()
        >>> print(f"{jax.grad(mean)(0.0):.1f}")  # every sample moves with loc
        1.0
    """
    check_latents(q, num_samples)
    for name, leaf in named_leaves(q):
        if not leaf.has_rsample:
            raise TypeError(
                f"{name} is a {type(leaf).__name__}, which has no reparameterized sampler: a pathwise estimator "
                "expects one; use score_function instead"
            )
    return _draw(q, key, num_samples, "rsample")


def log_prob(q: Distributions, value: Latents) -> Scalar:
    """Joint log density (nats) of one value under the independent distributions of `q`.

    Args:
        q: a distribution or a pytree of independent ones.
        value: one value, a pytree with the structure of `q`.

    Returns:
        A scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = {"u": dist.Normal(0.0, 1.0), "v": dist.Normal(jnp.zeros(2), 1.0).to_event(1)}
        >>> value = {"u": jnp.array(0.0), "v": jnp.zeros(2)}
        >>> print(f"{vj.distributions.log_prob(q, value):.3f}")  # 3 log Normal(0; 0, 1)
        -2.757
    """
    terms = jax.tree.map(_log_prob, q, value, is_leaf=is_distribution)
    return reduce(operator.add, jax.tree.leaves(terms))


def log_probs(q: Distributions, samples: Latents) -> Float[Array, " S"]:
    """Joint log density (nats) of each of S samples under the independent distributions of `q`.

    Args:
        q: a distribution or a pytree of independent ones.
        samples: a pytree with the structure of `q` and leaves [S, ...], as `sample` returns it.

    Returns:
        The log densities [S].

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = {"u": dist.Normal(0.0, 1.0), "v": dist.Normal(jnp.zeros(2), 1.0).to_event(1)}
        >>> samples = vj.distributions.sample(q, jax.random.key(0), 5)
        >>> vj.distributions.log_probs(q, samples).shape
        (5,)
    """
    return jax.vmap(log_prob, in_axes=(None, 0))(q, samples)


def without_gradient(q: Distributions) -> Distributions:
    """Returns the distributions of `q` with parameters that get no gradient.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def log_density(loc):
        ...     return vj.distributions.without_gradient(dist.Normal(loc, 1.0)).log_prob(1.0)
        >>> float(jax.grad(log_density)(0.0))  # 1.0 with the gradient
        0.0
    """
    return jax.tree.map(lax.stop_gradient, q)


def base_distribution(leaf: Any) -> Any:
    """Returns the distribution inside `Independent` and `ExpandedDistribution`, which add axes and nothing else.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
        >>> type(q).__name__, type(vj.distributions.base_distribution(q)).__name__
        ('Independent', 'Normal')
    """
    while isinstance(leaf, dist.Independent | dist.ExpandedDistribution):
        leaf = leaf.base_dist
    return leaf


def has_free_parameters(leaf: Any) -> bool:
    """Whether the density of a distribution stays normalised while any element of its parameters moves alone.

    The score of each element then has mean zero. It has not for probabilities, which sum to one, nor for an array that
    a distribution has derived from its parameters and keeps with them. Of a distribution that states no constraints,
    as NumPyro's do, nobody knows: the answer is False.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> thirds = jnp.full(3, 1 / 3)
        >>> [vj.distributions.has_free_parameters(dist.Categorical(**{name: thirds})) for name in ("logits", "probs")]
        [True, False]
    """
    if not isinstance(leaf, dist.Distribution):
        return False
    inherited = [vars(each).get("arg_constraints", {}) for each in type(leaf).__mro__]
    constrained = reduce(operator.or_, reversed(inherited), {})
    return all(_is_free(vars(leaf).get(name), constrained.get(name)) for name in leaf.gather_pytree_data_fields())


def _is_free(field: Any, constraint: Any) -> bool:
    if is_distribution(field):
        return has_free_parameters(field)
    if isinstance(field, constraints.Constraint):
        return True  # Bounds of a support, which the density is no smooth function of.
    if isinstance(field, list | tuple) and all(isinstance(each, Transform) for each in field):
        return True
    if not any(jnp.issubdtype(jnp.result_type(each), jnp.floating) for each in jax.tree.leaves(field)):
        return True
    # An array whose elements are constrained one by one has the constraint of an element inside.
    inner = getattr(constraint, "base_constraint", constraint)
    is_open = isinstance(inner, (type(constraints.lower_cholesky), type(constraints.ordered_vector)))
    return is_open or (isinstance(inner, constraints.Constraint) and _number_of_dimensions(inner) == 0)


def _number_of_dimensions(constraint: Any) -> int | None:
    """The dimensions that a constraint ties together; None for one that says nothing."""
    try:
        return constraint.event_dim
    except NotImplementedError:
        return None


def _log_prob(leaf: Any, value: Any) -> Any:
    base = base_distribution(leaf)
    if not isinstance(base, dist.BernoulliLogits):
        return leaf.log_prob(value)
    # At a logit of exactly zero, where training often starts, the derivative of NumPyro's own is off by a half.
    return (value * base.logits - jax.nn.softplus(base.logits)).sum()


def entropy(q: Distributions) -> Scalar:
    """Joint entropy (nats) of independent distributions that have one in closed form.

    Raises:
        TypeError: a distribution of `q` has no entropy in closed form.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = {"u": dist.Normal(0.0, 1.0), "v": dist.Normal(jnp.zeros(2), 1.0).to_event(1)}
        >>> print(f"{vj.distributions.entropy(q):.3f}")  # 3/2 log(2 pi e)
        4.257
    """
    return reduce(operator.add, (_entropy(name, leaf) for name, leaf in named_leaves(q)))


def _entropy(name: str, leaf: Any) -> Scalar:
    try:
        return leaf.entropy()
    except (AttributeError, NotImplementedError) as error:
        raise TypeError(
            f"{name} must have an entropy in closed form, got {type(leaf).__name__}, which has none: use pathwise"
        ) from error


def _draw(q: Distributions, key: PRNGKey, num_samples: int, method: str) -> Latents:
    leaves = jax.tree.leaves(q, is_leaf=is_distribution)
    leaf_keys = jax.random.split(key, len(leaves))
    # NumPyro adds parameters [D] to noise [S, D].
    with jax.numpy_rank_promotion("allow"):
        draws = [
            _positive(leaf, getattr(leaf, method)(leaf_key, (num_samples,)))
            for leaf, leaf_key in zip(leaves, leaf_keys, strict=True)
        ]
    return unflatten(q, draws)


def _positive(leaf: Any, draws: Any) -> Any:
    """Draws above zero, which those of a small concentration may round to."""
    if not isinstance(base_distribution(leaf), dist.Gamma | dist.Weibull):
        return draws
    return jnp.maximum(draws, jnp.finfo(draws.dtype).tiny)


def unflatten(q: Distributions, values: Iterable[Any]) -> Any:
    """Arranges one value for each distribution of `q`, in order, in a pytree with the structure of `q`.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = {"u": dist.Normal(0.0, 1.0), "v": dist.Normal(jnp.zeros(2), 1.0).to_event(1)}
        >>> vj.distributions.unflatten(q, ["first", "second"])
        {'u': 'first', 'v': 'second'}
    """
    return jax.tree.unflatten(jax.tree.structure(q, is_leaf=is_distribution), values)


def named_leaves(q: Distributions) -> list[tuple[str, Any]]:
    """Lists the distributions of `q` in order, each with the name that messages give it, such as q['u'].

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = {"u": dist.Normal(0.0, 1.0), "v": dist.Normal(jnp.zeros(2), 1.0).to_event(1)}
        >>> [name for name, _ in vj.distributions.named_leaves(q)]
        ["q['u']", "q['v']"]
    """
    leaves = jax.tree_util.tree_leaves_with_path(q, is_leaf=is_distribution)
    return [(f"q{jax.tree_util.keystr(path)}", leaf) for path, leaf in leaves]


_TRUNCATED = (LeftTruncatedDistribution, RightTruncatedDistribution, TwoSidedTruncatedDistribution)


def check_latents(q: Distributions, num_samples: int) -> None:
    """Raises the TypeError or ValueError of `sample` for a `q` that cannot be drawn from.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = dist.Normal(jnp.zeros(2), 1.0)
        >>> vj.distributions.check_latents(q.to_event(1), 10)
        >>> vj.distributions.check_latents(q, 10)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: q must have an empty batch shape, got (2,): use .to_event() for one latent vector, or ...
    """
    if not isinstance(num_samples, int):
        raise TypeError(f"num_samples must be an int known before tracing, got {type(num_samples).__name__}")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}: raise it")
    if not named_leaves(q):
        raise ValueError("q must hold at least one distribution, got an empty pytree")
    for name, leaf in named_leaves(q):
        if not is_distribution(leaf):
            raise TypeError(
                f"{name} must be a distribution, got {type(leaf).__name__}: use one of numpyro.distributions, or an "
                "object with its sample, rsample and log_prob"
            )
        if leaf.batch_shape != ():
            raise ValueError(
                f"{name} must have an empty batch shape, got {leaf.batch_shape}: use .to_event() for one latent "
                "vector, or build q inside vmap for a batch of examples"
            )
        _check_sampler(name, leaf)


def _check_sampler(name: str, leaf: Any) -> None:
    base = base_distribution(leaf)
    if not isinstance(base, _TRUNCATED) or not isinstance(base.base_dist, dist.StudentT):
        return
    if importlib.util.find_spec("tensorflow_probability") is None:
        raise TypeError(
            f"{name} must have a sampler, got a truncated StudentT, whose quantiles NumPyro takes from "
            "tensorflow_probability: install it, or use a truncated Normal, Laplace, Logistic or Cauchy"
        )


class Reparameterized(ABC):
    """Base class of distributions whose `sample` is their `rsample` without a gradient.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> class Shifted(vj.distributions.Reparameterized):
        ...     def __init__(self, loc):
        ...         self.loc = loc
        ...     def rsample(self, key, sample_shape=()):
        ...         return self.loc + jax.random.normal(key, sample_shape)
        >>> Shifted(1.0).sample(jax.random.key(0), (3,)).shape
        (3,)
    """

    @abstractmethod
    def rsample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        """Samples, differentiable in the parameters."""

    def sample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        """Samples as `rsample` draws them, with no gradient."""
        return lax.stop_gradient(self.rsample(key, sample_shape))


LOWEST_LOC = -3.0
"""In scales. Further down a positive normal's draws are all from a tail that float32 resolves too coarsely."""


class PositiveNormal(LeftTruncatedDistribution):
    """Normal(loc, scale) given that it is positive, reparameterized as a quantile of a uniform variable.

    A draw moves by dz/dtheta = -(dF/dtheta) / p(z), where F is the distribution function and p the density: the path
    slows down to a stop at zero, so that no draw crosses it. Every derivative along it is unbiased, and that of log z
    has a finite variance.

    A scale that is not positive, or a loc below -3 scales, gives NaN.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> q = vj.distributions.PositiveNormal(0.0, 1.0)  # a half normal
        >>> draws = q.rsample(jax.random.key(0), (10_000,))
        >>> bool((draws > 0).all()), f"{draws.mean():.1f}"  # the mean is sqrt(2 / pi) = 0.80
        (True, '0.8')
        >>> print(f"{q.log_prob(1.0):.3f}")  # log 2 more than a normal's
        -0.726

    Reference: Figurnov, Mohamed & Mnih (2018), eq. 5.
    """

    def __init__(self, loc: Any, scale: Any, *, validate_args: bool | None = None) -> None:
        super().__init__(dist.Normal(loc, scale, validate_args=validate_args), low=0.0, validate_args=validate_args)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        loc, scale = self._valid_parameters()
        noise = self._noise(key, -loc / scale, sample_shape + self.batch_shape)
        # Rounding must not take a draw over the edge, whose distance from loc is known to this resolution.
        resolution = jnp.finfo(noise.dtype).eps * (jnp.abs(loc) + scale) / 2
        return jnp.maximum(loc + scale * noise, lax.stop_gradient(resolution))

    def log_prob(self, value: Any) -> Any:
        # One division and one mass for all values, where NumPyro's own takes a division each and four cdfs.
        loc, scale = self._valid_parameters()
        noise = (value - loc) * (1 / scale)
        mass = lax.erfc(-loc / (scale * math.sqrt(2))) / 2
        return -0.5 * noise**2 - jnp.log(math.sqrt(2 * math.pi) * scale * mass)

    def _noise(self, key: PRNGKey, low: Any, shape: tuple[int, ...]) -> Any:
        return _truncated_noise(key, low, shape)

    def _valid_parameters(self) -> tuple[Any, Any]:
        """loc and scale, times NaN where they are invalid, so that every gradient is NaN too."""
        normal: Any = self.base_dist
        valid = (normal.scale > 0) & (normal.loc >= LOWEST_LOC * normal.scale)
        return normal.loc * jnp.where(valid, 1, jnp.nan), normal.scale


class LocationScalePositiveNormal(PositiveNormal):
    """`PositiveNormal` with the path of a normal that is not truncated, which is biased.

    A draw moves by dz/dloc = 1 and dz/dscale = noise, as in a program that draws negative values again. This path
    ignores that the point of truncation moves with the parameters: the gradient lacks a term at zero. It is here to
    reproduce results that were obtained in this way.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> def mean(loc, family):  # E[z] = sqrt(2 / pi) at loc = 0, where its derivative is 1 - 2 / pi
        ...     return family(loc, 1.0).rsample(jax.random.key(0), (10_000,)).mean()
        >>> families = (vj.distributions.LocationScalePositiveNormal, vj.distributions.PositiveNormal)
        >>> [f"{jax.grad(mean)(0.0, family):.2f}" for family in families]
        ['1.00', '0.36']
    """

    def _noise(self, key: PRNGKey, low: Any, shape: tuple[int, ...]) -> Any:
        return lax.stop_gradient(super()._noise(key, low, shape))


def _truncated_noise(key: PRNGKey, low: Any, shape: tuple[int, ...]) -> Any:
    """Standard normal noise above `low`, by the quantile function at the midpoints of the uniform generator's cells.

    A cell's lower end, which `jax.random.uniform` returns, is `low` itself for one draw in 2^23 of float32: a draw at
    the very edge of the support, far likelier than the density allows.
    """
    low = jnp.asarray(low, jnp.result_type(low, float))
    half_cell = jnp.finfo(low.dtype).eps / 2
    edge = lax.erf(low / math.sqrt(2))
    width = (1 - half_cell) - edge
    uniform = jax.random.uniform(key, shape, low.dtype)
    return math.sqrt(2) * lax.erf_inv((edge + width * half_cell) + width * uniform)


class OneHotCategorical(dist.Distribution):
    """One of K categories as a vector of K floats, one of them 1 and the others 0.

    Its log density is linear in the value, so that it extends to the relaxed values inside the simplex.

    Args:
        logits: log probabilities up to a constant, [..., K].

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> q = vj.OneHotCategorical(jnp.log(jnp.array([0.2, 0.8])))
        >>> q.sample(jax.random.key(0), (5,)).sum(axis=-1).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
        >>> print(f"{q.log_prob(jnp.array([0.0, 1.0])):.3f}")  # log 0.8
        -0.223
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012

    def __init__(self, logits: Any, *, validate_args: bool | None = None) -> None:
        if jnp.ndim(logits) < 1:
            raise ValueError("logits must have at least one axis, got a scalar: give one logit for each category")
        self.logits = logits
        shape = jnp.shape(logits)
        super().__init__(batch_shape=shape[:-1], event_shape=shape[-1:], validate_args=validate_args)

    @property
    def support(self) -> Any:
        """The corners of the simplex."""
        return constraints.multinomial(1)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        logits = jnp.asarray(self.logits)
        numbers = jax.random.categorical(key, logits, shape=sample_shape + self.batch_shape)
        return jax.nn.one_hot(numbers, logits.shape[-1], dtype=logits.dtype)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return (value * jax.nn.log_softmax(self.logits)).sum(axis=-1)

    @property
    def probs(self) -> Any:
        """The probabilities of the categories."""
        return jax.nn.softmax(self.logits)

    @property
    def mean(self) -> Any:
        return self.probs

    @property
    def variance(self) -> Any:
        return self.probs * (1 - self.probs)

    def entropy(self) -> Any:
        """In nats."""
        return -(self.probs * jax.nn.log_softmax(self.logits)).sum(axis=-1)
