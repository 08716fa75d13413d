"""Any number of Gaussian latents, each datum of which sees two, whose evidence and posterior are exact."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vae_jax.problems.parameter_checks import check_finite, check_positive
from vae_jax.typing import Scalar, Vector


@dataclass(frozen=True)
class LinearGaussianChain:
    """A chain of D Gaussian latents, each datum of which sees two neighbours.

    The model is z ~ N(0, I) and x_d ~ N(z_d + coupling z_{d-1}, noise_scale^2) for each d, and every datum is `x`. With
    one latent it is the `LinearGaussian` of the same datum. The coupling makes neighbouring latents depend on each
    other in the posterior, which a mean-field family cannot represent.

    Args:
        num_latents: D.
        x: the value of each of the D data.
        coupling: the share of its neighbour that a datum sees.
        noise_scale: the standard deviation of the data's noise.

    Raises:
        ValueError: no latent, a number that is not finite, or a noise scale that is not positive.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussianChain(3, x=1.0, coupling=1.0)
        >>> elbo = jax.jit(lambda q, key: vj.elbo(problem.log_joint, q, key, 10_000))
        >>> mean_field, posterior = (elbo(q, jax.random.key(0)) for q in (problem.mean_field, problem.posterior))
        >>> print(f"{mean_field:.1f} < {posterior:.2f}, log p(x) = {problem.log_evidence:.2f}")
        -4.6 < -4.46, log p(x) = -4.46
    """

    num_latents: int
    x: float = 1.5
    coupling: float = 0.5
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.num_latents < 1:
            raise ValueError(f"num_latents must be at least 1, got {self.num_latents}: raise it")
        check_finite({"x": self.x, "coupling": self.coupling})
        check_positive({"noise_scale": self.noise_scale})

    @property
    def log_evidence(self) -> float:
        """log p(x) (nats)."""
        weights = self._weights
        covariance = weights @ weights.T + self.noise_scale**2 * np.eye(self.num_latents)
        distances = np.linalg.solve(covariance, np.full(self.num_latents, self.x)) * self.x
        _, log_determinant = np.linalg.slogdet(2 * math.pi * covariance)
        return float(-(distances.sum() + log_determinant) / 2)

    @property
    def prior(self) -> dist.Distribution:
        """p(z)."""
        return dist.Normal(jnp.zeros(self.num_latents), 1.0).to_event(1)

    @property
    def posterior(self) -> dist.Distribution:
        """p(z | x)."""
        return dist.MultivariateNormal(jnp.asarray(self._posterior_mean), precision_matrix=jnp.asarray(self._precision))

    @property
    def mean_field(self) -> dist.Distribution:
        """The independent normals with the highest ELBO: they have the posterior's means and conditional scales."""
        scale = np.diagonal(self._precision) ** -0.5
        return dist.Normal(jnp.asarray(self._posterior_mean), jnp.asarray(scale)).to_event(1)

    def log_likelihood(self, latents: Vector) -> Scalar:
        """log p(x | z) (nats)."""
        neighbours = jnp.concatenate([jnp.zeros(1, latents.dtype), latents[:-1]])
        noise = (self.x - latents - self.coupling * neighbours) / self.noise_scale
        return -(noise**2).sum() / 2 - self.num_latents * (math.log(self.noise_scale) + math.log(2 * math.pi) / 2)

    def log_joint(self, latents: Vector) -> Scalar:
        """log p(x, z) (nats)."""
        return self.log_likelihood(latents) - (latents**2).sum() / 2 - self.num_latents * math.log(2 * math.pi) / 2

    @property
    def _weights(self) -> np.ndarray:
        return np.eye(self.num_latents) + self.coupling * np.eye(self.num_latents, k=-1)

    @property
    def _precision(self) -> np.ndarray:
        return np.eye(self.num_latents) + self._weights.T @ self._weights / self.noise_scale**2

    @property
    def _posterior_mean(self) -> np.ndarray:
        data = np.full(self.num_latents, self.x)
        return np.linalg.solve(self._precision, self._weights.T @ data / self.noise_scale**2)
