"""Types that every part of the package shares."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jax import Array
from jaxtyping import Float, Key, PyTree

Scalar: TypeAlias = Float[Array, ""]
PRNGKey: TypeAlias = Key[Array, ""]
Vector: TypeAlias = Float[Array, " D"]
Matrix: TypeAlias = Float[Array, "D D"]

Latents: TypeAlias = Any
"""One sample: a pytree with the structure of the distributions it was drawn from."""

Parameters: TypeAlias = Any
"""A pytree of floating-point arrays in which a loss is differentiated."""


@runtime_checkable
class Distribution(Protocol):
    """The interface of distributions that estimators use. NumPyro's distributions have it.

    A distribution is a registered pytree of its parameters. `has_rsample` says whether `rsample` is differentiable in
    them.

    Example:
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> isinstance(dist.Normal(0.0, 1.0), vj.typing.Distribution)
        True
    """

    @property
    def batch_shape(self) -> tuple[int, ...]: ...

    @property
    def has_rsample(self) -> bool: ...

    def sample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any: ...

    def rsample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any: ...

    def log_prob(self, value: Any) -> Any: ...


Distributions: TypeAlias = PyTree
"""A distribution, or a pytree of independent ones, each with `batch_shape == ()`."""

LogDensity: TypeAlias = Callable[[Latents], Any]
"""A function of one sample that returns the log of a density, normalised or not (nats, scalar)."""

Objective: TypeAlias = Callable[[Latents, Distributions], Any]
"""A function of one sample and its distribution that returns a scalar.

It may use the distribution only through `distributions.log_prob`.
"""


@runtime_checkable
class Estimator(Protocol):
    """An estimator of E_q[objective]: its value is the estimate, and its `jax.grad` estimates the gradient.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> estimator: vj.typing.Estimator = vj.pathwise
        >>> def estimate(loc):
        ...     return estimator(lambda z, q: 3.0 * z, dist.Normal(loc, 1.0), jax.random.key(0), 10)
        >>> print(f"{jax.grad(estimate)(0.0):.2f}")
        3.00
    """

    def __call__(self, objective: Objective, q: Distributions, key: PRNGKey, num_samples: int, /) -> Scalar: ...


Baseline: TypeAlias = Callable[[Float[Array, " S"]], Any]
"""A function of the objective's values at S samples that returns the baseline of each, [S] or a scalar."""

StochasticLoss: TypeAlias = Callable[[Parameters, PRNGKey], Any]
"""A function of parameters and a key that returns a random scalar."""
