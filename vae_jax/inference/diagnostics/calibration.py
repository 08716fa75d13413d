"""Simulation-based calibration: whether an inference finds parameters that were drawn from the prior."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

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
"""The fewest replicates that the tests' distributions are known for."""


class Ranks(NamedTuple):
    """The place of the truth among the draws, for P numbers of each of R replicates."""

    num_below: Int[ArrayLike, "*R P"]
    num_equal: Int[ArrayLike, "*R P"]
    is_known: Bool[ArrayLike, "*R P"]
    tie_break: Float[ArrayLike, "*R P"]
    """Uniform."""


ReplicateMap: TypeAlias = Callable[[Callable[[PRNGKey], Ranks], Any], Ranks]
"""Maps the function from a key to the ranks of one replicate, and R keys, to the ranks of all replicates."""


def all_at_once(ranks: Callable[[PRNGKey], Ranks], keys: Any, *, batch_size: int | None = None) -> Ranks:
    """Computes the replicates of `calibration` in one compiled program.

    The program is kept: the same functions and sizes do not compile again. So the functions must be pure, as for
    `jax.jit`.

    Args:
        ranks: maps a key to the ranks of one replicate.
        keys: keys of the replicates [R].
        batch_size: number of replicates that are vmapped at once, by default R. A smaller number saves memory.

    Returns:
        The ranks of all replicates, with a leading axis [R].

    Raises:
        ValueError: the batch is empty.

    Example:
        Forty replicates, of which twenty at a time are in memory:

        >>> from functools import partial
        >>> import jax
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference import calibration
        >>> from vae_jax.inference.diagnostics import all_at_once
        >>> model = (lambda key: Normal(0, 1).sample(key), lambda z, key: Normal(z, 1).sample(key))
        >>> infer = lambda x, key: Normal(x / 2, 0.5**0.5)
        >>> a_few = partial(all_at_once, batch_size=20)
        >>> calibration(*model, infer, jax.random.key(0), num_replicates=40, over_replicates=a_few).probabilities.shape
        (40, 1)
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}: raise it")
    return _mapped(ranks, keys, batch_size)


@partial(jax.jit, static_argnums=(0, 2))
def _mapped(ranks: Callable[[PRNGKey], Ranks], keys: Any, batch_size: int | None) -> Ranks:
    if batch_size is None:
        return jax.vmap(ranks)(keys)
    return lax.map(ranks, keys, batch_size=batch_size)


def one_by_one(ranks: Callable[[PRNGKey], Ranks], keys: Any) -> Ranks:
    """Computes the replicates of `calibration` in a Python loop, for an inference that cannot be traced.

    `laplace`, `fit` and NumPyro's `MCMC` cannot: they check values and compile for themselves. They compile once, not
    in every replicate, if they get the data as an argument of a `jax.tree_util.Partial`.

    Args:
        ranks: maps a key to the ranks of one replicate.
        keys: keys of the replicates [R].

    Returns:
        The ranks of all replicates, with a leading axis [R].

    Example:
        The inference may look at values of the data, and branch on them:

        >>> import jax
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference import calibration
        >>> from vae_jax.inference.diagnostics import one_by_one
        >>> prior = lambda key: Normal(0, 1).sample(key)
        >>> data = lambda z, key: Normal(z, 1).sample(key)
        >>> infer = lambda x, key: Normal(0.5 if x > 0 else -0.5, 1.0)
        >>> key, sizes = jax.random.key(0), {"num_replicates": 20, "num_draws": 9}
        >>> calibration(prior, data, infer, key, over_replicates=one_by_one, **sizes).probabilities.shape
        (20, 1)
    """
    each = [jax.device_get(ranks(key)) for key in keys]
    return jax.tree.map(lambda *fields: np.stack(fields), *each)


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
    over_replicates: ReplicateMap = all_at_once,
) -> Calibration:
    """Judges an inference by its posteriors for data simulated from known parameters.

    Every replicate draws parameters from the prior, data given the parameters, and a posterior given the data. It notes
    the probability p that the posterior gives to values below the true one. For exact posteriors p is uniform. Two
    tests look for deviations:

    - Symmetry of p about one half. Asymmetry is a bias: p is mostly large where posteriors are too low. This is
      variational simulation-based calibration. It accepts posteriors that are only too narrow or too wide, as
      mean-field ones are known to be.
    - Uniformity of p, which is simulation-based calibration. It finds too narrow and too wide posteriors as well: p
      piles up at both ends where posteriors are too narrow.

    The p-values, two for each parameter, are corrected by Holm's method. Both tests average over the prior. A bias
    whose sign depends on the data shows as posteriors that are too narrow. A posterior that ignores the data, such as
    the prior, has uniform p; `quantities` such as the log likelihood reveal it.

    Args:
        simulate_prior: maps a key to latents, a pytree of arrays.
        simulate_data: maps latents and a key to data, a pytree of arrays.
        infer: maps data and a key to a posterior over latents. It is traced and vmapped, except by `one_by_one`.
        key: consumed.
        num_replicates: R, at least 20.
        num_draws: S, the number of draws of each posterior; p is known to one part in S + 1. Ties, as between discrete
            latents, are broken at random, so that p is uniform for any S.
        draw: maps a posterior, a key and S to draws of the latents, each leaf [S, ...]. The default takes a
            distribution or a pytree of independent ones.
        quantities: maps latents and data to the pytree of numbers that are judged, by default the latents.
        level: probability of finding any fault if there is none.
        over_replicates: how the replicates are computed: `all_at_once`, `one_by_one` for an inference that cannot be
            traced, or `partial(all_at_once, batch_size=100)` to save memory.

    Returns:
        The probabilities p [R, P] and a verdict on each of the P numbers.

    Raises:
        TypeError: the draws differ from the prior's in structure, or a posterior is not a distribution.
        ValueError: an argument is out of range, or the draws differ from the prior's in shape.

    Example:
        The posterior of an observation x of Normal(z, 1) under the prior Normal(0, 1) is Normal(x / 2, sqrt(1/2)). An
        inference that reports a third of that standard deviation is found out:

        >>> import jax
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference import calibration
        >>> prior = lambda key: Normal(0, 1).sample(key)
        >>> data = lambda z, key: Normal(z, 1).sample(key)
        >>> for std in (0.5**0.5, 0.5**0.5 / 3):
        ...     infer = lambda x, key: Normal(x / 2, std)
        ...     result = calibration(prior, data, infer, jax.random.key(0), num_replicates=200, num_draws=100)
        ...     print(result.is_calibrated, result.parameters[0].verdict)
        True no fault found
        False too narrow

    Reference: Yao, Vehtari, Simpson & Gelman (2018), "Yes, but did it work?: Evaluating variational inference",
    algorithm 2; Talts, Betancourt, Simpson, Vehtari & Gelman (2018), "Validating Bayesian inference algorithms with
    simulation-based calibration"; Modrak, Moon, Kim, Burkner, Huurre, Faltejskova, Gelman & Vehtari (2023) for the
    quantities.
    """
    _check_sizes(num_replicates, num_draws, level)
    model = _Model(simulate_prior, simulate_data, infer, draw, quantities, num_draws)
    names = _names(model, key)
    ranks = over_replicates(model, jax.random.split(key, num_replicates))
    return judge(names, _probabilities(ranks, num_draws), level)


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

    def __call__(self, key: PRNGKey) -> Ranks:
        """The ranks of one replicate. Equal models share compiled programs, as their methods would not."""
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
        return Ranks(counts(jnp.less), counts(jnp.equal), num_unknown == 0, tie_break)


def _probabilities(ranks: Ranks, num_draws: int) -> Float[np.ndarray, "R P"]:
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
