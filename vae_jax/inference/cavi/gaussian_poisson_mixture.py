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

A component with N_k = 0 is at its prior: nothing is divided by a count.

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
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import digamma, entr, gammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from numpyro.distributions.kl import kl_divergence

from vae_jax.inference.cavi.component_seeding import labels_by_size, plus_plus_labels
from vae_jax.inference.cavi.coordinate_ascent import StepInfo
from vae_jax.inference.cavi.located_counts import LocatedCounts, located_counts
from vae_jax.inference.cavi.mixture_weights import (
    DirichletWeights,
    MixtureWeights,
    check_weights,
    num_present,
    order_by_size,
)
from vae_jax.inference.cavi.optimal_assignment import assign, product
from vae_jax.typing import Distributions, PRNGKey, Scalar

CLUSTERS_PER_SPREAD = 5.0
"""The data's spread over a cluster's, by default."""

LARGEST_RATE = 2**30
"""Of counts that are drawn: they are integers of 32 bits."""


class GaussianPoissonFactors(NamedTuple):
    """The factors of the parameters. That of the labels is optimal given them, see `responsibilities`."""

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
    """Parameters from the prior, and events under them."""

    data: LocatedCounts
    labels: Int[Array, " N"]
    loc: Float[Array, "K D"]
    rate: Float[Array, " K"]
    weights: Float[Array, " K"]


class GaussianPoissonMixture(NamedTuple):
    """The mixture's hyperparameters, for `run`. Build it with `gaussian_poisson_mixture`."""

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

    def init(self, key: PRNGKey, data: LocatedCounts) -> GaussianPoissonFactors:
        """The factors of a hard assignment to k-means++ seeds, the larger clusters to the larger prior weights.

        Distances are in units of the model's own noise: sqrt(tau) x and 2 sqrt(s) both have about unit variance.
        """
        places = jnp.sqrt(self.position_precision) * data.features[:-2]
        points = jnp.concatenate([places, 2 * jnp.sqrt(data.features[-2:-1])])
        num_components = self.weights.by_component.shape[0]
        labels = plus_plus_labels(key, points, num_present(self.weights))
        labels = labels_by_size(labels, self.weights.by_component)
        return self.update(jax.nn.one_hot(labels, num_components, axis=0, dtype=data.features.dtype), data)

    def step(self, state: GaussianPoissonFactors, data: LocatedCounts) -> tuple[GaussianPoissonFactors, StepInfo]:
        """q(Z), then all other factors, which do not depend on each other given q(Z); one pass over the data.

        Before the second update the bound is that of q(Z) at its optimum, sum_n log sum_k exp(C_k . f_n) and the terms
        outside. The update changes C and the divergences alone, so that no second pass is needed.
        """
        coefficients = self._coefficients(state, data)
        sums, log_normalizer = assign(coefficients, data.features)
        updated = self._optimum(sums, data)
        gain = (sums * (self._coefficients(updated, data) - coefficients)).sum()
        elbo = log_normalizer + gain + self._constant(data) - self._divergence(updated)
        return updated, StepInfo(elbo)

    def update(self, responsibilities: Float[Array, "K N"], data: LocatedCounts) -> GaussianPoissonFactors:
        """The factors of the parameters that are optimal given q(Z)."""
        return self._optimum(product(responsibilities, data.features.T), data)

    def responsibilities(self, state: GaussianPoissonFactors, data: LocatedCounts) -> Float[Array, "K N"]:
        """q(Z_n = k), optimal given the other factors."""
        return jax.nn.softmax(product(self._coefficients(state, data), data.features), axis=0)

    def elbo(self, state: GaussianPoissonFactors, responsibilities: Float[Array, "K N"], data: LocatedCounts) -> Scalar:
        """The exact bound (nats) of any factors, optimal or not."""
        logits = product(self._coefficients(state, data), data.features)
        assigned = (responsibilities * logits).sum() + entr(responsibilities).sum()
        return assigned + self._constant(data) - self._divergence(state)

    def canonical(self, state: GaussianPoissonFactors) -> GaussianPoissonFactors:
        """Components by falling size, equal ones by place; only those with the same prior weight change places."""
        # The factor's precision grows with the component's size.
        order = order_by_size(self.weights, state.precision, state.loc)
        return jax.tree.map(lambda leaf: leaf[order], state)

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
        """Parameters from the prior and `num_events` events. It is not traceable: the events are checked.

        Raises:
            ValueError: a rate is drawn too large for its counts to be.
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
        """The bound's terms that depend on no factor."""
        num_dimensions = data.features.shape[0] - 2
        log_normalizer = data.num_events * num_dimensions / 2 * jnp.log(self.position_precision / (2 * math.pi))
        return log_normalizer - self.position_precision / 2 * data.squared_distance - data.log_factorials

    def _divergence(self, state: GaussianPoissonFactors) -> Scalar:
        """That of all parameters' factors from their priors."""
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
    """The mixture with a prior on the data's own scale: multiply the positions by c and it multiplies its lengths by c.

    No default depends on `num_components`, so that bounds of different numbers of components compare.

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

    Raises:
        ValueError: the number of components is not in 1..N, a hyperparameter is not positive and finite or has the
            wrong length, or the positions are identical and a precision is not given.
    """
    num_events = data.features.shape[1]
    if not 1 <= num_components <= num_events:
        raise ValueError(f"num_components must be from 1 to the {num_events} events, got {num_components}: change it")
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
    loc = data.centre if prior_loc is None else jnp.asarray(prior_loc, dtype)
    if loc.shape != data.centre.shape or not np.isfinite(loc).all():
        raise ValueError(f"prior_loc must be {num_dimensions} finite numbers, got {loc}: one a dimension")
    given = DirichletWeights(jnp.ones(num_components)) if weights is None else weights
    prior: MixtureWeights = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), given)
    check_weights(prior, num_components)
    scalars = {name: jnp.asarray(number, dtype) for name, number in numbers.items()}
    return GaussianPoissonMixture(prior_loc=loc, weights=prior, **scalars)
