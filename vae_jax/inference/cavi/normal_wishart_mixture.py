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
from jax.scipy.special import digamma, gammaln, multigammaln
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vae_jax.inference.cavi.conjugate_mixture import (
    ConjugateMixture,
    check_num_components,
    check_place,
    prior_weights,
)
from vae_jax.inference.cavi.coordinate_ascent import is_traced
from vae_jax.inference.cavi.mixture_data import Points
from vae_jax.inference.cavi.mixture_weights import MixtureWeights
from vae_jax.inference.cavi.optimal_assignment import product
from vae_jax.typing import Scalar


class NormalWishartFactors(NamedTuple):
    """Factors of the mixture's parameters. The labels' factor is optimal given these, see `responsibilities`."""

    loc: Float[Array | np.ndarray, "K D"]
    """m_k."""
    loc_count: Float[Array, " K"]
    """b_k."""
    inverse_scale: Float[Array | np.ndarray, "K D D"]
    """The inverse of W_k. Fitted ones are in double precision, as those of nearly dependent columns are all but
    singular."""
    degrees: Float[Array, " K"]
    """v_k."""
    weights: Float[Array, " K"] | None
    """The concentration of q(pi), where pi is not given."""


class NormalWishartHyperparameters(NamedTuple):
    """The priors of the mixture."""

    prior_loc: Float[np.ndarray, " D"]
    """m_0, in double precision."""
    prior_count: Scalar
    """b_0."""
    inverse_scale: Float[np.ndarray, "D D"]
    """The inverse of W_0, in double precision."""
    degrees: Scalar
    """v_0, more than D - 1."""
    weights: MixtureWeights


class NormalWishartMixture(NormalWishartHyperparameters, ConjugateMixture):
    """Gaussian mixture whose components have their own covariances. Build it with `normal_wishart_mixture`.

    Example:
        New points in the middle of a cluster have a higher density than points between the clusters:

        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import normal_wishart_mixture, points
        >>> data = points([[0.0, 0.0], [3.0, 2.0], [29.0, 0.0], [32.0, 2.0]])
        >>> model = normal_wishart_mixture(data, 2, inverse_scale=jnp.eye(2), prior_count=0.01)
        >>> state = model.update(jnp.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]), data)
        >>> middle, between = model.predictive_log_density(state, jnp.array([[1.5, 1.0], [16.0, 1.0]]))
        >>> bool(middle > between)
        True
    """

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

    def responsibilities(self, state: NormalWishartFactors, data: Points) -> Float[Array, "K N"]:
        """q(Z_n = k), optimal given the other factors; in whitened coordinates, unless it is traced."""
        if is_traced((self, state, data)):
            return super().responsibilities(state, data)
        model, white = self.in_whitened_units(data)
        return _responsibilities(model, _transformed(state, white), white)

    def elbo(self, state: NormalWishartFactors, responsibilities: Float[Array, "K N"], data: Points) -> Scalar:
        """The exact bound (nats) of any factors, optimal or not; in whitened coordinates, unless it is traced."""
        if is_traced((self, state, responsibilities, data)):
            return super().elbo(state, responsibilities, data)
        model, white = self.in_whitened_units(data)
        return _elbo(model, _transformed(state, white), responsibilities, white)

    def in_whitened_units(self, data: Points) -> tuple["NormalWishartMixture", Points]:
        """The same mixture of the same points, in coordinates in which the points have a covariance of one.

        Bounds stay the same: the points carry the logarithm of the Jacobian.
        """
        white = data.whitened()
        factors = white.transformed(self.prior_loc, self.inverse_scale)
        return self._replace(prior_loc=factors[0], inverse_scale=factors[1]), white

    def in_original_units(self, state: NormalWishartFactors, white: Points) -> NormalWishartFactors:
        """Factors of the whitened mixture as those of the original one, in double precision."""
        assert white.origin is not None
        axes, loc = np.asarray(white.axes), np.asarray(state.loc, np.float64)
        inverse_scale = axes @ np.asarray(state.inverse_scale, np.float64) @ axes.T
        return state._replace(loc=white.origin + loc @ axes.T, inverse_scale=inverse_scale)

    def component_sizes(self, state: NormalWishartFactors) -> Float[Array, " K"]:
        return state.loc_count - self.prior_count

    def _seeding_points(self, data: Points) -> Float[Array, "F N"]:
        # In units of the data's standard deviations.
        centred = data.features[: data.centre.shape[0]]
        if data.axes is not None:
            centred = product(jnp.asarray(data.axes, centred.dtype), centred)
        spread = jnp.sqrt((centred**2).mean(1))[:, None]
        return centred / jnp.where(spread > 0, spread, 1)

    def _growing_with_size(self, state: NormalWishartFactors) -> Float[Array, " K"]:
        return state.loc_count

    def _optimum(self, sums: Float[Array, "K F"], data: Points) -> NormalWishartFactors:
        num_dimensions, sizes = data.centre.shape[0], sums[:, -1]
        squares = sums[:, num_dimensions:-1].reshape(-1, num_dimensions, num_dimensions)
        count = self.prior_count + sizes
        prior_loc = self.prior_loc - data.centre
        loc = (self.prior_count * prior_loc[None] + sums[:, :num_dimensions]) / count[:, None]
        prior_square = self.inverse_scale + self.prior_count * _outer(prior_loc[None])[0]
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

    def _constant(self, data: Points) -> Scalar | float:
        return data.log_jacobian

    def _divergence(self, state: NormalWishartFactors) -> Scalar:
        # Of the Wishart, of mu given L, and of pi.
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


def _transformed(state: NormalWishartFactors, white: Points) -> NormalWishartFactors:
    """Factors in whitened coordinates."""
    pairs = [white.transformed(*pair) for pair in zip(state.loc, state.inverse_scale, strict=True)]
    loc, inverse_scale = (jnp.asarray(np.stack(each), white.features.dtype) for each in zip(*pairs, strict=True))
    return state._replace(loc=loc, inverse_scale=inverse_scale)


@jax.jit
def _responsibilities(model: NormalWishartMixture, state: NormalWishartFactors, white: Points) -> Float[Array, "K N"]:
    return model.responsibilities(state, white)


@jax.jit
def _elbo(
    model: NormalWishartMixture, state: NormalWishartFactors, shares: Float[Array, "K N"], white: Points
) -> Scalar:
    return model.elbo(state, shares, white)


def _covariance(data: Points) -> Float[np.ndarray, "D D"]:
    """The covariance of the points, in double precision."""
    centred = np.asarray(data.features[: data.centre.shape[0]].T if data.centred is None else data.centred, np.float64)
    return centred.T @ centred / len(centred)


def _is_positive_definite(matrix: Float[np.ndarray, "D D"]) -> bool:
    """Whether all eigenvalues are positive beyond rounding, in units in which the diagonal is one."""
    diagonal = np.diagonal(matrix)
    if not (np.isfinite(matrix).all() and (diagonal > 0).all()):
        return False
    unit = 1 / np.sqrt(diagonal)
    return bool(np.linalg.eigvalsh(matrix * np.outer(unit, unit))[0] > len(matrix) * np.finfo(np.float64).eps)


def _outer(rows: Float[Array | np.ndarray, "K D"]) -> Any:
    return rows[:, :, None] * rows[:, None]


def _expected_log_det(state: NormalWishartFactors) -> Float[Array, " K"]:
    """E[log |L_k|]."""
    num_dimensions = state.loc.shape[1]
    halves = (state.degrees[:, None] - jnp.arange(num_dimensions)[None]) / 2
    log_det = -jnp.linalg.slogdet(state.inverse_scale)[1]
    return digamma(halves).sum(1) + num_dimensions * math.log(2) + log_det


def _log_wishart_normalizer(
    inverse_scale: Float[Array | np.ndarray, "*K D D"], degrees: Float[Array, "*K"]
) -> Float[Array, "*K"]:
    """log B(W, v): what the Wishart's density has as its factor."""
    num_dimensions = inverse_scale.shape[-1]
    log_det = jnp.linalg.slogdet(jnp.asarray(inverse_scale))[1]
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
    """Builds a Gaussian mixture whose components have their own covariances, with a prior on the data's own scale.

    Args:
        data: from `points`.
        num_components: K, at most the number of points.
        prior_loc: m_0 [D], by default the positions' mean.
        prior_count: b_0: how many points the prior of a place is worth.
        inverse_scale: the inverse of W_0 [D, D], positive definite. By default the data's covariance.
        degrees: v_0, more than D - 1, by default D.
        weights: by default Dirichlet(1, ..., 1), under which all weights are as likely.

    Returns:
        The mixture, for `ascend`.

    Raises:
        ValueError: the number of components is not in 1..N, a hyperparameter is out of range or has the wrong shape, or
            the data's covariance is singular and no inverse_scale is given.

    Example:
        Each factor's place is the mean of its points and of one more at the data's mean (6, 1):

        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import normal_wishart_mixture, points
        >>> data = points([[0.0, 0.0], [3.0, 2.0], [9.0, 0.0], [12.0, 2.0]])
        >>> model = normal_wishart_mixture(data, 2, prior_count=1.0)
        >>> state = model.update(jnp.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]), data)
        >>> state.loc.round(3).tolist()
        [[3.0, 1.0], [9.0, 1.0]]
    """
    num_dimensions, num_points = data.centre.shape[0], data.features.shape[1]
    dtype = data.features.dtype
    check_num_components(num_components, num_points, "points")
    if not 0 < prior_count < math.inf:
        raise ValueError(f"prior_count must be positive and finite, got {prior_count}: change it")
    degrees = float(num_dimensions) if degrees is None else degrees
    if not num_dimensions - 1 < degrees < math.inf:
        raise ValueError(f"degrees must be more than {num_dimensions - 1} and finite, got {degrees}: raise it")
    loc = np.asarray(data.centre if prior_loc is None else prior_loc, np.float64)
    check_place(loc, num_dimensions)
    matrix = _covariance(data) if inverse_scale is None else np.asarray(inverse_scale, np.float64)
    if matrix.shape != (num_dimensions, num_dimensions) or not _is_positive_definite(matrix):
        raise ValueError(
            f"inverse_scale must be a positive definite {num_dimensions} by {num_dimensions} matrix, got "
            f"{np.asarray(matrix).tolist()}: by default it is the data's covariance"
        )
    prior = prior_weights(weights, num_components, dtype)
    return NormalWishartMixture(loc, jnp.asarray(prior_count, dtype), matrix, jnp.asarray(degrees, dtype), prior)
