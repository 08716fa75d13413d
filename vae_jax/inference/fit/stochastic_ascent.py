"""Stochastic ascent on the ELBO: restarts side by side, window by window, in one compiled loop."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vae_jax.bounds import elbo
from vae_jax.inference.fit.elbo_plateau import ElboPlateau, WindowMean, window_mean
from vae_jax.inference.fit.families import Family
from vae_jax.inference.fit.minibatches import Minibatched
from vae_jax.typing import Estimator, LogDensity, Parameters, PRNGKey, Scalar


class Step(NamedTuple):
    """One step's optimizer and estimate of the ELBO."""

    optimizer: optax.GradientTransformation
    num_samples: int
    estimator: Estimator


class AscentState(NamedTuple):
    """One restart after some windows of steps."""

    params: Parameters
    optimizer_state: Any
    average: Parameters
    """Means of the parameters over the last window."""
    history: Float[Array, "V W"]
    """The ELBO of each step; zeros after the first `num_windows`, as in `means` and `mean_ses`."""
    means: Float[Array, " V"]
    mean_ses: Float[Array, " V"]
    before: WindowMean
    now: WindowMean
    num_windows: Int[Array, ""]
    num_flat: Int[Array, ""]
    """Flat windows in a row, up to the last."""


@partial(jax.jit, static_argnames=("family", "step", "num_windows", "window", "rule", "stops"))
def ascend_all(
    target: Any,
    keys: Any,
    *,
    family: Family,
    step: Step,
    num_windows: int,
    window: int,
    rule: ElboPlateau,
    stops: bool,
) -> AscentState:
    """One restart a key, each for at most `num_windows` windows, or until the rule ends it where it `stops`."""

    def climb(key: PRNGKey) -> AscentState:
        key_start, key_steps = jax.random.split(key)
        start = _start(family.init(key_start), target, family, step, num_windows, window)

        def goes_on(now: AscentState) -> Bool[Array, ""]:
            is_unfinished = now.num_windows < num_windows
            return is_unfinished & ~_is_settled(now, rule) if stops else is_unfinished

        def advance(now: AscentState) -> AscentState:
            window_key = jax.random.fold_in(key_steps, now.num_windows)
            return _advance(now, jax.random.split(window_key, window), target, family, step, rule)

        return lax.while_loop(goes_on, advance, start)

    if keys.shape[0] == 1:
        # A batch of one would still turn branches into selections, and slow every step.
        return jax.tree.map(lambda leaf: leaf[None], climb(keys[0]))
    return jax.vmap(climb)(keys)


def _is_settled(climb: AscentState, rule: ElboPlateau) -> Bool[Array, ""]:
    """Nothing more to win: the rise is over, or the ELBO is lost."""
    is_lost = (climb.num_windows > 0) & ~jnp.isfinite(climb.now.mean)
    return rule.is_over(climb.num_flat) | is_lost


def _start(params: Parameters, target: Any, family: Family, step: Step, num_windows: int, window: int) -> AscentState:
    loss = _loss(target, family, step)
    dtype = jax.eval_shape(loss, params, jax.random.key(0)).dtype
    nothing = WindowMean(jnp.full((), -jnp.inf, dtype), jnp.zeros((), dtype))
    return AscentState(
        params=params,
        optimizer_state=step.optimizer.init(params),
        average=params,
        history=jnp.zeros((num_windows, window), dtype),
        means=jnp.zeros(num_windows, dtype),
        mean_ses=jnp.zeros(num_windows, dtype),
        before=nothing,
        now=nothing,
        num_windows=jnp.zeros((), int),
        num_flat=jnp.zeros((), int),
    )


def _advance(now: AscentState, keys: Any, target: Any, family: Family, step: Step, rule: ElboPlateau) -> AscentState:
    """A window of steps."""
    value_and_gradient = jax.value_and_grad(_loss(target, family, step))

    def make_step(state: Any, key: PRNGKey) -> tuple[Any, Scalar]:
        params, optimizer_state, total = state
        loss, gradient = value_and_gradient(params, key)
        updates, optimizer_state = step.optimizer.update(gradient, optimizer_state, params)
        params: Any = optax.apply_updates(params, updates)
        return (params, optimizer_state, jax.tree.map(jnp.add, total, params)), -loss

    nothing = jax.tree.map(jnp.zeros_like, now.params)
    (params, optimizer_state, total), elbos = lax.scan(make_step, (now.params, now.optimizer_state, nothing), keys)
    mean = window_mean(elbos)
    is_flat = rule.flat(now.now, mean)
    number = now.num_windows
    return AscentState(
        params=params,
        optimizer_state=optimizer_state,
        average=jax.tree.map(lambda leaf: leaf / keys.shape[0], total),
        history=now.history.at[number].set(elbos),
        means=now.means.at[number].set(mean.mean),
        mean_ses=now.mean_ses.at[number].set(mean.mean_se),
        before=now.now,
        now=mean,
        num_windows=number + 1,
        num_flat=jnp.where(is_flat, now.num_flat + 1, 0),
    )


def _loss(target: Any, family: Family, step: Step) -> Callable[[Parameters, PRNGKey], Scalar]:
    """Minus the ELBO, estimated."""

    def of_batch(params: Parameters, key: PRNGKey) -> Scalar:
        key_batch, key = jax.random.split(key)
        return of_log_joint(target.of_batch(key_batch), params, key)

    def of_log_joint(log_joint: LogDensity, params: Parameters, key: PRNGKey) -> Scalar:
        q = family.distribution(params)
        return -elbo(log_joint, q, key, step.num_samples, estimator=step.estimator)

    return of_batch if isinstance(target, Minibatched) else partial(of_log_joint, target)
