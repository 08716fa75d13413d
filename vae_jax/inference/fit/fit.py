"""Stochastic variational inference: a family fitted to any log joint, in one compiled loop."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from vae_jax import bounds, distributions
from vae_jax.estimators import pathwise
from vae_jax.inference.diagnostics import pareto_smoothed
from vae_jax.inference.fit.elbo_plateau import ElboPlateau, rise_of
from vae_jax.inference.fit.families import Family
from vae_jax.inference.fit.minibatches import Minibatched
from vae_jax.inference.fit.stochastic_ascent import Step, ascend_all
from vae_jax.inference.log_density import as_partial
from vae_jax.rounded_draws import has_powers, on_edge
from vae_jax.statistics import mean_se
from vae_jax.typing import Distributions, Estimator, Latents, LogDensity, Parameters, PRNGKey, Scalar

ADAM = optax.adam(1e-2)
DEFAULT_CRITERION = ElboPlateau()

SAMPLES_AT_ONCE = 100
"""Samples whose log joints are held in memory at once when the fit is judged."""


class Fit(NamedTuple):
    """The best of several restarts of `fit`, with its ELBO and its diagnostics."""

    posterior: Distributions
    """The family at `params`: a distribution, or a pytree of independent ones."""
    params: Parameters
    """Unconstrained parameters, averaged over the steps of the last window."""
    elbo: float
    """The posterior's ELBO (nats), from fresh samples and all data."""
    elbo_se: float
    """Its standard error."""
    pareto_k: float
    """Shape of the tail of the weights p / q of fresh samples. Up to 0.7 the posterior is close enough to the exact one
    for importance sampling to correct it."""
    elbo_history: Float[np.ndarray, " T"]
    """The estimate of the ELBO (nats) at each step."""
    window_means: Float[np.ndarray, " W"]
    """Means of the history in each window (nats)."""
    window_mean_ses: Float[np.ndarray, " W"]
    """Standard errors of the windows' means (nats)."""
    num_steps: int
    """T, the number of steps made."""
    converged: bool
    """Whether the rule found that the rise of the ELBO was over."""
    rise: float
    """Rise of the ELBO from the last but one window to the last (nats)."""
    rise_se: float
    """Standard error of the rise (nats). A smaller rise could not be seen."""
    restart_elbos: Float[np.ndarray, " R"]
    """The ELBO of every restart (nats), estimated with common random numbers. NaN for a restart that failed."""
    restart_elbo_ses: Float[np.ndarray, " R"]
    """Standard errors of the restarts' ELBOs (nats)."""
    restart_params: Parameters
    """The `params` of every restart; each leaf has a leading axis [R]."""
    best_restart: int
    """The number of the restart that was kept, from 0."""
    num_on_edge: int
    """Fresh samples that rounding put on an edge of their support. The ELBO is wrong if there are many of them and the
    log joint is infinite there."""

    def sample(self, key: PRNGKey, num_samples: int) -> Latents:
        """Draws `num_samples` = S samples of the posterior; each leaf is [S, ...]."""
        return distributions.sample(self.posterior, key, num_samples)

    def log_prob(self, value: Latents) -> Scalar:
        """Log density (nats) of the posterior at one sample."""
        return distributions.log_prob(self.posterior, value)

    def mean(self) -> Latents:
        """The posterior's mean.

        Raises:
            TypeError: a distribution has no mean in closed form.
        """
        return jax.tree.map(_mean, self.posterior, is_leaf=distributions.is_distribution)


def _mean(leaf: Any) -> Any:
    try:
        return leaf.mean
    except (AttributeError, NotImplementedError) as error:
        raise TypeError(
            f"the posterior must have a mean in closed form, got {type(leaf).__name__}, which has none: average samples"
        ) from error


def fit(
    log_joint: LogDensity | Minibatched,
    family: Any,
    key: PRNGKey,
    *,
    optimizer: optax.GradientTransformation = ADAM,
    num_steps: int = 10_000,
    num_samples: int = 8,
    estimator: Estimator = pathwise,
    num_restarts: int = 1,
    window: int = 500,
    stopping: ElboPlateau | None = None,
    criterion: ElboPlateau = DEFAULT_CRITERION,
    num_final_samples: int = 10_000,
) -> Fit:
    """Fits a family to a log joint by stochastic ascent on the ELBO.

    Each step estimates the ELBO and its gradient from samples of its own. If the log joint is `Minibatched`, each step
    also draws a batch of its own. The parameters returned are the means over the last window of steps. Their noise is
    far smaller than that of the last step. While the ELBO still rises they lag behind by half a window.

    The restart with the highest ELBO is kept. Its ELBO is then estimated again, from samples that did not choose it.

    The optimisation is one compiled loop, in which restarts run side by side. It is compiled once for the same
    function, family, optimizer, estimator and sizes; equal objects that are not the same compile again. Data that a
    function closes over are read at its first call. Data in a `jax.tree_util.Partial` or a `Minibatched` may change
    from call to call.

    Args:
        log_joint: maps one sample to log p(x, z) up to a constant (nats, scalar), or `Minibatched`.
        family: the variational family, such as `MeanFieldNormal`.
        key: consumed.
        optimizer: an optimizer of optax, with any schedule of step sizes.
        num_steps: largest number of steps, a multiple of `window`.
        num_samples: number of samples of q that each step averages over.
        estimator: estimator of the gradient. Some need more than one sample.
        num_restarts: R, the number of restarts. Each starts from the family's `init` at a key of its own.
        window: number of steps over which the parameters and the ELBO are averaged.
        stopping: rule that ends a restart early and sets `converged`. By default all steps are made.
        criterion: rule that sets `converged` where there is no `stopping`. Under a schedule of falling step sizes the
            ELBO rises to the end, as its steps become less noisy: raise the tolerance there.
        num_final_samples: number of fresh samples for the final estimate of the ELBO, rounded up to a multiple of 100.

    Returns:
        The best restart, with its posterior, its ELBO and its Pareto k.

    Raises:
        TypeError: `family` lacks a method, the call is inside a transformation of JAX, or as for the estimator.
        ValueError: a number is out of range, the log joint is not scalar, or as for the estimator.
        RuntimeError: no restart ends at a finite ELBO.

    Example:
        A normal density with the integral e^2 is fitted by its own family, so that the ELBO rises to its log, 2 nats:

        >>> import jax
        >>> import vae_jax as vj
        >>> from numpyro.distributions import Normal, constraints
        >>> from vae_jax.inference import MeanFieldNormal
        >>> def log_joint(z):
        ...     return Normal(1.0, 0.5).log_prob(z) + 2
        >>> family = MeanFieldNormal(constraints.real)
        >>> found = vj.fit(log_joint, family, jax.random.key(0), num_steps=1000, window=100)
        >>> f"{found.elbo:.1f} nats, mean {found.mean():.1f}, std {found.posterior.scale:.1f}"
        '2.0 nats, mean 1.0, std 0.5'
        >>> found.sample(jax.random.key(1), 5).shape, found.elbo_history.shape
        ((5,), (1000,))

    Reference: Hoffman, Blei, Wang & Paisley (2013), for mini-batches; Ranganath, Gerrish & Blei (2014); Kucukelbir,
    Tran, Ranganath, Gelman & Blei (2017); Dhaka et al. (2020), section 3, for averaging the parameters.
    """
    _check_arguments(family, key, num_steps, window)
    for name, number in (("num_restarts", num_restarts), ("num_final_samples", num_final_samples)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}: raise it")
    target = log_joint if isinstance(log_joint, Minibatched) else as_partial(log_joint)
    key_steps, key_choice, key_final = jax.random.split(key, 3)
    rule = criterion if stopping is None else stopping
    climbs = ascend_all(
        target,
        jax.random.split(key_steps, num_restarts),
        family=family,
        step=Step(optimizer, num_samples, estimator),
        num_windows=num_steps // window,
        window=window,
        rule=rule,
        stops=stopping is not None,
    )
    num_groups = -(-num_final_samples // SAMPLES_AT_ONCE)
    judge = partial(_log_weights, target, family=family, num_groups=num_groups)
    logs = np.array(judge(climbs.average, key_choice)[0], np.float64)
    logs[~np.isfinite(logs).all(1)] = np.nan
    restart_elbos, restart_ses = logs.mean(1), mean_se(logs)
    best = int(np.argmax(np.where(np.isfinite(restart_elbos), restart_elbos, -np.inf)))
    kept = jax.tree.map(lambda leaf: leaf[best], jax.device_get(climbs))
    params = jax.tree.map(jnp.asarray, kept.average)
    logs, are_on_edge = (
        np.asarray(each[0]) for each in judge(jax.tree.map(lambda leaf: leaf[None], kept.average), key_final)
    )
    logs = logs.astype(np.float64)
    history = kept.history[: int(kept.num_windows)]
    _check_finite(history.ravel(), logs, family, key)
    rise, rise_se = rise_of(*jax.tree.map(jnp.asarray, (kept.before, kept.now)))
    return Fit(
        posterior=family.distribution(params),
        params=params,
        elbo=float(logs.mean()),
        elbo_se=float(mean_se(logs)),
        pareto_k=float(pareto_smoothed(jnp.asarray(logs)).k),
        elbo_history=history.ravel(),
        window_means=kept.means[: len(history)],
        window_mean_ses=kept.mean_ses[: len(history)],
        num_steps=history.size,
        converged=bool(rule.is_over(jnp.asarray(kept.num_flat))),
        rise=float(rise),
        rise_se=float(rise_se),
        restart_elbos=restart_elbos,
        restart_elbo_ses=restart_ses,
        restart_params=climbs.average,
        best_restart=best,
        num_on_edge=int(are_on_edge.sum()),
    )


def _check_arguments(family: Any, key: Any, num_steps: int, window: int) -> None:
    if not isinstance(family, Family) or isinstance(family, type):
        raise TypeError(f"family must have init and distribution, got {family!r}: use one such as MeanFieldNormal")
    if isinstance(key, Tracer):
        raise TypeError("fit must be called outside of jit, vmap and grad, got a traced key: call it before them")
    if window < 2:
        raise ValueError(f"window must be at least 2 steps, got {window}: raise it")
    if num_steps < 2 * window or num_steps % window:
        nearest = max(2, math.ceil(num_steps / window)) * window
        raise ValueError(
            f"num_steps must be a multiple of the window of {window} steps, two at least, got {num_steps}: use "
            f"{nearest}, or another window"
        )


@partial(jax.jit, static_argnames=("family", "num_groups"))
def _log_weights(target: Any, params: Parameters, key: PRNGKey, *, family: Family, num_groups: int) -> Any:
    """log p - log q (nats) at fresh samples for each of R parameters, and whether they are on an edge, each [R, S]."""
    keys = jax.random.split(key, num_groups)

    def of_restart(params: Parameters) -> tuple[Float[Array, " S"], Bool[Array, " S"]]:
        q = family.distribution(params)

        def of_group(key: PRNGKey) -> Any:
            # The same key gives the same samples.
            samples = distributions.sample(q, key, SAMPLES_AT_ONCE)
            return bounds.log_weights(target, q, key, SAMPLES_AT_ONCE), on_edge(q, samples)

        logs, are_on_edge = lax.map(of_group, keys)
        return logs.ravel(), are_on_edge.ravel()

    return lax.map(of_restart, params)


def _check_finite(
    history: Float[np.ndarray, " T"], logs: Float[np.ndarray, " S"], family: Family, key: PRNGKey
) -> None:
    if np.isfinite(logs).all():
        return
    lost = np.flatnonzero(~np.isfinite(history))
    if lost.size:
        advice = "lower the learning rate, raise num_samples, or start where the density is positive"
        if has_powers(family.distribution(family.init(key))):
            advice += "; if concentrations are below 0.1, whose draws are rounded, use a family of transformed normals"
        raise RuntimeError(
            f"fit must keep the ELBO finite, got {history[lost[0]]} in step {lost[0] + 1} of the best restart: {advice}"
        )
    share = np.mean(~np.isfinite(logs))
    raise RuntimeError(
        f"the log joint must be finite wherever the posterior has samples, got {share:.2%} where it is not: choose a "
        "family over the latents' support"
    )
