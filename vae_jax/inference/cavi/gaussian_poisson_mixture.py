"""A mixture of places with counts: where earthquakes cluster, and how many stations report those of each cluster.

Z_n ~ Categorical(pi); X_n | Z_n = k ~ Normal(mu_k, precision tau I) in D dimensions; S_n | Z_n = k ~ Poisson(lambda_k);
mu_k ~ Normal(nu, precision rho I); lambda_k ~ Gamma(alpha, rate beta); pi is given, or Dirichlet(c).

**The factors.** Under q(Z) q(mu) q(lambda) q(pi) the bound is E_q[log p(x, s, Z, mu, lambda, pi)] plus the entropy of
q. With r_nk = q(Z_n = k), every term of the log joint that holds Z_n is

    sum_k z_nk [log pi_k + (D/2) log(tau / 2 pi) - (tau/2) |x_n - mu_k|^2 + s_n log lambda_k - lambda_k - log s_n!].

As a function of mu_k the expected log joint is -(tau/2) sum_n r_nk |x_n - mu_k|^2 - (rho/2) |mu_k - nu|^2, a quadratic
whose completed square is, with the weighted count N_k = sum_n r_nk,

    q(mu_k) = Normal(m_k, precision t_k I),  t_k = rho + tau N_k,  m_k = (rho nu + tau sum_n r_nk x_n) / t_k.

As a function of lambda_k it is (alpha - 1 + sum_n r_nk s_n) log lambda_k - (beta + N_k) lambda_k, so that

    q(lambda_k) = Gamma(a_k, rate b_k),  a_k = alpha + sum_n r_nk s_n,  b_k = beta + N_k.

As a function of pi it is sum_k (c_k - 1 + N_k) log pi_k, so that q(pi) = Dirichlet(c_k + N_k). As a function of Z_n it
is linear in z_nk. With E|x_n - mu_k|^2 = |x_n - m_k|^2 + D / t_k, E[lambda_k] = a_k / b_k, E[log lambda_k] =
digamma(a_k) - log b_k, and E[log pi_k] = digamma(c_k + N_k) - digamma(sum_j c_j + N_j), or log pi_k where it is given,

    log r_nk = E[log pi_k] - (tau/2) (|x_n - m_k|^2 + D / t_k) + s_n E[log lambda_k] - E[lambda_k] + constant_n.

A component with N_k = 0 is at its prior: no step divides by a count.

**Matrix products.** With y_n = x_n - c about the data's mean c, |x_n - m_k|^2 = |y_n|^2 - 2 y_n . (m_k - c) + |m_k -
c|^2, and the first term is the same for all k. What is left of log r_nk is the product of the features (y_n, s_n, 1)
and of the coefficients (tau (m_k - c), E[log lambda_k], E[log pi_k] - (tau/2) (|m_k - c|^2 + D / t_k) - E[lambda_k]);
and all that the other factors need of the data is sum_n r_nk (y_n, s_n, 1).

**The bound.** With these coefficients C_k and features f_n it is

    sum_nk r_nk (C_k . f_n - log r_nk) + sum_n [(D/2) log(tau / 2 pi) - (tau/2) |y_n|^2 - log s_n!]
        - sum_k KL(q(mu_k) || p(mu_k)) - sum_k KL(q(lambda_k) || p(lambda_k)) - KL(q(pi) || p(pi)).

Reference: Bishop (2006), sections 10.1 and 10.2, for the method.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from numpyro.distributions.kl import kl_divergence

from vae_jax.inference.cavi.conjugate_mixture import (
    ConjugateMixture,
    check_num_components,
    prior_place,
    prior_weights,
)
from vae_jax.inference.cavi.mixture_data import LocatedCounts, located_counts
from vae_jax.inference.cavi.mixture_weights import MixtureWeights
from vae_jax.typing import Distributions, PRNGKey, Scalar

CLUSTERS_PER_SPREAD = 5.0
"""The data's spread over a cluster's, by default."""

LARGEST_RATE = 2**30
"""The largest rate that counts are drawn at: they are integers of 32 bits."""


class GaussianPoissonFactors(NamedTuple):
    """Factors of the mixture's parameters. The labels' factor is optimal given these, see `responsibilities`."""

    loc: Float[Array, "K D"]
    """m_k of q(mu_k)."""
    precision: Float[Array, " K"]
    """t_k of q(mu_k)."""
    concentration: Float[Array, " K"]
    """a_k of q(lambda_k)."""
    rate: Float[Array, " K"]
    """b_k of q(lambda_k)."""
    weights: Float[Array, " K"] | None
    """The concentration of q(pi), where pi is not given."""


class Simulation(NamedTuple):
    """Parameters drawn from the prior, and events drawn given the parameters."""

    data: LocatedCounts
    labels: Int[Array, " N"]
    loc: Float[Array, "K D"]
    rate: Float[Array, " K"]
    weights: Float[Array, " K"]


class GaussianPoissonHyperparameters(NamedTuple):
    """The priors of the mixture, and how far events are from their cluster's place."""

    position_precision: Scalar
    """tau, of events about their cluster's place."""
    prior_loc: Float[Array, " D"]
    """nu."""
    prior_precision: Scalar
    """rho, of clusters' places about nu."""
    concentration: Scalar
    """alpha."""
    rate: Scalar
    """beta."""
    weights: MixtureWeights


class GaussianPoissonMixture(GaussianPoissonHyperparameters, ConjugateMixture):
    """Mixture of places with counts, for `ascend`. Build it with `gaussian_poisson_mixture`.

    Example:
        The factor of each rate is Gamma(alpha + sum of the counts, beta + number of events):

        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import gaussian_poisson_mixture, located_counts
        >>> data = located_counts([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]], [2, 3, 49])
        >>> model = gaussian_poisson_mixture(data, 2, concentration=1.0, rate=1.0)
        >>> state = model.update(jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), data)
        >>> model.posterior(state)["rate"].mean.tolist()  # 6 / 3 and 50 / 2
        [2.0, 25.0]
    """

    def posterior(self, state: GaussianPoissonFactors) -> Distributions:
        """q of the parameters: independent distributions of loc [K, D], rate [K] and, if not given, weights [K]."""
        return {
            "loc": self._loc_factor(state).to_event(2),
            "rate": dist.Gamma(state.concentration, state.rate).to_event(1),
            **self.weights.posterior(state.weights),
        }

    def predictive_log_density(
        self, state: GaussianPoissonFactors, positions: Float[Array, "M D"], counts: Float[Array, " M"]
    ) -> Float[Array, " M"]:
        """The log density (nats) of new events, with mu, lambda and pi integrated out under q.

        It is log sum_k E[pi_k] Normal(x; m_k, (1/tau + 1/t_k) I) NegativeBinomial(s; a_k, b_k / (b_k + 1)).
        """
        # Dimension by dimension: exact for close points, and no array of events, components and dimensions.
        squares = sum((x[None] - m[:, None]) ** 2 for x, m in zip(positions.T, state.loc.T, strict=True))
        variance = 1 / self.position_precision + 1 / state.precision
        of_place = (
            -squares / (2 * variance[:, None]) - positions.shape[1] / 2 * jnp.log(2 * math.pi * variance)[:, None]
        )

        def of_count(concentration: Any, rate: Any) -> Any:
            log_choices = gammaln(counts + concentration) - gammaln(concentration) - gammaln(counts + 1)
            return log_choices + concentration * (jnp.log(rate) - jnp.log1p(rate)) - counts * jnp.log1p(rate)

        log_weights = jnp.log(self.weights.mean(state.weights))
        components = log_weights[:, None] + of_place + jax.vmap(of_count)(state.concentration, state.rate)
        return jax.nn.logsumexp(components, axis=0)

    def simulate(self, key: PRNGKey, num_events: int) -> Simulation:
        """Draws parameters from the prior, and `num_events` events given them.

        It cannot be traced, since the events are checked.

        Raises:
            ValueError: a rate is drawn that is too large to draw counts.
        """
        loc_key, rate_key, weights_key, labels_key, positions_key, counts_key = jax.random.split(key, 6)
        weights = self.weights.draw(weights_key)
        num_components, num_dimensions = weights.shape[0], self.prior_loc.shape[0]
        noise = jax.random.normal(loc_key, (num_components, num_dimensions))
        loc = self.prior_loc[None] + noise / jnp.sqrt(self.prior_precision)
        rate = jax.random.gamma(rate_key, self.concentration, (num_components,)) / self.rate
        if not rate.max() < LARGEST_RATE:
            raise ValueError(f"rates must be below {LARGEST_RATE:,} to draw counts, got {rate.max():g}: raise rate")
        labels = jax.random.categorical(labels_key, jnp.log(weights), shape=(num_events,))
        noise = jax.random.normal(positions_key, (num_events, num_dimensions))
        positions = loc[labels] + noise / jnp.sqrt(self.position_precision)
        counts = jax.random.poisson(counts_key, rate[labels])
        return Simulation(located_counts(positions, counts), labels, loc, rate, weights)

    def component_sizes(self, state: GaussianPoissonFactors) -> Float[Array, " K"]:
        return state.rate - self.rate

    def _seeding_points(self, data: LocatedCounts) -> Float[Array, "F N"]:
        # In units of the model's own noise: sqrt(tau) x and 2 sqrt(s) both have about unit variance.
        places = jnp.sqrt(self.position_precision) * data.features[:-2]
        return jnp.concatenate([places, 2 * jnp.sqrt(data.features[-2:-1])])

    def _growing_with_size(self, state: GaussianPoissonFactors) -> Float[Array, " K"]:
        return state.precision

    def _optimum(self, sums: Float[Array, "K F"], data: LocatedCounts) -> GaussianPoissonFactors:
        places, counts, sizes = sums[:, :-2], sums[:, -2], sums[:, -1]
        precision = self.prior_precision + self.position_precision * sizes
        pull = self.prior_precision * (self.prior_loc - data.centre)
        loc = data.centre[None] + (pull[None] + self.position_precision * places) / precision[:, None]
        return GaussianPoissonFactors(
            loc, precision, self.concentration + counts, self.rate + sizes, self.weights.update(sizes)
        )

    def _coefficients(self, state: GaussianPoissonFactors, data: LocatedCounts) -> Float[Array, "K F"]:
        loc = state.loc - data.centre[None]
        expected_square = (loc**2).sum(1) + loc.shape[1] / state.precision
        log_rate = digamma(state.concentration) - jnp.log(state.rate)
        log_weights = self.weights.expected_log(state.weights)
        offset = log_weights - self.position_precision / 2 * expected_square - state.concentration / state.rate
        return jnp.concatenate([self.position_precision * loc, log_rate[:, None], offset[:, None]], axis=1)

    def _constant(self, data: LocatedCounts) -> Scalar:
        num_dimensions = data.features.shape[0] - 2
        log_normalizer = data.num_events * num_dimensions / 2 * jnp.log(self.position_precision / (2 * math.pi))
        return log_normalizer - self.position_precision / 2 * data.squared_distance - data.log_factorials

    def _divergence(self, state: GaussianPoissonFactors) -> Scalar:
        prior_loc = dist.Normal(self.prior_loc[None], 1 / jnp.sqrt(self.prior_precision))
        of_loc = kl_divergence(self._loc_factor(state), prior_loc).sum()
        prior_rate = dist.Gamma(self.concentration, self.rate)
        of_rate = kl_divergence(dist.Gamma(state.concentration, state.rate), prior_rate).sum()
        return of_loc + of_rate + self.weights.divergence(state.weights)

    def _loc_factor(self, state: GaussianPoissonFactors) -> Any:
        return dist.Normal(state.loc, jnp.broadcast_to(1 / jnp.sqrt(state.precision)[:, None], state.loc.shape))


def gaussian_poisson_mixture(
    data: LocatedCounts,
    num_components: int,
    *,
    position_precision: float | None = None,
    prior_loc: ArrayLike | None = None,
    prior_precision: float | None = None,
    concentration: float = 1.0,
    rate: float | None = None,
    weights: MixtureWeights | None = None,
) -> GaussianPoissonMixture:
    """Builds a mixture of places with counts, with a prior on the data's own scale.

    Where the positions are multiplied by c, so are all lengths of the default prior. No default depends on
    `num_components`, so that bounds of different numbers of components can be compared.

    Args:
        data: from `located_counts`.
        num_components: K, at most the number of events.
        position_precision: tau. By default 25 / v with v the positions' variance, averaged over dimensions: a cluster
            is a fifth as wide as the data.
        prior_loc: nu [D], by default the positions' mean.
        prior_precision: rho, by default 1 / v: clusters are spread as the events are.
        concentration: alpha. By default 1: a rate may be anything below a few times its mean.
        rate: beta, by default alpha over the counts' mean (over 1/N, where all counts are zero).
        weights: by default Dirichlet(1, ..., 1), under which all weights are as likely.

    Returns:
        The mixture, for `ascend`.

    Raises:
        ValueError: the number of components is not in 1..N, a hyperparameter is not positive and finite or has the
            wrong length, or the positions are identical and a precision is not given.

    Example:
        Two places that nine events and one event come from, with counts of 5 and of 50:

        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.inference.cavi import ascend, gaussian_poisson_mixture, located_counts
        >>> places = np.repeat([[0.0, 0.0], [10.0, 10.0]], [9, 1], axis=0)
        >>> data = located_counts(places + np.random.default_rng(0).normal(scale=0.1, size=(10, 2)), [5] * 9 + [50])
        >>> model = gaussian_poisson_mixture(data, 2)
        >>> found = ascend(model, data, jax.random.key(0), num_restarts=3)
        >>> model.responsibilities(found.state, data).argmax(0).tolist()
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    """
    num_events = data.features.shape[1]
    check_num_components(num_components, num_events, "events")
    num_dimensions, dtype = data.centre.shape[0], data.features.dtype
    variance = float(data.squared_distance) / (num_events * num_dimensions)
    if variance == 0 and (position_precision is None or prior_precision is None):
        raise ValueError(
            f"positions must differ, got {num_events} identical ones: give position_precision and prior_precision"
        )
    mean_count = max(float(data.counts.mean()), 1 / num_events)
    numbers = {
        "position_precision": CLUSTERS_PER_SPREAD**2 / variance if position_precision is None else position_precision,
        "prior_precision": 1 / variance if prior_precision is None else prior_precision,
        "concentration": concentration,
        "rate": concentration / mean_count if rate is None else rate,
    }
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {number}: change it")
    loc = prior_place(prior_loc, data.centre)
    prior = prior_weights(weights, num_components, dtype)
    scalars = {name: jnp.asarray(number, dtype) for name, number in numbers.items()}
    return GaussianPoissonMixture(prior_loc=loc, weights=prior, **scalars)
