"""Costs of one Gaussian latent, whose gradient estimators have exact variances.

The square, the cosine and the exponential cost, f(z) under q = Normal(loc, scale), are those whose variances against
the cost's parameter are the field's best known figures.

Reference: Mohamed, Rosca, Figurnov & Mnih (2020), section 3 and figures 2 and 3.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.problems.exact_moments import MomentsByParameter
from vae_jax.problems.gaussian_costs.gaussian_cost_moments import exact_moments
from vae_jax.problems.normal_latent import NormalLatent
from vae_jax.problems.problem import ExpectedCost
from vae_jax.typing import Distributions, Latents, Scalar


@dataclass(frozen=True)
class GaussianCost(NormalLatent, ExpectedCost):
    """E[f(z)] under z ~ Normal(loc, scale). Parameters are the dict loc, scale."""

    name: ClassVar[str]

    @abstractmethod
    def cost(self, z: Any) -> Any:
        """f(z)."""

    @property
    def default_params(self) -> dict[str, Any]:
        """loc and scale of 1, as in the published figures."""
        return {"loc": 1.0, "scale": 1.0}

    def objective(self, latents: Latents, q: Distributions) -> Scalar:
        """f(z)."""
        del q
        return self.cost(latents)

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the cost and of its gradient; see `gaussian_cost_moments.exact_moments`."""
        self.check_params(params)
        return exact_moments(self.derivatives, params["loc"], params["scale"], estimator)

    def derivatives(self, z: Any) -> tuple[Any, Any, Any]:
        """f, f' and f'' at the points [n], in float64."""
        with jax.enable_x64(True):
            points = jnp.asarray(z, jnp.float64).reshape(-1)
            first = jax.grad(self.cost)
            found = (jax.vmap(function)(points) for function in (self.cost, first, jax.grad(first)))
            f, slope, curvature = (jax.device_get(values).reshape(jnp.shape(z)) for values in found)
        return f, slope, curvature


@dataclass(frozen=True)
class SquareCost(GaussianCost):
    """The square cost f(z) = (z - target)^2 of one Gaussian latent.

    Args:
        target: the number that z is compared with.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.SquareCost(target=0.5)
        >>> moments = problem.exact({"loc": 1.0, "scale": 1.0}, "pathwise")(1)  # of one sample
        >>> mean, std = moments["loc"].mean.value, moments["loc"].std.value
        >>> print(f"{mean:.2f}, std {std:.2f}")  # the gradient is 2 (z - target)
        1.00, std 2.00
    """

    target: float = 0.0
    name: ClassVar[str] = "square"

    def cost(self, z: Any) -> Any:
        """(z - target)^2."""
        return (z - self.target) ** 2


@dataclass(frozen=True)
class CosineCost(GaussianCost):
    """The cosine cost f(z) = cos(frequency z) of one Gaussian latent.

    Args:
        frequency: the angular frequency.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.CosineCost(frequency=1.0)
        >>> moments = problem.exact({"loc": 1.0, "scale": 1.0}, "pathwise")(1)  # of one sample
        >>> mean, std = moments["loc"].mean.value, moments["loc"].std.value
        >>> print(f"{mean:.2f}, std {std:.2f}")  # the mean is -sin(1) exp(-1/2)
        -0.51, std 0.52
    """

    frequency: float = 1.0
    name: ClassVar[str] = "cosine"

    def cost(self, z: Any) -> Any:
        """cos(frequency z)."""
        return jnp.cos(self.frequency * z)


@dataclass(frozen=True)
class ExponentialCost(GaussianCost):
    """The exponential cost f(z) = exp(-rate z^2) of one Gaussian latent.

    Args:
        rate: the factor of z^2.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.ExponentialCost(rate=1.0)
        >>> moments = problem.exact({"loc": 1.0, "scale": 1.0}, "pathwise")(1)  # of one sample
        >>> mean, std = moments["loc"].mean.value, moments["loc"].std.value
        >>> print(f"{mean:.2f}, std {std:.2f}")  # the mean is -2 exp(-1/3) / 3^1.5
        -0.28, std 0.46
    """

    rate: float = 1.0
    name: ClassVar[str] = "exponential"

    def cost(self, z: Any) -> Any:
        """exp(-rate z^2)."""
        return jnp.exp(-self.rate * z**2)
