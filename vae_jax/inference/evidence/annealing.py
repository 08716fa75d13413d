"""Annealed importance sampling: weights of chains that are led from a proposal to the posterior in small steps."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from vae_jax import distributions
from vae_jax.carried_draws import source_of
from vae_jax.inference.evidence.evidence_estimate import EvidenceEstimate, estimate_from_weights
from vae_jax.inference.evidence.geometric_path import GeometricPath, path_between
from vae_jax.inference.evidence.hamiltonian_chains import (
    NUM_PILOT_CHAINS,
    AnnealedChains,
    Route,
    Transitions,
    Vectors,
    annealed,
    annealed_with_pilots,
    fixed_transitions,
)
from vae_jax.inference.evidence.temperature_schedules import Schedule, Temperatures, sigmoid, temperatures_of
from vae_jax.inference.log_density import as_partial
from vae_jax.typing import Distributions, Latents, LogDensity, PRNGKey, Scalar


@dataclass(frozen=True)
class Annealing:
    """Temperatures and transitions that lead chains from a proposal to the posterior, or back.

    Args:
        num_temperatures: T, the number of temperatures with both ends. With 2 there are no transitions, as in
            importance sampling.
        schedule: `linear`, `sigmoid` or `geometric`, or a function from T to T temperatures.
        num_leapfrog_steps: number of leapfrog steps in a transition. Each takes one gradient of the log joint.
        step_size: size of a leapfrog step in unconstrained units. By default pilot chains find a step size for every
            temperature and a scale for every direction. They are thrown away, so that the weights stay unbiased.

    Raises:
        ValueError: there are fewer than 2 temperatures or no leapfrog step, the step size is not positive, or the
            schedule does not rise from 0 to 1.

    Example:
        >>> from vae_jax.inference.evidence import Annealing, linear
        >>> Annealing(num_temperatures=5, schedule=linear).temperatures.tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    num_temperatures: int = 100
    schedule: Schedule = sigmoid
    num_leapfrog_steps: int = 5
    step_size: float | None = None

    def __post_init__(self) -> None:
        temperatures_of(self.schedule, self.num_temperatures)
        if self.num_leapfrog_steps < 1:
            raise ValueError(f"num_leapfrog_steps must be at least 1, got {self.num_leapfrog_steps}: raise it")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size must be positive and finite, got {self.step_size}: change it, or leave it out")

    @property
    def temperatures(self) -> Temperatures:
        """The temperatures, from 0 to 1."""
        return temperatures_of(self.schedule, self.num_temperatures)


DEFAULT_ANNEALING = Annealing()


def annealed_importance_sampling(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_chains: int,
    *,
    annealing: Annealing = DEFAULT_ANNEALING,
) -> EvidenceEstimate:
    """Annealed importance sampling of log p(x): chains go from `q` to the posterior through densities q^(1 - t) p^t.

    Approximates: log p(x), from below on average; the mean weight itself is unbiased, whatever the number of
        temperatures and however well the chains mix. More temperatures make the weights more even.
    Needs: continuous latents; a log joint differentiable in the sample, positive wherever `q` is.

    The weights of `annealed_chains` are averaged. Arguments and errors are the same.

    Returns:
        The estimate of log p(x) (nats) from C weights, with the mean acceptance rate.

    Example:
        The integral of exp(-(z - 3)^2 / 2) is sqrt(2 pi), whose log is 0.92 nats:

        >>> import jax
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference.evidence import Annealing, annealed_importance_sampling
        >>> log_joint = lambda z: -((z - 3) ** 2) / 2
        >>> settings = Annealing(num_temperatures=20, step_size=0.3)
        >>> estimate = annealed_importance_sampling(log_joint, Normal(0, 1), jax.random.key(0), 100, annealing=settings)
        >>> bool(abs(estimate.log_evidence - 0.92) < 4 * estimate.log_evidence_se)
        True

    Reference: Neal (2001), "Annealed importance sampling"; Wu, Burda, Salakhutdinov & Grosse (2017) for decoders.
    """
    return _estimate(annealed_chains(log_joint, q, key, num_chains, annealing=annealing))


def annealed_chains(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_chains: int,
    *,
    annealing: Annealing = DEFAULT_ANNEALING,
) -> AnnealedChains:
    """Runs chains from `q` to the posterior, with the weights of `annealed_importance_sampling`.

    Each chain starts at a draw of `q`, the prior or a fit. At every temperature between the ends it makes one
    transition of Hamiltonian Monte Carlo, on latents made unconstrained by `bijection_to`. All chains run side by side
    in one compiled loop over the temperatures. Compilation is as for `prior_sampling`.

    Args:
        log_joint: maps one sample to log p(x, z) (nats, scalar), normalised in x and z.
        q: distribution that the chains start from, or a pytree of independent ones.
        key: consumed.
        num_chains: C, at least 2.
        annealing: temperatures and transitions.

    Returns:
        The log weights [C] (nats), the ends of the chains, and the acceptance rate and step size by temperature.

    Raises:
        TypeError: a leaf of `q` is not a continuous distribution.
        ValueError: there are fewer than 2 chains, or `q` has a batch shape.

    Example:
        The chains start at a normal about 0 and end at the posterior about 3:

        >>> import jax
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference.evidence import Annealing, annealed_chains
        >>> log_joint = lambda z: -((z - 3) ** 2) / 2
        >>> settings = Annealing(num_temperatures=20, step_size=0.3)
        >>> chains = annealed_chains(log_joint, Normal(0, 1), jax.random.key(0), 100, annealing=settings)
        >>> chains.log_weights.shape, chains.acceptance_rate.shape, bool(abs(chains.samples.mean() - 3) < 0.5)
        ((100,), (18,), True)
    """
    _check_num_chains(num_chains)
    return _from_proposal(
        as_partial(log_joint),
        q,
        key,
        annealing.temperatures,
        annealing.step_size,
        num_chains=num_chains,
        num_leapfrog_steps=annealing.num_leapfrog_steps,
    )


def reverse_annealing(
    log_joint: LogDensity,
    q: Distributions,
    posterior_samples: Latents,
    key: PRNGKey,
    *,
    annealing: Annealing = DEFAULT_ANNEALING,
) -> EvidenceEstimate:
    """Reverse annealing of log p(x): chains go from exact samples of the posterior back to `q`.

    Approximates: log p(x), from above on average; the mean of the inverse weights estimates 1 / p(x) without bias.
        Together with `annealed_importance_sampling` at the same settings it encloses log p(x).
    Needs: exact samples of the posterior, such as the latents that data were simulated from. Correlated samples make
        the standard error too small.

    Args:
        log_joint, q, key: as for `annealed_chains`.
        posterior_samples: with the structure of `q`, each leaf [C, ...].
        annealing: temperatures and transitions, run backwards.

    Returns:
        The estimate of log p(x) (nats) from C inverse weights, with the mean acceptance rate.

    Raises:
        TypeError, ValueError: as for `annealed_chains`.

    Example:
        The posterior of exp(-(z - 3)^2 / 2) is Normal(3, 1), and the log of its integral is 0.92 nats:

        >>> import jax
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference.evidence import Annealing, reverse_annealing
        >>> exact = Normal(3, 1).sample(jax.random.key(1), (100,))
        >>> log_joint = lambda z: -((z - 3) ** 2) / 2
        >>> settings = Annealing(num_temperatures=20, step_size=0.3)
        >>> estimate = reverse_annealing(log_joint, Normal(0, 1), exact, jax.random.key(0), annealing=settings)
        >>> bool(abs(estimate.log_evidence - 0.92) < 4 * estimate.log_evidence_se)
        True

    Reference: Grosse, Ghahramani & Adams (2015), "Sandwiching the marginal likelihood using bidirectional Monte Carlo".
    """
    _check_num_chains(len(jax.tree.leaves(posterior_samples)[0]))
    chains = _from_posterior(
        as_partial(log_joint),
        q,
        posterior_samples,
        key,
        annealing.temperatures[::-1],
        annealing.step_size,
        num_leapfrog_steps=annealing.num_leapfrog_steps,
    )
    inverse = _estimate(chains)
    return inverse._replace(log_evidence=-inverse.log_evidence)


@partial(jax.jit, static_argnames=("num_chains", "num_leapfrog_steps"))
def _from_proposal(
    log_joint: Partial,
    q: Distributions,
    key: PRNGKey,
    temperatures: Float[Array, " T"],
    step_size: Scalar | float | None,
    *,
    num_chains: int,
    num_leapfrog_steps: int,
) -> AnnealedChains:
    path = path_between(q, log_joint)
    start_key, key = jax.random.split(key)
    num_pilots = NUM_PILOT_CHAINS if step_size is None else 0
    start = _drawn(path, q, start_key, num_pilots + num_chains)
    route = Route(path, jnp.asarray(temperatures, start.dtype), key, num_leapfrog_steps)
    if step_size is None:
        return annealed_with_pilots(route, start)[0]
    return annealed(route, start, fixed_transitions(route, start, step_size))


@partial(jax.jit, static_argnames="num_leapfrog_steps")
def _from_posterior(
    log_joint: Partial,
    q: Distributions,
    samples: Latents,
    key: PRNGKey,
    temperatures: Float[Array, " T"],
    step_size: Scalar | float | None,
    *,
    num_leapfrog_steps: int,
) -> AnnealedChains:
    path = path_between(q, log_joint)
    start = jax.vmap(path.unconstrain)(samples)
    start_key, pilot_key, key = jax.random.split(key, 3)
    backwards = Route(path, jnp.asarray(temperatures, start.dtype), key, num_leapfrog_steps)
    if step_size is not None:
        return annealed(backwards, start, fixed_transitions(backwards, start, step_size))
    # The pilots go forward, from draws of their own: the chains need all samples of the posterior.
    forward = backwards._replace(temperatures=backwards.temperatures[::-1], key=pilot_key)
    _, transitions = annealed_with_pilots(forward, _drawn(path, q, start_key, NUM_PILOT_CHAINS))
    return annealed(backwards, start, Transitions(*(setting[::-1] for setting in transitions)))


def _drawn(path: GeometricPath, q: Distributions, key: PRNGKey, number: int) -> Vectors:
    return jax.vmap(path.flatten)(distributions.sample(source_of(q).base, key, number))


@jax.jit
def _estimate(chains: AnnealedChains) -> EvidenceEstimate:
    estimate = estimate_from_weights(chains.log_weights)
    if not chains.acceptance_rate.size:
        return estimate
    return estimate._replace(acceptance_rate=chains.acceptance_rate.mean())


def _check_num_chains(num_chains: int) -> None:
    if num_chains < 2:
        raise ValueError(f"num_chains must be at least 2, got {num_chains}: an error needs two")
