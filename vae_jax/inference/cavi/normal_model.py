"""Independent normal observations whose mean and precision are both unknown.

x_n ~ Normal(mu, precision tau); mu | tau ~ Normal(m_0, precision k_0 tau); tau ~ Gamma(alpha, rate beta).

Under q(mu) q(tau) the expected log joint is, as a function of mu, -(E[tau] / 2) (sum_n (x_n - mu)^2 + k_0 (mu -
m_0)^2), so that

    q(mu) = Normal(m, precision t),  m = (k_0 m_0 + sum_n x_n) / (k_0 + N),  t = (k_0 + N) E[tau].

As a function of tau it is (alpha - 1 + (N + 1) / 2) log tau - (beta + E[sum_n (x_n - mu)^2 + k_0 (mu - m_0)^2] / 2)
tau: the prior of mu gives the half more. With R = sum_n (x_n - m)^2 + k_0 (m - m_0)^2,

    q(tau) = Gamma(a, rate b),  a = alpha + (N + 1) / 2,  b = beta + (R + (k_0 + N) / t) / 2.

At the optimum (k_0 + N) / t = b / a, so that b = (beta + R / 2) 2a / (2a - 1) and E[tau] = (alpha + N / 2) / (beta +
R / 2): that of the exact posterior.

Reference: Bishop (2006), section 10.1.3.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma
from jaxtyping import Array, Float
from numpyro.distributions.kl import kl_divergence

from vae_jax.inference.cavi.coordinate_ascent import StepInfo
from vae_jax.typing import Distributions, PRNGKey, Scalar


class NormalFactors(NamedTuple):
    """Factors q(mu) = Normal(loc, precision) and q(tau) = Gamma(concentration, rate)."""

    loc: Scalar
    precision: Scalar
    concentration: Scalar
    rate: Scalar


class NormalModel(NamedTuple):
    """Model of normal observations with unknown mean and precision, for `ascend` on observations [N].

    Example:
        The mean of q(mu) is the exact posterior's, (prior_count prior_loc + sum of the data) / (prior_count + N):

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import NormalModel, ascend
        >>> model = NormalModel(prior_loc=0.0, prior_count=1.0, concentration=1.0, rate=1.0)
        >>> found = ascend(model, jnp.array([1.0, 2.0, 3.0]), jax.random.key(0))
        >>> f"{model.posterior(found.state)['mean'].mean:.2f}"  # 6 / 4
        '1.50'
    """

    prior_loc: Scalar | float
    """m_0."""
    prior_count: Scalar | float
    """k_0: how many observations the prior of the mean is worth."""
    concentration: Scalar | float
    """alpha."""
    rate: Scalar | float
    """beta."""

    def init(self, key: PRNGKey, data: Float[Array, " N"]) -> NormalFactors:
        """q(tau) at the prior and q(mu) at its optimum. There is one optimum, and the key is not used."""
        del key
        concentration, rate = (jnp.asarray(number, data.dtype) for number in (self.concentration, self.rate))
        loc = jnp.zeros((), data.dtype)
        return self.update_mean(NormalFactors(loc, jnp.ones_like(loc), concentration, rate), data)

    def step(self, state: NormalFactors, data: Float[Array, " N"]) -> tuple[NormalFactors, StepInfo]:
        """Updates q(mu), then q(tau)."""
        state = self.update_precision(self.update_mean(state, data), data)
        return state, StepInfo(self.elbo(state, data))

    def canonical(self, state: NormalFactors) -> NormalFactors:
        """Returns the factors unchanged, since there are no labels."""
        return state

    def update_mean(self, state: NormalFactors, data: Float[Array, " N"]) -> NormalFactors:
        """q(mu) at its optimum given q(tau)."""
        count = self.prior_count + data.shape[0]
        loc = (self.prior_count * self.prior_loc + data.sum()) / count
        return state._replace(loc=loc, precision=count * state.concentration / state.rate)

    def update_precision(self, state: NormalFactors, data: Float[Array, " N"]) -> NormalFactors:
        """q(tau) at its optimum given q(mu)."""
        concentration = jnp.asarray(self.concentration + (data.shape[0] + 1) / 2, data.dtype)
        return state._replace(concentration=concentration, rate=self.rate + self._expected_squares(state, data) / 2)

    def elbo(self, state: NormalFactors, data: Float[Array, " N"]) -> Scalar:
        """The exact bound (nats) of any factors."""
        expected_log = digamma(state.concentration) - jnp.log(state.rate)
        num_normals = data.shape[0] + 1
        log_normalizers = num_normals / 2 * (expected_log - math.log(2 * math.pi)) + jnp.log(self.prior_count) / 2
        squares = state.concentration / state.rate * self._expected_squares(state, data)
        entropy_of_mean = (1 + math.log(2 * math.pi) - jnp.log(state.precision)) / 2
        factor, prior = dist.Gamma(state.concentration, state.rate), dist.Gamma(self.concentration, self.rate)
        return log_normalizers - squares / 2 + entropy_of_mean - kl_divergence(factor, prior)

    def posterior(self, state: NormalFactors) -> Distributions:
        """q of the mean and of the precision."""
        return {
            "mean": dist.Normal(state.loc, 1 / jnp.sqrt(state.precision)),
            "precision": dist.Gamma(state.concentration, state.rate),
        }

    def _expected_squares(self, state: NormalFactors, data: Float[Array, " N"]) -> Scalar:
        """E[sum_n (x_n - mu)^2 + k_0 (mu - m_0)^2] under q(mu)."""
        of_data = ((data - state.loc) ** 2).sum()
        of_prior = self.prior_count * (state.loc - self.prior_loc) ** 2
        return of_data + of_prior + (self.prior_count + data.shape[0]) / state.precision
