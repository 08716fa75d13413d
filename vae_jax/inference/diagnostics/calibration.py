"""Simulation-based calibration: whether an inference finds parameters that were drawn from the prior."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from vae_jax import distributions
from vae_jax.inference.diagnostics.calibration_verdicts import Calibration, judge
from vae_jax.inference.diagnostics.scalar_names import scalar_names
from vae_jax.typing import Latents, PRNGKey

FEWEST_REPLICATES = 20
"""That the tests' distributions are known for."""


def calibration(
    simulate_prior: Callable[[PRNGKey], Latents],
    simulate_data: Callable[[Latents, PRNGKey], Any],
    infer: Callable[[Any, PRNGKey], Any],
    key: PRNGKey,
    *,
    num_replicates: int,
    num_draws: int = 1000,
    draw: Callable[[Any, PRNGKey, int], Latents] = distributions.sample,
    quantities: Callable[[Latents, Any], Any] = lambda latents, _: latents,
    level: float = 0.05,
    batch_size: int | None = None,
) -> Calibration:
    """Judges an inference by its posteriors of data that were simulated from known parameters.

    Every replicate draws parameters from the prior, data given them, and a posterior given the data, and notes the
    probability p that the posterior gives to values below the true one. Over exact posteriors p is uniform. Two tests
    look for less:

    - Asymmetry of p about one half is a bias: p is mostly large where posteriors are too low. This is variational
      simulation-based calibration. It forgives posteriors that are merely too narrow or too wide, as mean-field ones
      are known to be.
    - p that is not uniform, simulation-based calibration proper, tells of these as well: p piles up at both ends where
      posteriors are too narrow.

    Their p-values, two for each parameter, are corrected by Holm's method. Both tests are about averages over the
    prior: a bias that changes its sign from data to data shows as posteriors that are too narrow, and a posterior that
    ignores the data, such as the prior itself, has uniform p. `quantities` such as the log likelihood see that one.

    All replicates are one compiled program, which is kept: another call with the same functions and sizes does not
    compile again. The functions must therefore be pure, as for `jax.jit`.

    Args:
        simulate_prior: key to latents, a pytree of arrays.
        simulate_data: latents and key to data, a pytree of arrays.
        infer: data and key to a posterior over latents. It is traced and vmapped: `calibration_one_by_one` takes one
            that cannot be.
        key: consumed.
        num_replicates: R, at least 20.
        num_draws: S, of each posterior: p is known to one part in S + 1. Ties, which discrete latents and the gaps
            between draws make, are broken at random, so that p is uniform for any S.
        draw: posterior, key and S to its latents, each leaf [S, ...]. The default takes a distribution or a pytree of
            independent ones.
        quantities: latents and data to the pytree of numbers that are judged, by default the latents.
        level: of the verdicts.
        batch_size: how many replicates are vmapped at once, by default all of them: a smaller number saves memory.

    Raises:
        TypeError: the draws differ from the prior's in structure, or a posterior is no distribution.
        ValueError: an argument is out of range, or the draws differ from the prior's in shape.

    Reference: Yao, Vehtari, Simpson & Gelman (2018), "Yes, but did it work?: Evaluating variational inference",
    algorithm 2; Talts, Betancourt, Simpson, Vehtari & Gelman (2018), "Validating Bayesian inference algorithms with
    simulation-based calibration"; Modrak, Moon, Kim, Burkner, Huurre, Faltejskova, Gelman & Vehtari (2023) for the
    quantities.
    """
    _check_sizes(num_replicates, num_draws, level)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}: raise it")
    model = _Model(simulate_prior, simulate_data, infer, draw, quantities, num_draws)
    names = _names(model, key)
    ranks = _all_ranks(model, jax.random.split(key, num_replicates), batch_size)
    return judge(names, _probabilities(ranks, num_draws), level)


def calibration_one_by_one(
    simulate_prior: Callable[[PRNGKey], Latents],
    simulate_data: Callable[[Latents, PRNGKey], Any],
    infer: Callable[[Any, PRNGKey], Any],
    key: PRNGKey,
    *,
    num_replicates: int,
    num_draws: int = 1000,
    draw: Callable[[Any, PRNGKey, int], Latents] = distributions.sample,
    quantities: Callable[[Latents, Any], Any] = lambda latents, _: latents,
    level: float = 0.05,
) -> Calibration:
    """As `calibration`, in a loop over replicates, for an inference that cannot be traced.

    Such are `laplace`, `fit` and Markov chains by NumPyro's `MCMC`, which check values and compile for themselves.
    They compile once, not in every replicate, if they get the data as an argument of a `jax.tree_util.Partial`.

    Args:
        simulate_prior, simulate_data, key, num_replicates, num_draws, draw, quantities, level: as for `calibration`.
        infer: data and key to a posterior over latents. It sees arrays with values.

    Raises:
        TypeError, ValueError: as `calibration`.
    """
    _check_sizes(num_replicates, num_draws, level)
    model = _Model(simulate_prior, simulate_data, infer, draw, quantities, num_draws)
    names = _names(model, key)
    each = [jax.device_get(model.ranks(one)) for one in jax.random.split(key, num_replicates)]
    return judge(names, _probabilities(jax.tree.map(lambda *fields: np.stack(fields), *each), num_draws), level)


class _Ranks(NamedTuple):
    """Where the truth lies among the draws."""

    num_below: Int[ArrayLike, "*R P"]
    num_equal: Int[ArrayLike, "*R P"]
    is_known: Bool[ArrayLike, "*R P"]
    tie_break: Float[ArrayLike, "*R P"]
    """Uniform."""


class _Model(NamedTuple):
    """All that is compiled."""

    simulate_prior: Callable[..., Any]
    simulate_data: Callable[..., Any]
    infer: Callable[..., Any]
    draw: Callable[..., Any]
    quantities: Callable[..., Any]
    num_draws: int

    def quantities_of_truth(self, key: PRNGKey) -> Any:
        latents_key, data_key = jax.random.split(key)
        latents = self.simulate_prior(latents_key)
        return self.quantities(latents, self.simulate_data(latents, data_key))

    def ranks(self, key: PRNGKey) -> _Ranks:
        """Of one replicate."""
        latents_key, data_key, infer_key, draw_key, tie_key = jax.random.split(key, 5)
        truth = self.simulate_prior(latents_key)
        data = self.simulate_data(truth, data_key)
        draws = self.draw(self.infer(data, infer_key), draw_key, self.num_draws)
        _check_draws(draws, truth, self.num_draws)
        judged = jax.tree.leaves(self.quantities(truth, data))
        sampled = jax.tree.leaves(jax.vmap(lambda latents: self.quantities(latents, data))(draws))
        pairs = [(jnp.asarray(true)[None], drawn) for true, drawn in zip(judged, sampled, strict=True)]

        def counts(compare: Callable[[Any, Any], Array]) -> Array:
            return jnp.concatenate([compare(drawn, true).sum(axis=0).ravel() for true, drawn in pairs])

        num_unknown = counts(lambda drawn, true: jnp.isnan(drawn) | jnp.isnan(true))
        tie_break = jax.random.uniform(tie_key, num_unknown.shape, jnp.float32)
        return _Ranks(counts(jnp.less), counts(jnp.equal), num_unknown == 0, tie_break)


@partial(jax.jit, static_argnums=(0, 2))
def _all_ranks(model: _Model, keys: Any, batch_size: int | None) -> _Ranks:
    if batch_size is None:
        return jax.vmap(model.ranks)(keys)
    return lax.map(model.ranks, keys, batch_size=batch_size)


def _probabilities(ranks: _Ranks, num_draws: int) -> Float[np.ndarray, "R P"]:
    """Uniform within the gap between draws that the truth lies in, and never zero or one."""
    tie_break = np.asarray(ranks.tie_break, float) + np.finfo(np.float32).eps / 4
    above = (np.asarray(ranks.num_equal) + 1) * tie_break
    return np.where(ranks.is_known, (np.asarray(ranks.num_below) + above) / (num_draws + 1), np.nan)


def _names(model: _Model, key: PRNGKey) -> tuple[str, ...]:
    names = scalar_names(jax.eval_shape(model.quantities_of_truth, key))
    if not names:
        raise ValueError("latents must hold at least one number, got none: let simulate_prior return what is inferred")
    return names


def _check_sizes(num_replicates: int, num_draws: int, level: float) -> None:
    if num_replicates < FEWEST_REPLICATES:
        raise ValueError(f"num_replicates must be at least {FEWEST_REPLICATES}, got {num_replicates}: raise it")
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}: raise it")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}: 0.05 is usual")


def _check_draws(draws: Latents, truth: Latents, num_draws: int) -> None:
    """Refuses draws that are of other latents."""
    expected, given = jax.tree.structure(truth), jax.tree.structure(draws)
    if expected != given:
        raise TypeError(
            f"infer must return a posterior of {expected}, as simulate_prior draws, got {given}: match the two"
        )
    true_shapes, drawn_shapes = ([jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (truth, draws))
    for name, true_shape, shape in zip(_leaf_names(truth), true_shapes, drawn_shapes, strict=True):
        if shape != (num_draws, *true_shape):
            raise ValueError(
                f"{num_draws} draws of the posterior's {name} must have the shape {(num_draws, *true_shape)}, got "
                f"{shape}: match simulate_prior and infer"
            )


def _leaf_names(tree: Any) -> tuple[str, ...]:
    return scalar_names(jax.tree.map(lambda _: 0.0, tree))
