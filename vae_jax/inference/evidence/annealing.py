"""Annealed importance sampling: weights of chains that are led from a proposal to the posterior in small steps."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from vae_jax import distributions
from vae_jax.inference.evidence.estimate import EvidenceEstimate, estimate_from
from vae_jax.inference.evidence.schedules import Schedule, sigmoid, temperatures_of
from vae_jax.inference.evidence.unconstrained import Path, path_between
from vae_jax.inference.minibatches import as_partial
from vae_jax.typing import Distributions, Latents, LogDensity, PRNGKey, Scalar

Vectors = Float[Array, "C D"]
Temperatures = Float[Array, " T"]

TARGET_ACCEPTANCE = 0.8
"""Of the pilot chains. Beskos et al. (2013) give 0.65 as the best for one long chain; transitions that are rejected
here cost the weights more."""

NUM_PILOT_CHAINS = 32
"""Whose spread is the scale of every direction, known to an eighth."""

ADAPTATION_RATE = 1.0
"""Of the log step size, by the difference of the acceptance from its target."""

QUARTER_PERIOD = math.pi / 2
"""Length of the path, in standard deviations, after which a Gaussian's position has forgotten where it began."""


class Transitions(NamedTuple):
    """Hamiltonian Monte Carlo's settings at every temperature between the ends."""

    step_size: Float[Array, " T-2"]
    """In units of the scales."""
    squared_scale: Float[Array, "T-2 D"]
    """The diagonal of the inverse mass matrix."""


class AnnealedChains(NamedTuple):
    """Independent chains at the end of annealing."""

    log_weights: Float[Array, " C"]
    """Nats. Their exponentials have the evidence as their expectation."""
    samples: Latents
    """Where the chains ended, each leaf [C, ...]; with the weights they are samples of the posterior."""
    acceptance_rate: Float[Array, " T-2"]
    """Mean over the chains, at every temperature between the ends."""
    step_size: Float[Array, " T-2"]
    """Of the leapfrog steps, in units of the scales that the pilot chains found, or of 1 where it was given."""


def annealed_importance_sampling(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_chains: int,
    *,
    num_temperatures: int = 100,
    schedule: Schedule = sigmoid,
    num_leapfrog_steps: int = 5,
    step_size: float | None = None,
) -> EvidenceEstimate:
    """log p(x) from chains that go from `q` to the posterior through densities q^(1 - t) p^t.

    Approximates: log p(x), from below on average; the mean weight itself is unbiased, whatever the number of
        temperatures and however well the chains mix. More temperatures make the weights more even.
    Needs: continuous latents; a log joint differentiable in the sample, positive wherever `q` is.

    Each chain starts at a draw of `q`, the prior or a fit, and makes one transition of Hamiltonian Monte Carlo at every
    temperature between the ends, on latents made unconstrained by `biject_to`. All chains run side by side in one
    compiled loop over the temperatures. Compilation is as for `prior_sampling`.

    Args:
        log_joint: one sample to log p(x, z) (nats, scalar), normalised in x and z.
        q: the start: a distribution or a pytree of independent ones.
        key: consumed.
        num_chains: C, at least 2.
        num_temperatures: T, with both ends. 2 is importance sampling without transitions.
        schedule: `linear`, `sigmoid` or `geometric`, or a function of T.
        num_leapfrog_steps: of a transition, each one gradient of the log joint.
        step_size: of a leapfrog step in unconstrained units. By default pilot chains, which are thrown away, find one
            for every temperature, and the scale of every direction: settings that do not depend on the chains they are
            used for leave the weights unbiased.

    Returns:
        The estimate over C weights, with the mean acceptance rate.

    Raises:
        TypeError: a leaf of `q` is not a distribution, or not a continuous one.
        ValueError: fewer than 2 chains or temperatures, no leapfrog step, a step size that is not positive, a schedule
            that does not rise from 0 to 1, or a batch shape.

    Reference: Neal (2001), "Annealed importance sampling"; Wu, Burda, Salakhutdinov & Grosse (2017) for decoders.
    """
    chains = annealed_chains(
        log_joint,
        q,
        key,
        num_chains,
        num_temperatures=num_temperatures,
        schedule=schedule,
        num_leapfrog_steps=num_leapfrog_steps,
        step_size=step_size,
    )
    return _estimate(chains)


def annealed_chains(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_chains: int,
    *,
    num_temperatures: int = 100,
    schedule: Schedule = sigmoid,
    num_leapfrog_steps: int = 5,
    step_size: float | None = None,
) -> AnnealedChains:
    """The chains of `annealed_importance_sampling` themselves, with the same arguments and errors."""
    _check(num_chains, num_leapfrog_steps, step_size)
    temperatures = temperatures_of(schedule, num_temperatures)
    return _from_proposal(
        as_partial(log_joint),
        q,
        key,
        temperatures,
        step_size,
        num_chains=num_chains,
        num_leapfrog_steps=num_leapfrog_steps,
    )


def reverse_annealing(
    log_joint: LogDensity,
    q: Distributions,
    posterior_samples: Latents,
    key: PRNGKey,
    *,
    num_temperatures: int = 100,
    schedule: Schedule = sigmoid,
    num_leapfrog_steps: int = 5,
    step_size: float | None = None,
) -> EvidenceEstimate:
    """log p(x) from chains that go from exact samples of the posterior back to `q`.

    Approximates: log p(x), from above on average; the mean of the inverse weights estimates 1 / p(x) without bias. With
        `annealed_importance_sampling` at the same settings it encloses log p(x).
    Needs: exact samples of the posterior, such as the latents that data were simulated from. One of several that share
        their data is enough; samples that are correlated make the error too small.

    Args:
        log_joint, q, key, num_temperatures, schedule, num_leapfrog_steps, step_size: as for
            `annealed_importance_sampling`. The schedule is run backwards.
        posterior_samples: with the structure of `q`, each leaf [C, ...].

    Returns:
        The estimate over C inverse weights, with the mean acceptance rate.

    Raises:
        TypeError, ValueError: as for `annealed_importance_sampling`.

    Reference: Grosse, Ghahramani & Adams (2015), "Sandwiching the marginal likelihood using bidirectional Monte Carlo".
    """
    num_chains = len(jax.tree.leaves(posterior_samples)[0])
    _check(num_chains, num_leapfrog_steps, step_size)
    temperatures = temperatures_of(schedule, num_temperatures)[::-1]
    chains = _from_posterior(
        as_partial(log_joint), q, posterior_samples, key, temperatures, step_size, num_leapfrog_steps=num_leapfrog_steps
    )
    inverse = _estimate(chains)
    return inverse._replace(log_evidence=-inverse.log_evidence)


@partial(jax.jit, static_argnames=("num_chains", "num_leapfrog_steps"))
def _from_proposal(
    log_joint: Partial,
    q: Distributions,
    key: PRNGKey,
    temperatures: Temperatures,
    step_size: Scalar | float | None,
    *,
    num_chains: int,
    num_leapfrog_steps: int,
) -> AnnealedChains:
    path = path_between(q, log_joint)
    start_key, key = jax.random.split(key)
    num_pilots = NUM_PILOT_CHAINS if step_size is None else 0
    start = _drawn(path, q, start_key, num_pilots + num_chains)
    route = _Route(path, jnp.asarray(temperatures, start.dtype), key, num_leapfrog_steps)
    if step_size is None:
        return _annealed_with_pilots(route, start)[0]
    return _annealed(route, start, _fixed(route, start, step_size))


@partial(jax.jit, static_argnames="num_leapfrog_steps")
def _from_posterior(
    log_joint: Partial,
    q: Distributions,
    samples: Latents,
    key: PRNGKey,
    temperatures: Temperatures,
    step_size: Scalar | float | None,
    *,
    num_leapfrog_steps: int,
) -> AnnealedChains:
    path = path_between(q, log_joint)
    start = jax.vmap(path.unconstrain)(samples)
    start_key, pilot_key, key = jax.random.split(key, 3)
    backwards = _Route(path, jnp.asarray(temperatures, start.dtype), key, num_leapfrog_steps)
    if step_size is not None:
        return _annealed(backwards, start, _fixed(backwards, start, step_size))
    # The pilots go forward, from draws of their own: the chains need all samples of the posterior.
    forward = backwards._replace(temperatures=backwards.temperatures[::-1], key=pilot_key)
    _, transitions = _annealed_with_pilots(forward, _drawn(path, q, start_key, NUM_PILOT_CHAINS))
    return _annealed(backwards, start, Transitions(*(setting[::-1] for setting in transitions)))


def _drawn(path: Path, q: Distributions, key: PRNGKey, number: int) -> Vectors:
    return jax.vmap(path.unconstrain)(distributions.sample(q, key, number))


class _Route(NamedTuple):
    """The densities that chains go through, and how they move."""

    path: Path
    temperatures: Temperatures
    key: PRNGKey
    num_leapfrog_steps: int

    @property
    def stages(self) -> tuple[Array, Array, Array]:
        """Number, temperature and next temperature of every stage but the last, which has no transition."""
        return jnp.arange(len(self.temperatures) - 2), self.temperatures[:-2], self.temperatures[1:-1]


class _Chains(NamedTuple):
    vectors: Vectors
    log_weights: Float[Array, " C"]


def _annealed(route: _Route, start: Vectors, transitions: Transitions) -> AnnealedChains:
    """Chains through all temperatures, by settings that are known before."""

    def step(chains: _Chains, settings: tuple[tuple[Array, ...], Transitions]) -> tuple[_Chains, Scalar]:
        stage, transition = settings
        chains, accepted = _advanced(route, chains, stage, transition)
        return chains, accepted.mean()

    chains, acceptance = lax.scan(step, _at_start(start), (route.stages, transitions))
    return _at_end(route, chains, acceptance, transitions)


def _annealed_with_pilots(route: _Route, start: Vectors) -> tuple[AnnealedChains, Transitions]:
    """Chains through all temperatures, by settings that the first of them find and that the others do not touch.

    The pilots are left out of the result.
    """
    longest = jnp.asarray(QUARTER_PERIOD / route.num_leapfrog_steps, start.dtype)

    def step(carry: tuple[_Chains, Scalar], stage: tuple[Array, ...]) -> tuple[tuple[_Chains, Scalar], Any]:
        chains, size = carry
        variance = chains.vectors[:NUM_PILOT_CHAINS].var(0)
        transition = Transitions(size, jnp.maximum(variance, jnp.finfo(start.dtype).tiny))
        chains, accepted = _advanced(route, chains, stage, transition)
        miss = accepted[:NUM_PILOT_CHAINS].mean() - TARGET_ACCEPTANCE
        size = jnp.minimum(size * jnp.exp(ADAPTATION_RATE * miss), longest)
        return (chains, size), (accepted[NUM_PILOT_CHAINS:].mean(), transition)

    (chains, _), (acceptance, transitions) = lax.scan(step, (_at_start(start), longest), route.stages)
    others = _Chains(*(leaf[NUM_PILOT_CHAINS:] for leaf in chains))
    return _at_end(route, others, acceptance, transitions), transitions


def _at_start(start: Vectors) -> _Chains:
    return _Chains(start, jnp.zeros(len(start), start.dtype))


def _at_end(route: _Route, chains: _Chains, acceptance: Array, transitions: Transitions) -> AnnealedChains:
    before, last = route.temperatures[-2:]
    chains = _weighed(route, chains, last - before)
    return AnnealedChains(
        chains.log_weights, jax.vmap(route.path.constrain)(chains.vectors), acceptance, transitions.step_size
    )


def _advanced(
    route: _Route, chains: _Chains, stage: tuple[Array, ...], transition: Transitions
) -> tuple[_Chains, Float[Array, " C"]]:
    """The chains weighed for the next temperature, then moved at it, and the transitions' acceptance."""
    number, before, temperature = stage
    chains = _weighed(route, chains, temperature - before)
    vectors, accepted = _moved(route, chains.vectors, number, temperature, transition)
    return chains._replace(vectors=vectors), accepted


def _weighed(route: _Route, chains: _Chains, warming: Scalar) -> _Chains:
    return chains._replace(log_weights=chains.log_weights + warming * jax.vmap(route.path.log_weight)(chains.vectors))


def _moved(
    route: _Route, vectors: Vectors, number: Array, temperature: Scalar, transition: Transitions
) -> tuple[Vectors, Float[Array, " C"]]:
    """Every chain after a transition that leaves the density at the temperature as it is, and its acceptance."""
    # Importing blackjax starts JAX, which would come before it is configured, and takes two seconds.
    from blackjax.mcmc import hmc

    kernel = hmc.build_kernel()
    log_density = partial(route.path.log_density, temperature)

    def move(key: PRNGKey, vector: Float[Array, " D"]) -> tuple[Any, Any]:
        # Its annotations ask for a Python number where any scalar will do.
        step_size: Any = transition.step_size
        state = hmc.init(vector, log_density)
        state, info = kernel(key, state, log_density, step_size, transition.squared_scale, route.num_leapfrog_steps)
        return state.position, info.acceptance_rate

    return jax.vmap(move)(jax.random.split(jax.random.fold_in(route.key, number), len(vectors)), vectors)


def _fixed(route: _Route, start: Vectors, step_size: Scalar | float) -> Transitions:
    """One step size at all temperatures, and scales of one."""
    num_stages = len(route.temperatures) - 2
    ones = jnp.ones((num_stages, start.shape[1]), start.dtype)
    return Transitions(jnp.full(num_stages, step_size, start.dtype), ones)


@jax.jit
def _estimate(chains: AnnealedChains) -> EvidenceEstimate:
    estimate = estimate_from(chains.log_weights)
    if not chains.acceptance_rate.size:
        return estimate
    return estimate._replace(acceptance_rate=chains.acceptance_rate.mean())


def _check(num_chains: int, num_leapfrog_steps: int, step_size: float | None) -> None:
    if num_chains < 2:
        raise ValueError(f"num_chains must be at least 2, got {num_chains}: an error needs two")
    if num_leapfrog_steps < 1:
        raise ValueError(f"num_leapfrog_steps must be at least 1, got {num_leapfrog_steps}: raise it")
    if step_size is not None and not 0 < step_size < math.inf:
        raise ValueError(f"step_size must be positive and finite, got {step_size}: change it, or leave it out")
