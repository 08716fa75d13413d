"""Counts whose rate is the product of two Gamma latents, under Gamma factors.

x_n ~ Poisson(u v); u ~ Gamma(a_u, rate b_u); v ~ Gamma(a_v, rate b_v).

The log joint is (a_u - 1 + sum_n x_n) log u + (a_v - 1 + sum_n x_n) log v - b_u u - b_v v - N u v + constant. Under
q(u) q(v) its expectation is, as a function of u, (a_u - 1 + sum_n x_n) log u - (b_u + N E[v]) u, and so for v:

    q(u) = Gamma(a_u + sum_n x_n, rate b_u + N E[v]),  q(v) = Gamma(a_v + sum_n x_n, rate b_v + N E[u]).

The data see the product alone, so that the latents are dependent in the posterior, and a sweep takes the means only
part of the way.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float
from numpyro.distributions.kl import kl_divergence

from vae_jax.inference.cavi.coordinate_ascent import StepInfo
from vae_jax.typing import Distributions, PRNGKey, Scalar


class GammaFactor(NamedTuple):
    """A Gamma distribution.

    Example:
        >>> from vae_jax.inference.cavi import GammaFactor
        >>> factor = GammaFactor(concentration=3.0, rate=2.0)
        >>> factor.mean.item(), factor.distribution.variance.item()
        (1.5, 0.75)
    """

    concentration: Scalar | float
    rate: Scalar | float

    @property
    def mean(self) -> Scalar:
        """E[z]."""
        return jnp.asarray(self.concentration / self.rate)

    @property
    def expected_log(self) -> Scalar:
        """E[log z]."""
        return digamma(self.concentration) - jnp.log(self.rate)

    @property
    def distribution(self) -> dist.Gamma:
        """The factor as a distribution of NumPyro."""
        return dist.Gamma(self.concentration, self.rate)


class PoissonGammaFactors(NamedTuple):
    """Factors q(u) and q(v)."""

    u: GammaFactor
    v: GammaFactor


class PoissonGammaModel(NamedTuple):
    """Model of Poisson counts whose rate is u v, for `ascend` on counts [N] of a floating-point type.

    Example:
        The factor of u is at its optimum given v's mean, of concentration a_u + sum of the counts:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import GammaFactor, PoissonGammaModel, ascend
        >>> model = PoissonGammaModel(GammaFactor(2.0, 1.0), GammaFactor(3.0, 1.0))
        >>> found = ascend(model, jnp.array([4.0, 6.0]), jax.random.key(0))
        >>> found.state.u.concentration.item(), found.state.v.concentration.item(), bool(found.converged)
        (12.0, 13.0, True)
    """

    prior_u: GammaFactor
    prior_v: GammaFactor

    def init(self, key: PRNGKey, data: Float[Array, " N"]) -> PoissonGammaFactors:
        """q(v) at the prior's mean, and q(u) at its optimum. There is one optimum, and the key is not used."""
        del key
        concentration = self.prior_v.concentration + data.sum()
        v = GammaFactor(concentration, concentration * self.prior_v.rate / self.prior_v.concentration)
        return self.update_u(PoissonGammaFactors(v, v), data)

    def step(self, state: PoissonGammaFactors, data: Float[Array, " N"]) -> tuple[PoissonGammaFactors, StepInfo]:
        """Updates q(u), then q(v)."""
        state = self.update_v(self.update_u(state, data), data)
        return state, StepInfo(self.elbo(state, data))

    def canonical(self, state: PoissonGammaFactors) -> PoissonGammaFactors:
        """Returns the factors unchanged, since there are no labels."""
        return state

    def update_u(self, state: PoissonGammaFactors, data: Float[Array, " N"]) -> PoissonGammaFactors:
        """q(u) at its optimum given q(v)."""
        return state._replace(u=_optimum(self.prior_u, state.v, data))

    def update_v(self, state: PoissonGammaFactors, data: Float[Array, " N"]) -> PoissonGammaFactors:
        """q(v) at its optimum given q(u)."""
        return state._replace(v=_optimum(self.prior_v, state.u, data))

    def elbo(self, state: PoissonGammaFactors, data: Float[Array, " N"]) -> Scalar:
        """The exact bound (nats) of any factors."""
        log_rate = state.u.expected_log + state.v.expected_log
        log_likelihood = data.sum() * log_rate - data.shape[0] * state.u.mean * state.v.mean - gammaln(data + 1).sum()
        of_u = kl_divergence(state.u.distribution, dist.Gamma(self.prior_u.concentration, self.prior_u.rate))
        of_v = kl_divergence(state.v.distribution, dist.Gamma(self.prior_v.concentration, self.prior_v.rate))
        return log_likelihood - of_u - of_v

    def posterior(self, state: PoissonGammaFactors) -> Distributions:
        """q of both latents."""
        return {"u": state.u.distribution, "v": state.v.distribution}


def _optimum(prior: GammaFactor, other: GammaFactor, data: Float[Array, " N"]) -> GammaFactor:
    return GammaFactor(prior.concentration + data.sum(), prior.rate + data.shape[0] * other.mean)
