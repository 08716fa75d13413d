"""A Gaussian mixture whose components have places and covariances of their own.

Z_n ~ Categorical(pi); X_n | Z_n = k ~ Normal(mu_k, precision L_k) in D dimensions; mu_k | L_k ~ Normal(m_0, precision
b_0 L_k); L_k ~ Wishart(scale W_0, v_0 degrees of freedom), of mean v_0 W_0; pi is given, or Dirichlet(c).

With N_k = sum_n r_nk the factors q(mu_k, L_k) are of the prior's form, as its product with a Gaussian likelihood is:

    b_k = b_0 + N_k,  v_k = v_0 + N_k,  m_k = (b_0 m_0 + sum_n r_nk x_n) / b_k,
    W_k^-1 = W_0^-1 + sum_n r_nk x_n x_n' + b_0 m_0 m_0' - b_k m_k m_k',

with nothing divided by N_k. The expectations that q(Z) needs are E[(x - mu_k)' L_k (x - mu_k)] = D / b_k + v_k (x -
m_k)' W_k (x - m_k) and E[log |L_k|] = sum_{i=1..D} digamma((v_k + 1 - i) / 2) + D log 2 + log |W_k|:

    log r_nk = E[log pi_k] + (E[log |L_k|] - D log 2 pi - D / b_k - v_k (x_n - m_k)' W_k (x_n - m_k)) / 2 + constant_n.

With y_n = x_n - c about the data's mean this is a product of the features (y_n, the elements of y_n y_n', 1) and of
coefficients, and the updates need the features' sums weighted by r_nk alone, as for the Gaussian-Poisson mixture.

Reference: Bishop (2006), section 10.2, and appendix B for the Wishart distribution.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, entr, gammaln, multigammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vae_jax.inference.cavi.component_seeding import labels_by_size, plus_plus_labels
from vae_jax.inference.cavi.coordinate_ascent import StepInfo
from vae_jax.inference.cavi.located_counts import check_squares
from vae_jax.inference.cavi.mixture_weights import (
    DirichletWeights,
    MixtureWeights,
    check_weights,
    num_present,
    order_by_size,
)
from vae_jax.inference.cavi.optimal_assignment import assign, product
from vae_jax.typing import PRNGKey, Scalar


class Points(NamedTuple):
    """Points as the mixture reads them. Build them with `points`."""

    features: Float[Array, "F N"]
    """The positions about their mean, the elements of their outer squares, and ones."""
    centre: Float[Array, " D"]
    """The positions' mean."""


def points(positions: ArrayLike) -> Points:
    """Points from their positions [N, D].

    Raises:
        ValueError: there are none, or a position is not finite or so large that sums of squares overflow. Rows and
            columns are numbered from 1.
    """
    values = np.asarray(positions, np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"positions must be N rows of D numbers, got shape {values.shape}: give at least one point")
    for row, column in np.argwhere(~np.isfinite(values))[:1]:
        raise ValueError(
            f"positions must be finite, got {values[row, column]} in row {row + 1}, column {column + 1}: leave it out"
        )
    centre = values.mean(0)
    dtype = jnp.result_type(float)
    check_squares(values - centre, dtype)
    centred = (values - centre).T
    squares = (centred[:, None] * centred[None]).reshape(-1, len(values))
    features = np.vstack([centred, squares, np.ones(len(values))])
    return Points(jnp.asarray(features, dtype), jnp.asarray(centre, dtype))


class NormalWishartFactors(NamedTuple):
    """The factors of the parameters."""

    loc: Float[Array, "K D"]
    """m_k."""
    loc_count: Float[Array, " K"]
    """b_k."""
    inverse_scale: Float[Array, "K D D"]
    """The inverse of W_k."""
    degrees: Float[Array, " K"]
    """v_k."""
    weights: Float[Array, " K"] | None
    """The concentration of q(pi), where pi is not given."""


class NormalWishartMixture(NamedTuple):
    """The mixture's hyperparameters, for `run`. Build it with `normal_wishart_mixture`."""

    prior_loc: Float[Array, " D"]
    """m_0."""
    prior_count: Scalar
    """b_0."""
    inverse_scale: Float[Array, "D D"]
    """The inverse of W_0."""
    degrees: Scalar
    """v_0, more than D - 1."""
    weights: MixtureWeights

    def init(self, key: PRNGKey, data: Points) -> NormalWishartFactors:
        """The factors of a hard assignment to k-means++ seeds, in units of the data's standard deviations."""
        num_dimensions = data.centre.shape[0]
        centred = data.features[:num_dimensions]
        spread = jnp.sqrt((centred**2).mean(1))[:, None]
        scaled = centred / jnp.where(spread > 0, spread, 1)
        prior = self.weights.by_component
        labels = labels_by_size(plus_plus_labels(key, scaled, num_present(self.weights)), prior)
        return self.update(jax.nn.one_hot(labels, prior.shape[0], axis=0, dtype=centred.dtype), data)

    def step(self, state: NormalWishartFactors, data: Points) -> tuple[NormalWishartFactors, StepInfo]:
        """q(Z), then all other factors, in one pass over the data, as `GaussianPoissonMixture.step` does."""
        coefficients = self._coefficients(state, data)
        sums, log_normalizer = assign(coefficients, data.features)
        updated = self._optimum(sums, data)
        gain = (sums * (self._coefficients(updated, data) - coefficients)).sum()
        return updated, StepInfo(log_normalizer + gain - self._divergence(updated))

    def update(self, responsibilities: Float[Array, "K N"], data: Points) -> NormalWishartFactors:
        """The factors of the parameters that are optimal given q(Z)."""
        return self._optimum(product(responsibilities, data.features.T), data)

    def responsibilities(self, state: NormalWishartFactors, data: Points) -> Float[Array, "K N"]:
        """q(Z_n = k), optimal given the other factors."""
        return jax.nn.softmax(product(self._coefficients(state, data), data.features), axis=0)

    def elbo(self, state: NormalWishartFactors, responsibilities: Float[Array, "K N"], data: Points) -> Scalar:
        """The exact bound (nats) of any factors, optimal or not."""
        logits = product(self._coefficients(state, data), data.features)
        return (responsibilities * logits).sum() + entr(responsibilities).sum() - self._divergence(state)

    def canonical(self, state: NormalWishartFactors) -> NormalWishartFactors:
        """Components by falling size, equal ones by place; only those with the same prior weight change places."""
        order = order_by_size(self.weights, state.loc_count, state.loc)
        return jax.tree.map(lambda leaf: leaf[order], state)

    def predictive_log_density(self, state: NormalWishartFactors, positions: Float[Array, "M D"]) -> Float[Array, " M"]:
        """The log density (nats) of new points, with the parameters integrated out under q: a mixture of Student's t.

        Reference: Bishop (2006), eqs. 10.81 and 10.82.
        """
        num_dimensions = positions.shape[1]

        def of_component(loc: Any, count: Any, inverse_scale: Any, degrees: Any) -> Any:
            freedom = degrees + 1 - num_dimensions
            tril = jnp.linalg.cholesky(inverse_scale * (1 + count) / (freedom * count))
            standard = jax.scipy.linalg.solve_triangular(tril, (positions - loc[None]).T, lower=True)
            power = (freedom + num_dimensions) / 2
            log_normalizer = gammaln(power) - gammaln(freedom / 2) - num_dimensions / 2 * jnp.log(freedom * math.pi)
            tail = power * jnp.log1p((standard**2).sum(0) / freedom)
            return log_normalizer - jnp.log(jnp.diagonal(tril)).sum() - tail

        components = jax.vmap(of_component)(state.loc, state.loc_count, state.inverse_scale, state.degrees)
        return jax.nn.logsumexp(jnp.log(self.weights.mean(state.weights))[:, None] + components, axis=0)

    def _optimum(self, sums: Float[Array, "K F"], data: Points) -> NormalWishartFactors:
        num_dimensions, sizes = data.centre.shape[0], sums[:, -1]
        squares = sums[:, num_dimensions:-1].reshape(-1, num_dimensions, num_dimensions)
        count = self.prior_count + sizes
        prior_loc = self.prior_loc - data.centre
        loc = (self.prior_count * prior_loc[None] + sums[:, :num_dimensions]) / count[:, None]
        prior_square = self.inverse_scale + self.prior_count * jnp.outer(prior_loc, prior_loc)
        inverse_scale = prior_square[None] + squares - count[:, None, None] * _outer(loc)
        degrees = self.degrees + sizes
        return NormalWishartFactors(loc + data.centre[None], count, inverse_scale, degrees, self.weights.update(sizes))

    def _coefficients(self, state: NormalWishartFactors, data: Points) -> Float[Array, "K F"]:
        num_components, num_dimensions = state.loc.shape
        loc = state.loc - data.centre[None]
        expected_precision = state.degrees[:, None, None] * jnp.linalg.inv(state.inverse_scale)
        linear = (expected_precision * loc[:, None]).sum(2)
        offset = (
            self.weights.expected_log(state.weights)
            + (
                _expected_log_det(state)
                - num_dimensions * math.log(2 * math.pi)
                - num_dimensions / state.loc_count
                - (linear * loc).sum(1)
            )
            / 2
        )
        quadratic = -expected_precision.reshape(num_components, -1) / 2
        return jnp.concatenate([linear, quadratic, offset[:, None]], axis=1)

    def _divergence(self, state: NormalWishartFactors) -> Scalar:
        """That of all parameters' factors from their priors: of the Wishart, of mu given L, and of pi."""
        num_dimensions = state.loc.shape[1]
        scale = jnp.linalg.inv(state.inverse_scale)
        trace = (self.inverse_scale[None] * scale).sum((1, 2))
        of_precision = (
            _log_wishart_normalizer(state.inverse_scale, state.degrees)
            - _log_wishart_normalizer(self.inverse_scale, self.degrees)
            + (state.degrees - self.degrees) / 2 * _expected_log_det(state)
            + state.degrees / 2 * (trace - num_dimensions)
        )
        shift = state.loc - self.prior_loc[None]
        distance = state.degrees * (shift[:, :, None] * scale * shift[:, None]).sum((1, 2))
        ratio = self.prior_count / state.loc_count
        of_loc = (num_dimensions * (ratio - 1 - jnp.log(ratio)) + self.prior_count * distance) / 2
        return (of_precision + of_loc).sum() + self.weights.divergence(state.weights)


def _outer(rows: Float[Array, "K D"]) -> Float[Array, "K D D"]:
    return rows[:, :, None] * rows[:, None]


def _expected_log_det(state: NormalWishartFactors) -> Float[Array, " K"]:
    """E[log |L_k|]."""
    num_dimensions = state.loc.shape[1]
    halves = (state.degrees[:, None] - jnp.arange(num_dimensions)[None]) / 2
    log_det = -jnp.linalg.slogdet(state.inverse_scale)[1]
    return digamma(halves).sum(1) + num_dimensions * math.log(2) + log_det


def _log_wishart_normalizer(inverse_scale: Float[Array, "*K D D"], degrees: Float[Array, "*K"]) -> Float[Array, "*K"]:
    """log B(W, v): what the Wishart's density has as its factor."""
    num_dimensions = inverse_scale.shape[-1]
    log_det = jnp.linalg.slogdet(inverse_scale)[1]
    constant = degrees * num_dimensions / 2 * math.log(2)
    return degrees / 2 * log_det - constant - multigammaln(degrees / 2, num_dimensions)


def normal_wishart_mixture(
    data: Points,
    num_components: int,
    *,
    prior_loc: ArrayLike | None = None,
    prior_count: float = 1.0,
    inverse_scale: ArrayLike | None = None,
    degrees: float | None = None,
    weights: MixtureWeights | None = None,
) -> NormalWishartMixture:
    """The mixture with a prior on the data's own scale.

    Args:
        data: from `points`.
        num_components: K, at most the number of points.
        prior_loc: m_0 [D], by default the positions' mean.
        prior_count: b_0: how many points the prior of a place is worth.
        inverse_scale: the inverse of W_0 [D, D], positive definite. By default the data's covariance.
        degrees: v_0, more than D - 1, by default D.
        weights: by default Dirichlet(1, ..., 1), under which all weights are as likely.

    Raises:
        ValueError: the number of components is not in 1..N, or a hyperparameter is out of its range or of the wrong
            shape; in particular the data's covariance is singular and no inverse_scale is given.
    """
    num_dimensions, num_points = data.centre.shape[0], data.features.shape[1]
    dtype = data.features.dtype
    if not 1 <= num_components <= num_points:
        raise ValueError(f"num_components must be from 1 to the {num_points} points, got {num_components}: change it")
    if not 0 < prior_count < math.inf:
        raise ValueError(f"prior_count must be positive and finite, got {prior_count}: change it")
    degrees = float(num_dimensions) if degrees is None else degrees
    if not num_dimensions - 1 < degrees < math.inf:
        raise ValueError(f"degrees must be more than {num_dimensions - 1} and finite, got {degrees}: raise it")
    loc = data.centre if prior_loc is None else jnp.asarray(prior_loc, dtype)
    if loc.shape != data.centre.shape or not np.isfinite(loc).all():
        raise ValueError(f"prior_loc must be {num_dimensions} finite numbers, got {loc}: one a dimension")
    covariance = data.features[num_dimensions:-1].mean(1).reshape(num_dimensions, num_dimensions)
    matrix = covariance if inverse_scale is None else jnp.asarray(inverse_scale, dtype)
    if matrix.shape != covariance.shape or not np.isfinite(np.asarray(jnp.linalg.cholesky(matrix))).all():
        raise ValueError(
            f"inverse_scale must be a positive definite {num_dimensions} by {num_dimensions} matrix, got "
            f"{np.asarray(matrix).tolist()}: by default it is the data's covariance"
        )
    given = DirichletWeights(jnp.ones(num_components)) if weights is None else weights
    prior: MixtureWeights = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), given)
    check_weights(prior, num_components)
    return NormalWishartMixture(loc, jnp.asarray(prior_count, dtype), matrix, jnp.asarray(degrees, dtype), prior)
