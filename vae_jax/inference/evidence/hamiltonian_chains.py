"""Chains that are led through the densities between a proposal and the posterior, and weighed on the way."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax.inference.evidence.geometric_path import GeometricPath
from vae_jax.typing import Latents, PRNGKey, Scalar

Vectors = Float[Array, "C D"]

TARGET_ACCEPTANCE = 0.8
"""Acceptance rate of the pilot chains. Beskos et al. (2013) give 0.65 as the best for one long chain; transitions that
are rejected here cost the weights more."""

NUM_PILOT_CHAINS = 32
"""Pilot chains, whose spread is the scale of every direction, known to an eighth."""

ADAPTATION_RATE = 1.0
"""Change of the log step size for a difference of one between the acceptance and its target."""

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
    """The ends of the chains, each leaf [C, ...]; with the weights they are samples of the posterior."""
    acceptance_rate: Float[Array, " T-2"]
    """Mean over the chains, at every temperature between the ends."""
    step_size: Float[Array, " T-2"]
    """Leapfrog step sizes in units of the scales that the pilot chains found, or of 1 where it was given."""


class Route(NamedTuple):
    """The densities that chains go through, and how they move."""

    path: GeometricPath
    temperatures: Float[Array, " T"]
    key: PRNGKey
    num_leapfrog_steps: int

    @property
    def stages(self) -> tuple[Array, Array, Array]:
        """Number, temperature and next temperature of every stage but the last, which has no transition."""
        return jnp.arange(len(self.temperatures) - 2), self.temperatures[:-2], self.temperatures[1:-1]


class _Chains(NamedTuple):
    vectors: Vectors
    log_weights: Float[Array, " C"]


def annealed(route: Route, start: Vectors, transitions: Transitions) -> AnnealedChains:
    """Chains through all temperatures, by settings that are known before."""

    def step(chains: _Chains, settings: tuple[tuple[Array, ...], Transitions]) -> tuple[_Chains, Scalar]:
        stage, transition = settings
        chains, accepted = _advanced(route, chains, stage, transition)
        return chains, accepted.mean()

    chains, acceptance = lax.scan(step, _at_start(start), (route.stages, transitions))
    return _at_end(route, chains, acceptance, transitions)


def annealed_with_pilots(route: Route, start: Vectors) -> tuple[AnnealedChains, Transitions]:
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


def fixed_transitions(route: Route, start: Vectors, step_size: Scalar | float) -> Transitions:
    """One step size at all temperatures, and scales of one."""
    num_stages = len(route.temperatures) - 2
    ones = jnp.ones((num_stages, start.shape[1]), start.dtype)
    return Transitions(jnp.full(num_stages, step_size, start.dtype), ones)


def _at_start(start: Vectors) -> _Chains:
    return _Chains(start, jnp.zeros(len(start), start.dtype))


def _at_end(route: Route, chains: _Chains, acceptance: Array, transitions: Transitions) -> AnnealedChains:
    before, last = route.temperatures[-2:]
    chains = _weighed(route, chains, last - before)
    return AnnealedChains(
        chains.log_weights, jax.vmap(route.path.constrain)(chains.vectors), acceptance, transitions.step_size
    )


def _advanced(
    route: Route, chains: _Chains, stage: tuple[Array, ...], transition: Transitions
) -> tuple[_Chains, Float[Array, " C"]]:
    """The chains weighed for the next temperature, then moved at it, and the transitions' acceptance."""
    number, before, temperature = stage
    chains = _weighed(route, chains, temperature - before)
    vectors, accepted = _moved(route, chains.vectors, number, temperature, transition)
    return chains._replace(vectors=vectors), accepted


def _weighed(route: Route, chains: _Chains, warming: Scalar) -> _Chains:
    return chains._replace(log_weights=chains.log_weights + warming * jax.vmap(route.path.log_weight)(chains.vectors))


def _moved(
    route: Route, vectors: Vectors, number: Array, temperature: Scalar, transition: Transitions
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
