"""Samples by different routes, and tests of whether they have one distribution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy import stats

from benchmarks.studies.two_routes.two_routes_setting import HISTOGRAM_TEMPERATURES, LOGITS, PROBS, RATE
from vae_jax import distributions
from vae_jax.distributions import OneHotCategorical
from vae_jax.estimators.discrete_latents import relaxable_latents
from vae_jax.estimators.gumbel_softmax import noisy_logits
from vae_jax.statistics import summarize
from vae_jax.typing import PRNGKey


def exponential_draws(key: PRNGKey, num_draws: int) -> dict[str, np.ndarray]:
    """Exponential samples by route."""
    direct_key, noise_key = jax.random.split(key)
    q = dist.Exponential(jnp.float32(RATE))
    # The middles of the generator's cells, none of which is 0.
    uniform = jax.random.uniform(noise_key, (num_draws,)) + jnp.finfo(jnp.float32).eps / 2
    return {
        "direct": np.asarray(distributions.sample(q, direct_key, num_draws), float),
        "inverse CDF": np.asarray(q.icdf(uniform), float),
    }


def compared_exponentials(draws: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means, and Kolmogorov-Smirnov tests against the exact distribution and of the routes against each other."""
    rows = []
    for route, samples in draws.items():
        test: Any = stats.kstest(samples, stats.expon(scale=1 / RATE).cdf)
        row = {"route": route, "ks_distance": float(test.statistic), "p_value": float(test.pvalue)}
        mean, mean_se = float(samples.mean()), float(stats.sem(samples))
        rows.append(row | {"mean": mean, "mean_se": mean_se, "exact_mean": 1 / RATE})
    direct, inverse = draws.values()
    both: Any = stats.ks_2samp(direct, inverse)
    return {"routes": rows, "two_sample_p_value": float(both.pvalue)}


def relaxed_draws(key: PRNGKey, num_draws: int) -> dict[float, np.ndarray]:
    """Gumbel-softmax samples [S, K] by temperature, each from noise of its own."""
    keys = jax.random.split(key, len(HISTOGRAM_TEMPERATURES))
    draws = {}
    for temperature, temperature_key in zip(HISTOGRAM_TEMPERATURES, keys, strict=True):
        latent, noisy = _noisy_latent(temperature_key, num_draws)
        draws[temperature] = np.asarray(latent.relaxed(noisy, temperature), float)
    return draws


def categorical_draws(key: PRNGKey, num_draws: int, relaxed: dict[float, np.ndarray]) -> dict[str, np.ndarray]:
    """Categories by route: those of one-hot samples, and the largest coordinates of relaxed ones."""
    direct_key, noise_key = jax.random.split(key)
    q = dist.Categorical(probs=jnp.asarray(PROBS))
    latent, noisy = _noisy_latent(noise_key, num_draws)
    routes = {"direct": distributions.sample(q, direct_key, num_draws), "Gumbel-max": latent.hard(noisy).argmax(1)}
    return {route: np.asarray(samples) for route, samples in routes.items()} | {
        softmax_route(temperature): samples.argmax(axis=1) for temperature, samples in relaxed.items()
    }


def _noisy_latent(key: PRNGKey, num_draws: int) -> tuple[Any, Any]:
    """The categorical in a form that can be relaxed, and its noisy logits [S, K]."""
    latents = relaxable_latents(OneHotCategorical(jnp.asarray(LOGITS)))
    (noisy,) = noisy_logits(latents, key, num_draws)
    return latents[0], noisy


def softmax_route(temperature: float) -> str:
    """The name of the route by relaxed samples."""
    return f"Gumbel-softmax {temperature:g}"


def compared_categories(draws: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Frequencies, and chi-squared tests against the probabilities."""
    rows = []
    for route, samples in draws.items():
        counts = np.bincount(samples, minlength=len(PROBS))
        test: Any = stats.chisquare(counts, len(samples) * np.asarray(PROBS))
        statistics = summarize((samples[:, None] == np.arange(len(PROBS))).astype(np.float32))
        rows.append(
            {
                "route": route,
                "frequencies": (counts / len(samples)).tolist(),
                "frequencies_se": np.asarray(statistics.mean_se, float).tolist(),
                "chi_squared": float(test.statistic),
                "p_value": float(test.pvalue),
            }
        )
    return rows
