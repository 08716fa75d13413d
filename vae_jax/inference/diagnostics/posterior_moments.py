"""The moments of an approximate posterior compared with those of a reference."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Float
from numpyro.diagnostics import effective_sample_size

from vae_jax.inference.diagnostics.scalar_names import scalar_names
from vae_jax.typing import Latents

FEWEST_DRAWS = 100
"""The fewest draws that a standard error of a standard deviation is computed from."""


class PosteriorMoments(NamedTuple):
    """Means, standard deviations and correlations of P scalar parameters, each with its Monte Carlo standard error."""

    names: tuple[str, ...]
    mean: Float[np.ndarray, " P"]
    mean_se: Float[np.ndarray, " P"]
    std: Float[np.ndarray, " P"]
    std_se: Float[np.ndarray, " P"]
    correlation: Float[np.ndarray, "P P"]
    correlation_se: Float[np.ndarray, "P P"]


class MomentDifference(NamedTuple):
    """Difference, approximation minus reference, for one parameter in standard deviations of the reference.

    Each z score is a difference over its standard error. It is NaN where both moments are exact.
    """

    name: str
    mean: float
    mean_se: float
    mean_z: float
    std: float
    """Relative difference of the standard deviations: at -0.4 the approximation's is 60% of the reference's."""
    std_se: float
    std_z: float


class CorrelationDifference(NamedTuple):
    """The correlation of one pair of parameters in both posteriors."""

    names: tuple[str, str]
    approximation: float
    reference: float
    difference: float
    difference_se: float
    z_score: float


class MomentComparison(NamedTuple):
    """Differences between the first two moments of an approximation and those of a reference."""

    parameters: tuple[MomentDifference, ...]
    correlations: tuple[CorrelationDifference, ...]
    """Differences of every pair's correlations, the largest absolute difference first."""


def compare_moments(approximation: PosteriorMoments, reference: PosteriorMoments) -> MomentComparison:
    """Compares means, standard deviations and correlations of two posteriors, with their Monte Carlo errors.

    Args:
        approximation: moments of q, from `moments_of_draws` or `known_moments`.
        reference: moments of the posterior, from long Markov chains (`moments_of_chains`) or exact (`known_moments`).

    Returns:
        Differences by parameter, in standard deviations of the reference, and differences of correlations.

    Raises:
        ValueError: the parameters differ, or a parameter of the reference does not vary.

    Example:
        >>> from vae_jax.inference import compare_moments, known_moments
        >>> reference = known_moments({"a": 0.0, "b": 0.0}, [[4.0, 1.0], [1.0, 1.0]])
        >>> mean_field = known_moments({"a": 1.0, "b": 0.0}, [[3.0, 0.0], [0.0, 0.75]])
        >>> differences = compare_moments(mean_field, reference)
        >>> [f"{each.name}: mean {each.mean:+.2f}, std {each.std:+.0%}" for each in differences.parameters]
        ['a: mean +0.50, std -13%', 'b: mean +0.00, std -13%']
        >>> differences.correlations[0].approximation, differences.correlations[0].reference
        (0.0, 0.5)
    """
    if approximation.names != reference.names:
        raise ValueError(
            f"approximation must have the reference's parameters {_listed(reference.names)}, got "
            f"{_listed(approximation.names)}: match the two"
        )
    for name, std in zip(reference.names, reference.std, strict=True):
        if not 0 < std < math.inf:
            raise ValueError(
                f"the reference's standard deviation of {name} must be positive and finite, got {std}: leave out "
                "what does not vary"
            )
    return MomentComparison(_parameter_differences(approximation, reference), _correlations(approximation, reference))


def moments_of_draws(draws: Latents) -> PosteriorMoments:
    """Computes moments of independent draws, such as those from a variational posterior.

    Args:
        draws: pytree of arrays [S, ...] with S at least 100.

    Returns:
        Moments of the P scalar parameters, with their standard errors.

    Raises:
        ValueError: S is below 100, leaves have different numbers of draws, or a draw is not finite.

    Example:
        The mean of 1,000 independent draws has the standard error std / sqrt(1,000):

        >>> import numpy as np
        >>> from vae_jax.inference import moments_of_draws
        >>> moments = moments_of_draws({"a": np.random.default_rng(0).normal(size=(1000, 2))})
        >>> moments.names, moments.correlation.shape
        (('a[0]', 'a[1]'), (2, 2))
        >>> (moments.mean_se / moments.std * 1000**0.5).round(3).tolist()
        [1.0, 1.0]

    Reference: for the standard errors, the delta method with the draws' own fourth moments.
    """
    names, values = _flattened(draws, num_axes=1)
    return _moments(names, values[None], _independent)


def moments_of_chains(draws: Latents) -> PosteriorMoments:
    """Computes moments of Markov chains' draws; standard errors allow for autocorrelation and disagreeing chains.

    Args:
        draws: pytree of arrays [C, S, ...], such as NumPyro's `mcmc.get_samples(group_by_chain=True)`.

    Returns:
        Moments of the P scalar parameters, with their standard errors.

    Raises:
        ValueError: there are fewer than 100 draws a chain, leaves have different numbers of draws, or a draw is not
            finite.

    Example:
        >>> import numpy as np
        >>> from vae_jax.inference import moments_of_chains
        >>> draws = {"a": np.random.default_rng(0).normal(3, 2, size=(4, 1000))}
        >>> moments = moments_of_chains(draws)
        >>> abs(moments.mean[0] - 3) < 4 * moments.mean_se[0], abs(moments.std[0] - 2) < 4 * moments.std_se[0]
        (np.True_, np.True_)

    Reference: Vehtari, Gelman, Simpson, Carpenter & Burkner (2021), eqs. 10 to 13, for the effective sample size.
    """
    names, values = _flattened(draws, num_axes=2)
    return _moments(names, values, effective_sample_size)


def known_moments(mean: Latents, covariance: Float[ArrayLike, "P P"]) -> PosteriorMoments:
    """Makes posterior moments without errors from a known mean and covariance.

    Args:
        mean: pytree of arrays, whose structure names the P parameters.
        covariance: covariance [P, P], in the order of `jax.flatten_util.ravel_pytree`.

    Returns:
        The moments, with standard errors of zero.

    Raises:
        ValueError: the covariance has another size, or a negative diagonal.

    Example:
        >>> from vae_jax.inference import known_moments
        >>> moments = known_moments({"a": 1.0, "b": 2.0}, [[4.0, 1.0], [1.0, 1.0]])
        >>> moments.names, moments.std.tolist(), moments.correlation[0, 1].item()
        (('a', 'b'), [2.0, 1.0], 0.5)
    """
    names = scalar_names(mean)
    covariance = np.asarray(covariance, float)
    if covariance.shape != (len(names), len(names)):
        raise ValueError(f"covariance must be {len(names)} by {len(names)}, got {covariance.shape}: match the mean")
    if (np.diagonal(covariance) < 0).any():
        raise ValueError(f"variances must not be negative, got {np.diagonal(covariance).min()}: correct the covariance")
    std = np.sqrt(np.diagonal(covariance))
    vector = np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in jax.tree.leaves(mean)])
    return PosteriorMoments(
        names=names,
        mean=vector,
        mean_se=np.zeros_like(vector),
        std=std,
        std_se=np.zeros_like(std),
        correlation=_normalised(covariance, std),
        correlation_se=np.zeros_like(covariance),
    )


def _flattened(draws: Latents, *, num_axes: int) -> tuple[tuple[str, ...], Float[np.ndarray, "*S P"]]:
    """Names of the parameters, and their draws with the axes of chains and draws first."""
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(draws)]
    kind = ("[S, ...]", "[C, S, ...]")[num_axes - 1]
    shapes = {leaf.shape[:num_axes] for leaf in leaves}
    if len(shapes) != 1 or any(leaf.ndim < num_axes for leaf in leaves):
        raise ValueError(
            f"draws must be arrays {kind} of one number of draws, got {_listed(sorted(shapes))}: match them"
        )
    (shape,) = shapes
    if shape[-1] < FEWEST_DRAWS:
        raise ValueError(f"draws must be at least {FEWEST_DRAWS}, got {shape[-1]}: draw more")
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[(0,) * num_axes], draws)
    names = scalar_names(one)
    values = np.concatenate([leaf.reshape(*shape, -1) for leaf in leaves], axis=-1)
    for name, value in zip(names, np.moveaxis(values, -1, 0), strict=True):
        if not np.isfinite(value).all():
            raise ValueError(f"draws of {name} must be finite, got {value[~np.isfinite(value)][0]}: see why")
    return names, values


def _independent(values: Float[np.ndarray, "1 S P"]) -> Float[np.ndarray, " P"]:
    return np.full(values.shape[2:], float(values.shape[1]))


def _moments(names: tuple[str, ...], values: Float[np.ndarray, "C S P"], effective_size: Any) -> PosteriorMoments:
    mean = values.mean(axis=(0, 1))
    centered = values - mean
    std = np.sqrt((centered**2).mean(axis=(0, 1)))
    standard = centered / np.where(std > 0, std, 1)
    num_parameters = len(names)
    correlation = np.eye(num_parameters)
    correlation_se = np.zeros_like(correlation)
    squares = standard**2
    for first in range(num_parameters):
        # One row at a time: all products at once would take P times the memory of the draws.
        row = correlation[first] = (standard[..., first, None] * standard).mean(axis=(0, 1))
        influence = standard[..., first, None] * standard - row * (squares[..., first, None] + squares) / 2
        correlation_se[first] = _autocorrelated_mean_se(influence, effective_size)
    return PosteriorMoments(
        names=names,
        mean=mean,
        mean_se=_autocorrelated_mean_se(values, effective_size),
        std=std,
        std_se=std / 2 * _autocorrelated_mean_se(squares, effective_size),
        correlation=correlation,
        correlation_se=correlation_se,
    )


def _autocorrelated_mean_se(terms: Float[np.ndarray, "C S P"], effective_size: Any) -> Float[np.ndarray, " P"]:
    """The standard error of the terms' mean."""
    spread = terms.std(axis=(0, 1))
    # A constant has no autocorrelation to be measured, and no error.
    varies = spread > 1e-12 * np.abs(terms).max(axis=(0, 1))
    error = np.zeros_like(spread)
    if varies.any():
        size = np.asarray(effective_size(terms[..., varies]), float)
        error[varies] = spread[varies] / np.sqrt(size)
    return error


def _parameter_differences(
    approximation: PosteriorMoments, reference: PosteriorMoments
) -> tuple[MomentDifference, ...]:
    unit = reference.std
    mean = (approximation.mean - reference.mean) / unit
    relative_error = reference.std_se / unit
    mean_se = np.hypot(np.hypot(approximation.mean_se, reference.mean_se) / unit, mean * relative_error)
    ratio = approximation.std / unit
    std_se = np.hypot(approximation.std_se / unit, ratio * relative_error)
    columns = (mean, mean_se, _z_scores(mean, mean_se), ratio - 1, std_se, _z_scores(ratio - 1, std_se))
    rows = zip(reference.names, *(column.tolist() for column in columns), strict=True)
    return tuple(MomentDifference(*row) for row in rows)


def _correlations(approximation: PosteriorMoments, reference: PosteriorMoments) -> tuple[CorrelationDifference, ...]:
    pairs = np.triu_indices(len(reference.names), 1)
    difference = (approximation.correlation - reference.correlation)[pairs]
    error = np.hypot(approximation.correlation_se, reference.correlation_se)[pairs]
    columns = (approximation.correlation[pairs], reference.correlation[pairs], difference, error)
    rows = zip(*pairs, *columns, _z_scores(difference, error), strict=True)
    found = [
        CorrelationDifference((reference.names[first], reference.names[second]), *map(float, numbers))
        for first, second, *numbers in rows
    ]
    return tuple(sorted(found, key=lambda pair: -abs(pair.difference)))


def _z_scores(difference: np.ndarray, error: np.ndarray) -> np.ndarray:
    return np.where(error > 0, difference / np.where(error > 0, error, 1), np.nan)


def _normalised(covariance: Float[np.ndarray, "P P"], std: Float[np.ndarray, " P"]) -> Float[np.ndarray, "P P"]:
    """The correlation: zero with what does not vary."""
    scale = np.where(std > 0, std, 1)
    correlation = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1)
    return correlation


def _listed(names: Any) -> str:
    """The first few."""
    shown = ", ".join(str(name) for name in list(names)[:4])
    return shown + (", ..." if len(names) > 4 else "")
