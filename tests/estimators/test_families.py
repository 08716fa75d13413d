"""Every family of NumPyro's distributions under every estimator that admits it, against exact answers.

Two latents share their parameters, and the objective has a parameter of its own. The exact expectations are closed
forms, sums over outcomes or quadrature in float64, by SciPy's densities.
"""

import importlib.util
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms
from scipy import integrate, linalg, special, stats

from gradient_moments import gradient_moments
from monte_carlo import assert_unbiased
from vae_jax import distributions
from vae_jax.estimators import ESTIMATORS

NUM_REPLICATES = 20_000
MODEL = 1.3
CENTRE = np.array([0.7, -0.3, 0.5, 0.1])
PRECISION = linalg.toeplitz(0.4 ** np.arange(4.0))
"""The objective's centre and precision, for latents of at most four numbers."""


def bump(z):
    """exp(-d' P d / 2), where d is the distance of the numbers of z from the centre."""
    distance = jnp.ravel(z) - CENTRE[: jnp.size(z)].astype(np.float32)
    return jnp.exp(-0.5 * distance @ PRECISION[: jnp.size(z), : jnp.size(z)].astype(np.float32) @ distance)


def bump_at(points):
    """The same in float64 at points [..., n]."""
    size = points.shape[-1]
    distances = points - CENTRE[:size]
    return np.exp(-0.5 * np.einsum("...i,ij,...j", distances, PRECISION[:size, :size], distances))


def by_quadrature(pdf, low, high, points=None):
    low, high = max(low, -12.0), min(high, 14.0)
    return integrate.quad(
        lambda z: pdf(z) * np.exp(-0.5 * (z - CENTRE[0]) ** 2), low, high, limit=400, epsabs=1e-11, points=points
    )[0]


def density(frozen: Any):
    """Mean under a SciPy distribution."""
    return by_quadrature(frozen.pdf, *frozen.support())


def truncated(frozen, low, high, points=None):
    mass = frozen.cdf(high) - frozen.cdf(low)
    return by_quadrature(lambda z: frozen.pdf(z) / mass, low, high, points)


def over(outcomes, probs):
    """Mean as a sum over outcomes, numbers or vectors."""
    outcomes = np.asarray(outcomes, float)
    return float(np.asarray(probs) @ bump_at(outcomes.reshape(len(outcomes), -1)))


MOST = 60
"""Counts beyond have no mass to speak of."""


def counts(frozen: Any):
    """Mean under a SciPy distribution of counts."""
    return over(np.arange(MOST), frozen.pmf(np.arange(MOST)))


def gaussian(loc, covariance):
    """Mean under a multivariate normal, in closed form."""
    size = len(loc)
    precision, distance = PRECISION[:size, :size], np.asarray(loc, float) - CENTRE[:size]
    spread = np.linalg.inv(precision) + covariance
    exponent = -0.5 * distance @ np.linalg.solve(spread, distance)
    return np.exp(exponent) / np.sqrt(np.linalg.det(np.eye(size) + covariance @ precision))


def sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def logit(prob):
    return np.log(prob) - np.log1p(-prob)


def student(df, loc, scale_tril):
    """A normal whose precision is a Gamma times that of the scale."""
    covariance = scale_tril @ scale_tril.T
    mixing: Any = stats.gamma(df / 2, scale=2 / df)
    # In the mixing variable's square root its density is smooth at zero.
    return integrate.quad(
        lambda root: 2 * root * mixing.pdf(root**2) * gaussian(loc, covariance / root**2), 0, 4, epsabs=1e-11
    )[0]


def dirichlet(a, b, c):
    """Quadrature over two breaks of a stick, exact for polynomials under the Beta of either break."""

    def beta_points(one, zero):
        points, weights = special.roots_jacobi(40, zero - 1, one - 1)
        return (1 + points) / 2, weights / weights.sum()

    (first, first_weights), (second, second_weights) = beta_points(a, b + c), beta_points(b, c)
    first, second = np.meshgrid(first, second, indexing="ij")
    points = np.stack([first, (1 - first) * second, (1 - first) * (1 - second)], axis=-1)
    return float(first_weights @ bump_at(points) @ second_weights)


def stick_breaking_normal(a, b, c):
    noise, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    first, second = np.meshgrid(a + c * noise, b + c * noise, indexing="ij")
    first, second = sigmoid(first - np.log(2)), sigmoid(second)
    points = np.stack([first, (1 - first) * second, (1 - first) * (1 - second)], axis=-1)
    return float(weights @ bump_at(points) @ weights)


def compositions(total, size):
    """All vectors of `size` counts that sum to `total`."""
    grid = np.stack(np.meshgrid(*[np.arange(total + 1)] * size, indexing="ij"), axis=-1).reshape(-1, size)
    return grid[grid.sum(axis=1) == total]


def multinomial(total, probs):
    outcomes = compositions(total, len(probs))
    return over(outcomes, stats.multinomial(total, probs).pmf(outcomes))


def dirichlet_multinomial(total, *concentration):
    outcomes, concentration = compositions(total, len(concentration)), np.array(concentration)
    return over(outcomes, stats.dirichlet_multinomial(concentration, total).pmf(outcomes))


def kumaraswamy(a, b):
    return by_quadrature(lambda z: a * b * z ** (a - 1) * (1 - z**a) ** (b - 1), 0, 1)


def mixture(weight, *components):
    """The mean under a mixture from those under its two components."""
    return weight * density(components[0]) + (1 - weight) * density(components[1])


def zero_inflated(gate, frozen):
    return gate * float(bump_at(np.zeros(1))) + (1 - gate) * counts(frozen)


def joint_of_two(prob_of_first, prob_of_second):
    """A vector of two independent variables, from the probabilities of the outcomes of either."""
    outcomes = [(i, j) for i in range(len(prob_of_first)) for j in range(len(prob_of_second))]
    return over(outcomes, np.outer(prob_of_first, prob_of_second).ravel())


def lower(*entries):
    """A lower triangle of two rows."""
    (a, b, c) = entries
    return jnp.stack([jnp.stack([a, jnp.zeros_like(a)]), jnp.stack([b, c])])


def symmetric(a, b, c):
    return jnp.stack([jnp.stack([a, b]), jnp.stack([b, c])])


def vector(*numbers):
    return jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers])


def softmax(*logits):
    return special.softmax(np.array(logits))


TRIL = (1.1, 0.5, 0.8)


def tril(a, b, c):
    return np.array([[a, 0.0], [b, c]])


CONTINUOUS = {
    "Normal": (dist.Normal, lambda a, b: density(stats.norm(a, b)), (0.3, 1.2)),
    "LogNormal": (dist.LogNormal, lambda a, b: density(stats.lognorm(b, scale=np.exp(a))), (0.1, 0.6)),
    "Laplace": (dist.Laplace, lambda a, b: density(stats.laplace(a, b)), (0.3, 0.8)),
    "AsymmetricLaplace": (
        dist.AsymmetricLaplace, lambda a, b, c: density(stats.laplace_asymmetric(c, a, b)), (0.3, 0.8, 1.3)
    ),
    "SoftLaplace": (dist.SoftLaplace, lambda a, b: density(stats.hypsecant(a, b)), (0.3, 0.8)),
    "Logistic": (dist.Logistic, lambda a, b: density(stats.logistic(a, b)), (0.3, 0.8)),
    "Gumbel": (dist.Gumbel, lambda a, b: density(stats.gumbel_r(a, b)), (0.3, 0.8)),
    "Cauchy": (dist.Cauchy, lambda a, b: density(stats.cauchy(a, b)), (0.3, 0.8)),
    "StudentT": (dist.StudentT, lambda a, b, c: density(stats.t(a, b, c)), (5.0, 0.3, 0.8)),
    "HalfNormal": (dist.HalfNormal, lambda a: density(stats.halfnorm(scale=a)), (1.1,)),
    "HalfCauchy": (dist.HalfCauchy, lambda a: density(stats.halfcauchy(scale=a)), (0.9,)),
    "Exponential": (dist.Exponential, lambda a: density(stats.expon(scale=1 / a)), (1.4,)),
    "Gamma": (dist.Gamma, lambda a, b: density(stats.gamma(a, scale=1 / b)), (1.7, 1.3)),
    "Gamma of a small concentration": (dist.Gamma, lambda a, b: density(stats.gamma(a, scale=1 / b)), (0.6, 0.8)),
    "Gamma by its rate": (partial(dist.Gamma, 1.7), lambda a: density(stats.gamma(1.7, scale=1 / a)), (1.3,)),
    "InverseGamma": (dist.InverseGamma, lambda a, b: density(stats.invgamma(a, scale=b)), (2.5, 1.5)),
    "Chi2": (dist.Chi2, lambda a: density(stats.chi2(a)), (2.6,)),
    "Beta": (dist.Beta, lambda a, b: density(stats.beta(a, b)), (1.5, 2.5)),
    "BetaProportion": (
        dist.BetaProportion, lambda a, b: density(stats.beta(a * b, (1 - a) * b)), (0.4, 2.5)
    ),
    "Kumaraswamy": (dist.Kumaraswamy, kumaraswamy, (1.6, 2.2)),
    "Weibull": (dist.Weibull, lambda a, b: density(stats.weibull_min(b, scale=a)), (1.1, 1.8)),
    "Gompertz": (dist.Gompertz, lambda a, b: density(stats.gompertz(a, scale=1 / b)), (0.8, 1.2)),
    "Pareto": (partial(dist.Pareto, 0.5), lambda a: density(stats.pareto(a, scale=0.5)), (3.5,)),
    "TruncatedNormal": (
        lambda a, b: dist.TruncatedNormal(a, b, low=0.0),
        lambda a, b: density(stats.truncnorm(-a / b, np.inf, loc=a, scale=b)), (0.3, 1.2),
    ),
    "PositiveNormal": (
        distributions.PositiveNormal,
        lambda a, b: density(stats.truncnorm(-a / b, np.inf, loc=a, scale=b)), (0.3, 1.2),
    ),
    "LeftTruncated Laplace": (
        lambda a, b: dist.LeftTruncatedDistribution(dist.Laplace(a, b), low=-0.4),
        lambda a, b: truncated(stats.laplace(a, b), -0.4, np.inf, [a]), (0.3, 0.8),
    ),
    "LeftTruncated far above": (
        lambda a, b: dist.LeftTruncatedDistribution(dist.Logistic(a, b), low=0.9),
        lambda a, b: truncated(stats.logistic(a, b), 0.9, np.inf), (0.3, 0.8),
    ),
    "RightTruncated SoftLaplace": (
        lambda a, b: dist.RightTruncatedDistribution(dist.SoftLaplace(a, b), high=1.1),
        lambda a, b: truncated(stats.hypsecant(a, b), -np.inf, 1.1), (0.3, 0.8),
    ),
    "TwoSidedTruncated Normal": (
        lambda a, b: dist.TruncatedNormal(a, b, low=-0.5, high=1.4),
        lambda a, b: truncated(stats.norm(a, b), -0.5, 1.4), (0.3, 1.2),
    ),
    "TwoSidedTruncated Cauchy": (
        lambda a, b: dist.TruncatedCauchy(a, b, low=-0.5, high=2.4),
        lambda a, b: truncated(stats.cauchy(a, b), -0.5, 2.4), (0.3, 0.8),
    ),
    "TwoSidedTruncated Gamma": (
        lambda a, b: dist.TruncatedGamma(a, b, low=0.4, high=1.9),
        lambda a, b: truncated(stats.gamma(a, scale=1 / b), 0.4, 1.9), (1.7, 1.3),
    ),
    "VonMises": (dist.VonMises, lambda a, b: density(stats.vonmises(b, loc=a)), (0.3, 1.4)),
    "Levy": (dist.Levy, lambda a, b: density(stats.levy(a, b)), (0.1, 0.5)),
    "PowerLaw": (
        lambda a: dist.DoublyTruncatedPowerLaw(a, 0.5, 2.5),
        lambda a: by_quadrature(lambda z: (a + 1) * z**a / (2.5 ** (a + 1) - 0.5 ** (a + 1)), 0.5, 2.5), (1.7,),
    ),
}  # fmt: skip
"""Scalars: constructor, mean of the bump as a function of the parameters, and parameters."""

MOVING = {
    "Uniform": (dist.Uniform, lambda a, b: density(stats.uniform(a, b - a)), (-0.3, 1.9)),
    "LeftTruncated by a parameter": (
        lambda a, b: dist.LeftTruncatedDistribution(dist.Logistic(a, 0.8), low=b),
        lambda a, b: truncated(stats.logistic(a, 0.8), b, np.inf), (0.3, -0.4),
    ),
    "RightTruncated by a parameter": (
        lambda a, b: dist.RightTruncatedDistribution(dist.Normal(a, 0.8), high=b),
        lambda a, b: truncated(stats.norm(a, 0.8), -np.inf, b), (0.3, 1.2),
    ),
    "TwoSidedTruncated by parameters": (
        lambda a, b: dist.TruncatedNormal(0.3, 0.8, low=a, high=b),
        lambda a, b: truncated(stats.norm(0.3, 0.8), a, b), (-0.4, 1.5),
    ),
    "LogUniform": (dist.LogUniform, lambda a, b: density(stats.loguniform(a, b)), (0.4, 2.5)),
    "Mixture of a Uniform": (
        lambda a: dist.MixtureGeneral(
            dist.CategoricalProbs(vector(0.4, 0.6)), [dist.Uniform(-0.3, a), dist.Normal(0.2, 1.0)],
            support=dist.constraints.real,
        ),
        lambda a: mixture(0.4, stats.uniform(-0.3, a + 0.3), stats.norm(0.2, 1.0)), (1.9,),
    ),
}  # fmt: skip
"""Families whose support moves with a parameter: no score."""

MIXTURES = {
    "MixtureSameFamily by probabilities": (
        lambda a, b, c, d, e: dist.MixtureSameFamily(
            dist.CategoricalProbs(vector(a, 1 - a)), dist.Normal(vector(b, c), vector(d, e))
        ),
        lambda a, b, c, d, e: mixture(a, stats.norm(b, d), stats.norm(c, e)), (0.3, -0.4, 1.1, 0.6, 0.9),
    ),
    "MixtureSameFamily by logits": (
        lambda a, b, c, d, e: dist.MixtureSameFamily(
            dist.CategoricalLogits(vector(a, 0.2)), dist.Normal(vector(b, c), vector(d, e))
        ),
        lambda a, b, c, d, e: mixture(sigmoid(a - 0.2), stats.norm(b, d), stats.norm(c, e)),
        (-0.6, -0.4, 1.1, 0.6, 0.9),
    ),
    "MixtureGeneral": (
        lambda a, b, c, d, e: dist.MixtureGeneral(
            dist.CategoricalLogits(vector(a, 0.2)), [dist.Normal(b, d), dist.Normal(c, e)]
        ),
        lambda a, b, c, d, e: mixture(sigmoid(a - 0.2), stats.norm(b, d), stats.norm(c, e)),
        (-0.6, -0.4, 1.1, 0.6, 0.9),
    ),
    "Mixture of vectors": (
        lambda a, b, *of_tril: dist.MixtureSameFamily(
            dist.CategoricalProbs(vector(a, 1 - a)),
            dist.MultivariateNormal(jnp.stack([vector(b, 0.2), vector(0.9, b)]), scale_tril=lower(*of_tril)),
        ),
        lambda a, b, *of_tril: (
            a * gaussian([b, 0.2], tril(*of_tril) @ tril(*of_tril).T)
            + (1 - a) * gaussian([0.9, b], tril(*of_tril) @ tril(*of_tril).T)
        ),
        (0.3, -0.4, *TRIL),
    ),
}  # fmt: skip

VECTORS = {
    "independent normals of one scale": (
        lambda a, b, c: dist.Normal(vector(a, b), c).to_event(1),
        lambda a, b, c: gaussian([a, b], c**2 * np.eye(2)), (0.3, -0.5, 0.9),
    ),
    "MultivariateNormal by scale_tril": (
        lambda a, b, *of_tril: dist.MultivariateNormal(vector(a, b), scale_tril=lower(*of_tril)),
        lambda a, b, *of_tril: gaussian([a, b], tril(*of_tril) @ tril(*of_tril).T), (0.3, -0.5, *TRIL),
    ),
    "MultivariateNormal by covariance": (
        lambda a, b, *entries: dist.MultivariateNormal(vector(a, b), covariance_matrix=symmetric(*entries)),
        lambda a, b, c, d, e: gaussian([a, b], np.array([[c, d], [d, e]])), (0.3, -0.5, 1.2, 0.4, 0.8),
    ),
    "MultivariateNormal by precision": (
        lambda a, b, *entries: dist.MultivariateNormal(vector(a, b), precision_matrix=symmetric(*entries)),
        lambda a, b, c, d, e: gaussian([a, b], np.linalg.inv(np.array([[c, d], [d, e]]))),
        (0.3, -0.5, 1.2, 0.4, 0.8),
    ),
    "LowRankMultivariateNormal": (
        lambda a, b, c, d, e: dist.LowRankMultivariateNormal(vector(a, 0.2), vector(b, c)[:, None], vector(d, e)),
        lambda a, b, c, d, e: gaussian([a, 0.2], np.outer([b, c], [b, c]) + np.diag([d, e])),
        (0.3, 0.7, -0.5, 0.6, 0.8),
    ),
    "MultivariateStudentT": (
        lambda a, b, *of_tril: dist.MultivariateStudentT(a, vector(b, 0.2), lower(*of_tril)),
        lambda a, b, *of_tril: student(a, [b, 0.2], tril(*of_tril)), (5.0, 0.3, *TRIL),
    ),
    "MatrixNormal": (
        lambda a, b, c, d: dist.MatrixNormal(
            jnp.stack([vector(a, 0.2), vector(-0.3, 0.4)]), lower(b, c, jnp.float32(0.8)),
            lower(d, jnp.float32(0.4), jnp.float32(0.7)),
        ),
        lambda a, b, c, d: gaussian(
            [a, 0.2, -0.3, 0.4],
            np.kron(tril(b, c, 0.8) @ tril(b, c, 0.8).T, tril(d, 0.4, 0.7) @ tril(d, 0.4, 0.7).T),
        ),
        (0.3, 0.9, 0.5, 1.1),
    ),
    "GaussianRandomWalk": (
        lambda a: dist.GaussianRandomWalk(a, num_steps=3),
        lambda a: gaussian(np.zeros(3), a**2 * np.minimum.outer(np.arange(1, 4), np.arange(1, 4))), (0.7,),
    ),
    "ZeroSumNormal": (
        lambda a: dist.ZeroSumNormal(a, (3,)),
        lambda a: gaussian(np.zeros(3), a**2 * (np.eye(3) - 1 / 3)), (0.9,),
    ),
    "CirculantNormal": (
        lambda a, b, c: dist.CirculantNormal(vector(a, 0.2, -0.4), covariance_row=vector(b, c, c)),
        lambda a, b, c: gaussian([a, 0.2, -0.4], linalg.circulant([b, c, c])), (0.3, 0.9, 0.3),
    ),
    "Dirichlet": (lambda *params: dist.Dirichlet(vector(*params)), dirichlet, (1.5, 0.8, 2.2)),
    "stick-breaking normal": (
        lambda a, b, c: dist.TransformedDistribution(
            dist.Normal(vector(a, b), c).to_event(1), transforms.StickBreakingTransform()
        ),
        stick_breaking_normal, (0.3, -0.5, 0.9),
    ),
}  # fmt: skip

COUNTS = {
    "BinomialProbs": (lambda a: dist.Binomial(5, probs=a), lambda a: counts(stats.binom(5, a)), (0.3,)),
    "BinomialLogits": (lambda a: dist.Binomial(5, logits=a), lambda a: counts(stats.binom(5, sigmoid(a))), (-0.4,)),
    "Poisson": (dist.Poisson, lambda a: counts(stats.poisson(a)), (1.3,)),
    "GeometricProbs": (dist.GeometricProbs, lambda a: counts(stats.geom(a, loc=-1)), (0.4,)),
    "GeometricLogits": (dist.GeometricLogits, lambda a: counts(stats.geom(sigmoid(a), loc=-1)), (-0.3,)),
    "NegativeBinomialProbs": (
        lambda a: dist.NegativeBinomialProbs(3.0, a), lambda a: counts(stats.nbinom(3, 1 - a)), (0.3,)
    ),
    "NegativeBinomialLogits": (
        lambda a: dist.NegativeBinomialLogits(3.0, a), lambda a: counts(stats.nbinom(3, 1 - sigmoid(a))), (-0.8,)
    ),
    "NegativeBinomial2": (
        dist.NegativeBinomial2, lambda a, b: counts(stats.nbinom(b, b / (a + b))), (1.4, 3.0)
    ),
    "GammaPoisson": (dist.GammaPoisson, lambda a, b: counts(stats.nbinom(a, b / (b + 1))), (2.0, 1.5)),
    "BetaBinomial": (
        lambda a, b: dist.BetaBinomial(a, b, total_count=4),
        lambda a, b: over(np.arange(5), stats.betabinom.pmf(np.arange(5), 4, a, b)), (1.5, 2.0),
    ),
    "ZeroInflatedPoisson": (
        dist.ZeroInflatedPoisson, lambda a, b: zero_inflated(a, stats.poisson(b)), (0.3, 1.3)
    ),
    "ZeroInflated by logits": (
        lambda a, b: dist.ZeroInflatedDistribution(dist.Binomial(5, probs=b), gate_logits=a),
        lambda a, b: zero_inflated(sigmoid(a), stats.binom(5, b)), (-0.6, 0.4),
    ),
    "ZeroInflatedNegativeBinomial2": (
        lambda a, b, c: dist.ZeroInflatedNegativeBinomial2(a, b, gate=c),
        lambda a, b, c: zero_inflated(c, stats.nbinom(b, b / (a + b))), (1.4, 3.0, 0.3),
    ),
    "MultinomialProbs": (
        lambda a, b: dist.MultinomialProbs(vector(a, b, 1 - a - b), 3),
        lambda a, b: multinomial(3, [a, b, 1 - a - b]), (0.3, 0.5),
    ),
    "MultinomialLogits": (
        lambda *logits: dist.MultinomialLogits(vector(*logits), 3),
        lambda *logits: multinomial(3, softmax(*logits)), (0.3, -0.5, 0.1),
    ),
    "MultinomialLogits of one": (
        lambda *logits: dist.MultinomialLogits(vector(*logits), 1),
        lambda *logits: multinomial(1, softmax(*logits)), (0.3, -0.5, 0.1),
    ),
    "DirichletMultinomial": (
        lambda *params: dist.DirichletMultinomial(vector(*params), 3),
        partial(dirichlet_multinomial, 3), (1.5, 0.8, 2.2),
    ),
}  # fmt: skip
"""Discrete families that the library has no list of outcomes of."""

ENUMERABLE = {
    "BernoulliProbs": (dist.BernoulliProbs, lambda a: counts(stats.bernoulli(a)), (0.3,)),
    "BernoulliLogits": (dist.BernoulliLogits, lambda a: counts(stats.bernoulli(sigmoid(a))), (0.4,)),
    "Bernoulli vector by probabilities": (
        lambda a, b: dist.BernoulliProbs(vector(a, b)).to_event(1),
        lambda a, b: joint_of_two([1 - a, a], [1 - b, b]), (0.3, 0.8),
    ),
    "Bernoulli vector by logits": (
        lambda a, b: dist.BernoulliLogits(vector(a, b)).to_event(1),
        lambda a, b: joint_of_two([1 - sigmoid(a), sigmoid(a)], [1 - sigmoid(b), sigmoid(b)]), (0.4, -0.9),
    ),
    "CategoricalProbs": (
        lambda a, b: dist.CategoricalProbs(vector(a, b, 1 - a - b)),
        lambda a, b: over(np.arange(3), [a, b, 1 - a - b]), (0.3, 0.5),
    ),
    "CategoricalLogits": (
        lambda *logits: dist.CategoricalLogits(vector(*logits)),
        lambda *logits: over(np.arange(3), softmax(*logits)), (0.3, -0.5, 0.1),
    ),
    "Categorical vector": (
        lambda a, b, c: dist.CategoricalLogits(jnp.stack([vector(a, b, 0.2), vector(b, c, 0.2)])).to_event(1),
        lambda a, b, c: joint_of_two(softmax(a, b, 0.2), softmax(b, c, 0.2)), (0.3, -0.5, 0.1),
    ),
    "OrderedLogistic": (
        lambda a, b, c: dist.OrderedLogistic(a, vector(b, c)),
        lambda a, b, c: over(
            np.arange(3), np.diff([0.0, sigmoid(b - a), sigmoid(c - a), 1.0])
        ),
        (0.4, -0.5, 1.2),
    ),
    "OneHotCategorical": (
        lambda *logits: distributions.OneHotCategorical(vector(*logits)),
        lambda *logits: over(np.eye(3), softmax(*logits)), (0.3, -0.5, 0.1),
    ),
    "OneHotCategorical of log probabilities": (
        lambda a, b: distributions.OneHotCategorical(jnp.log(vector(a, b, 1 - a - b))),
        lambda a, b: over(np.eye(3), [a, b, 1 - a - b]), (0.3, 0.5),
    ),
    "OneHotCategorical vector": (
        lambda a, b: distributions.OneHotCategorical(jnp.stack([vector(a, b), vector(b, 0.2)])).to_event(1),
        lambda a, b: over(
            [(*first, *second) for first in np.eye(2) for second in np.eye(2)],
            np.outer(softmax(a, b), softmax(b, 0.2)).ravel(),
        ),
        (0.6, -0.5),
    ),
}  # fmt: skip
FAMILIES = CONTINUOUS | MOVING | MIXTURES | VECTORS | COUNTS | ENUMERABLE

SHARED = {
    "Normal and Gamma": (
        lambda a, b: (dist.Normal(a, b), dist.Gamma(1.7, b)),
        lambda a, b: (density(stats.norm(a, b)), density(stats.gamma(1.7, scale=1 / b))),
        (0.3, 1.2), ("Normal", "Gamma by its rate"),
    ),
    "MultivariateNormal and Normal": (
        lambda a, *of_tril: (
            dist.MultivariateNormal(vector(a, 0.2), scale_tril=lower(*of_tril)), dist.Normal(a, of_tril[0])
        ),
        lambda a, *of_tril: (
            gaussian([a, 0.2], tril(*of_tril) @ tril(*of_tril).T), density(stats.norm(a, of_tril[0]))
        ),
        (0.3, *TRIL), ("MultivariateNormal by scale_tril", "Normal"),
    ),
    "Dirichlet and Beta": (
        lambda a, b, c: (dist.Dirichlet(vector(a, b, c)), dist.Beta(a, b)),
        lambda a, b, c: (dirichlet(a, b, c), density(stats.beta(a, b))), (1.5, 0.8, 2.2), ("Dirichlet", "Beta"),
    ),
    "Exponential and Poisson": (
        lambda a: (dist.Exponential(a), dist.Poisson(a)),
        lambda a: (density(stats.expon(scale=1 / a)), counts(stats.poisson(a))), (1.4,), ("Exponential", "Poisson"),
    ),
    "Normal and Bernoulli": (
        lambda a: (dist.Normal(a, 1.2), dist.BernoulliLogits(a)),
        lambda a: (density(stats.norm(a, 1.2)), counts(stats.bernoulli(sigmoid(a)))), (0.3,),
        ("Normal", "BernoulliLogits"),
    ),
    "Bernoulli by both": (
        lambda a: (dist.BernoulliProbs(a), dist.BernoulliLogits(a)),
        lambda a: (counts(stats.bernoulli(a)), counts(stats.bernoulli(sigmoid(a)))), (0.3,),
        ("BernoulliProbs", "BernoulliLogits"),
    ),
    "Bernoulli and OneHotCategorical": (
        lambda a, b: (dist.BernoulliLogits(a), distributions.OneHotCategorical(vector(a, b, 0.1))),
        lambda a, b: (counts(stats.bernoulli(sigmoid(a))), over(np.eye(3), softmax(a, b, 0.1))), (0.3, -0.5),
        ("BernoulliLogits", "OneHotCategorical"),
    ),
    "Categorical and OneHotCategorical": (
        lambda a, b: (
            dist.CategoricalProbs(vector(a, b, 1 - a - b)), distributions.OneHotCategorical(vector(a, b, 0.1))
        ),
        lambda a, b: (over(np.arange(3), [a, b, 1 - a - b]), over(np.eye(3), softmax(a, b, 0.1))), (0.3, 0.5),
        ("CategoricalProbs", "OneHotCategorical"),
    ),
}  # fmt: skip
"""Two leaves with parameters in common: the leaves, the means under each, parameters, and the families of the leaves.
"""

RELAXED_LOGITS = {
    "BernoulliProbs": lambda a: [[0, logit(a)]],
    "BernoulliLogits": lambda a: [[0, a]],
    "Bernoulli vector by probabilities": lambda a, b: [[0, logit(a)], [0, logit(b)]],
    "Bernoulli vector by logits": lambda a, b: [[0, a], [0, b]],
    "OneHotCategorical": lambda *logits: [logits],
    "OneHotCategorical of log probabilities": lambda a, b: [np.log([a, b, 1 - a - b])],
    "OneHotCategorical vector": lambda a, b: [[a, b], [b, 0.2]],
}
"""The logits of the outcomes of each variable, by the parameters."""

WITHOUT_PATHS = {"VonMises", "Levy", "Mixture of a Uniform", *MIXTURES, *COUNTS, *ENUMERABLE}
NUMERICAL_QUANTILES = {
    "StudentT", "Gamma", "Gamma of a small concentration", "Gamma by its rate", "InverseGamma", "Chi2", "Beta",
    "BetaProportion", "Kumaraswamy", "Weibull", "TwoSidedTruncated Gamma", "VonMises",
    "LowRankMultivariateNormal", "MultivariateStudentT", "MatrixNormal", "GaussianRandomWalk", "Dirichlet",
}  # fmt: skip
WITH_ENTROPY = {
    "Normal", "LogNormal", "Laplace", "Logistic", "Cauchy", "StudentT", "Exponential", "Gamma",
    "Gamma of a small concentration", "Gamma by its rate", "InverseGamma", "Chi2", "Beta", "BetaProportion", "Weibull",
    "Pareto", "Uniform", "LogUniform", "independent normals of one scale", "MultivariateNormal by scale_tril",
    "MultivariateNormal by covariance", "MultivariateNormal by precision", "LowRankMultivariateNormal",
    "CirculantNormal", "Dirichlet",
}  # fmt: skip
WITH_QUANTILES = {*CONTINUOUS, *MOVING, *VECTORS} - {"Mixture of a Uniform"} - NUMERICAL_QUANTILES
SYMMETRIC = {"StudentT", "MultivariateStudentT"}
GAUSSIAN = {"Normal", "independent normals of one scale"}
MEASURABLE = {"Exponential", "Gamma by its rate", "Poisson", *GAUSSIAN, *ENUMERABLE} - {"OrderedLogistic"}


def admitted(name):
    """The estimators that take a family."""
    if name in SHARED:
        first, second = (admitted(leaf) for leaf in SHARED[name][3])
        return first & second | {"rao_blackwellized"} & (first | second)
    has_paths, has_score, has_quantiles = name not in WITHOUT_PATHS, name not in MOVING, name in WITH_QUANTILES
    has_mirror, enumerable = has_quantiles or name in SYMMETRIC, name in ENUMERABLE
    relaxable = name in RELAXED_LOGITS
    needs = {
        "pathwise": has_paths,
        "sticking_the_landing": has_paths and has_score,
        "closed_form_entropy": name in WITH_ENTROPY,
        "inverse_cdf": has_quantiles,
        "score_function": has_score,
        "score_function+leave_one_out": has_score,
        "score_function+optimal_score": has_score,
        "score_function+delta_method": name in GAUSSIAN,
        "pathwise+delta_method": name in GAUSSIAN,
        "score_function+antithetic_pairs": has_mirror and has_score,
        "pathwise+antithetic_pairs": has_mirror and has_paths,
        "score_function+sobol": has_quantiles and has_score,
        "pathwise+sobol": has_quantiles and has_paths,
        "measure_valued": name in MEASURABLE,
        "coupled_measure_valued": name in MEASURABLE,
        "enumeration": enumerable,
        "rao_blackwellized": enumerable,
        "gumbel_softmax": relaxable,
        "straight_through": relaxable,
        "rebar": relaxable,
        "relax": relaxable,
        "arm": name.startswith("Bernoulli"),
        "disarm": name.startswith("Bernoulli"),
        "categorical_disarm": enumerable,
    }
    return {estimator for estimator in ESTIMATORS if needs[estimator]}


def leaves(name, params):
    """The two latents."""
    if name in SHARED:
        return SHARED[name][0](*params)
    family = FAMILIES[name][0]
    return family(*params), family(*params)


def exact_means(name, params):
    """The means of the bump under the two latents."""
    if name in SHARED:
        return SHARED[name][1](*params)
    mean = FAMILIES[name][1](*params)
    return mean, mean


def own_parameters(name):
    return np.array((SHARED | FAMILIES)[name][2])


@cache
def exact(name):
    """The expectation E[f] (1 + E[f]) and its slopes by the family's parameters."""

    def value(params):
        first, second = exact_means(name, params)
        return first * (1 + second)

    params = own_parameters(name)
    steps = 1e-4 * np.eye(len(params))
    slopes = [(value(params + step) - value(params - step)) / 2e-4 for step in steps]
    return value(params), np.array(slopes)


def cost(params, key, name, estimator, num_samples):
    *of_family, model = params
    first, second = leaves(name, of_family)

    def objective(z, _):
        return model * bump(z["first"]) * (1 + bump(z["second"]))

    return estimator(objective, {"first": first, "second": second}, key, num_samples)


def parameters(name):
    return [jnp.float32(x) for x in (*own_parameters(name), MODEL)]


def refusal(name, estimator, num_samples):
    """The error of an estimator that does not take the family, if there is one."""
    loss = jax.value_and_grad(partial(cost, name=name, estimator=ESTIMATORS[estimator], num_samples=num_samples))
    try:
        jax.eval_shape(loss, parameters(name), jax.random.key(0))
    except (TypeError, ValueError) as error:
        return error
    return None


def check(name, estimator, num_samples, expected):
    """Compares value and gradient with the expectation and its slopes."""
    loss = partial(cost, name=name, estimator=ESTIMATORS[estimator], num_samples=num_samples)
    value, gradient = gradient_moments(loss, parameters(name), jax.random.key(num_samples), NUM_REPLICATES)
    total, slopes = expected
    means, errors = (np.array(getattr(gradient, field)) for field in ("mean", "mean_se"))
    assert_unbiased(value.mean, np.maximum(value.mean_se, 1e-5), MODEL * total, resolution=0.3)
    assert_unbiased(means, np.maximum(errors, 1e-5), [*(MODEL * slopes), total], resolution=1.6)


TEMPERATURE = 0.5
"""The default of the estimators."""


def noise_grid(num_differences):
    """Points [..., D] and the volume of a cell, wide and fine enough for Gumbel differences in D dimensions."""
    step = 0.06
    axis = np.arange(-18, 18, step) + 0.3 * step
    return np.stack(np.meshgrid(*[axis] * num_differences, indexing="ij"), axis=-1), step**num_differences


def log_density_of_differences(noisy, logits):
    """Log density of z_k - z_0, k = 1 to K - 1, where z has Gumbel noise about K logits."""
    noise = noisy - (logits[1:] - logits[0])
    exponents = np.concatenate([np.zeros_like(noise[..., :1]), -noise], axis=-1)
    return special.gammaln(len(logits)) - noise.sum(-1) - len(logits) * special.logsumexp(exponents, axis=-1)


def relaxations(name):
    """Each variable's noisy differences and relaxed outcomes, over a grid of the noise of all, and a cell's volume."""
    sizes = [len(logits) - 1 for logits in RELAXED_LOGITS[name](*own_parameters(name))]
    grid, cell = noise_grid(sum(sizes))
    noisy = np.split(grid, np.cumsum(sizes)[:-1], axis=-1)
    relaxed = [
        special.softmax(np.concatenate([np.zeros_like(each[..., :1]), each], axis=-1) / TEMPERATURE, axis=-1)
        for each in noisy
    ]
    return noisy, relaxed, cell


def as_samples(name, outcomes):
    """Probabilities or one-hot outcomes of each variable as the family's samples."""
    return np.concatenate([each[..., 1:] if name.startswith("Bernoulli") else each for each in outcomes], axis=-1)


def densities(name, noisy, params):
    logits = RELAXED_LOGITS[name](*params)
    return np.exp(sum(log_density_of_differences(z, np.array(own)) for z, own in zip(noisy, logits, strict=True)))


@cache
def exact_of_relaxed(name):
    """As `exact`, of the objective at relaxed samples."""
    noisy, relaxed, cell = relaxations(name)
    bumps = bump_at(as_samples(name, relaxed))

    def value(params):
        mean = (densities(name, noisy, params) * bumps).sum() * cell
        return mean * (1 + mean)

    params = own_parameters(name)
    steps = 1e-4 * np.eye(len(params))
    return value(params), np.array([(value(params + step) - value(params - step)) / 2e-4 for step in steps])


@cache
def exact_of_straight_through(name):
    """As `exact`, with the slopes at hard samples along relaxed ones."""
    noisy, relaxed, cell = relaxations(name)
    params = own_parameters(name)
    hard = as_samples(name, [each == each.max(axis=-1, keepdims=True) for each in relaxed]).astype(float)
    distances = hard - CENTRE[: hard.shape[-1]]
    slopes_at_hard = -bump_at(hard)[..., None] * (distances @ PRECISION[: hard.shape[-1], : hard.shape[-1]])
    weights = densities(name, noisy, params) * cell

    def slope(step):
        forward, backward = (RELAXED_LOGITS[name](*(params + sign * step)) for sign in (1, -1))
        moves = []
        for probs, ahead, behind in zip(relaxed, forward, backward, strict=True):
            along = (np.array(ahead) - np.array(behind)) / 2e-4 / TEMPERATURE
            moves.append(probs * (along - (probs @ along)[..., None]))
        return (weights * (slopes_at_hard * as_samples(name, moves)).sum(-1)).sum()

    mean, _ = exact_means(name, params)
    return mean * (1 + mean), (1 + 2 * mean) * np.array([slope(step) for step in 1e-4 * np.eye(len(params))])


NAMES = [*FAMILIES, *SHARED]
BIASED = ("gumbel_softmax", "straight_through")
FEWEST = {"pathwise": 1, "score_function": 1, "score_function+leave_one_out": 2, "score_function+optimal_score": 2}


def samples_of(name, estimator):
    """Families take turns at the numbers of samples up to three."""
    fewest = FEWEST.get(estimator)
    return 2 if fewest is None else fewest + NAMES.index(name) % (4 - fewest)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "estimator"),
    [(name, each) for name in NAMES for each in ESTIMATORS if each in admitted(name) and each not in BIASED],
)
def test_every_family_is_unbiased(name, estimator):
    check(name, estimator, samples_of(name, estimator), exact(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", RELAXED_LOGITS)
def test_relaxations_have_the_moments_of_relaxed_samples(name):
    check(name, "gumbel_softmax", 2, exact_of_relaxed(name))
    check(name, "straight_through", 2, exact_of_straight_through(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", RELAXED_LOGITS)
def test_noise_grids_are_exact(name):
    """Hard samples over the grid have the mean of the sum over outcomes, as far as a grid sees where they jump."""
    noisy, relaxed, cell = relaxations(name)
    hard = as_samples(name, [each == each.max(axis=-1, keepdims=True) for each in relaxed]).astype(float)
    params = own_parameters(name)
    mean = (densities(name, noisy, params) * bump_at(hard)).sum() * cell
    np.testing.assert_allclose(mean, exact_means(name, params)[0], atol=4e-3)


@pytest.mark.parametrize("bounds", [{"low": 0.0}, {"high": 0.0}, {"low": 0.0, "high": 1.0}])
def test_a_truncated_student_is_refused_where_it_has_no_sampler(bounds):
    if importlib.util.find_spec("tensorflow_probability"):
        pytest.skip("it has a sampler")
    truncated_student = dist.TruncatedDistribution(dist.StudentT(5.0, 0.3, 0.8), **bounds)
    for draw in (distributions.sample, distributions.rsample):
        with pytest.raises(TypeError, match=r"q\['z'\] must have a sampler, got a truncated StudentT.*: install it"):
            draw({"z": truncated_student}, jax.random.key(0), 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_other_estimators_say_what_to_use(name):
    for estimator in sorted(set(ESTIMATORS) - admitted(name)):
        message = str(refusal(name, estimator, 2))
        assert "\n" not in message
        assert "use " in message or "keep " in message, f"{estimator}: {message}"
