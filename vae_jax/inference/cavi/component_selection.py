"""The number of components of a mixture, chosen by the bounds.

**The criterion.** The bound of one optimum is compared after log K! is added to it: each of the K! orders of the labels
is an optimum of its own, and the equal mixture of all of them is a better q, whose bound is higher by log K! where they
do not overlap. Where only some components have the same prior weight, only those may change places. Empty components
are all at their prior, and changing their places leads to the same q: with E of them there are K! / E! orders. Without
that the empty ones would each gain more by log K! than they cost.

**What it can tell.** The bound weighs fit against the priors, so that components that explain nothing lower it. It
chooses among the mixtures that it is given: where no mixture of the family fits, as with clusters that are not round or
counts that vary more than a Poisson's, more components approximate the truth ever better and the bound rises for long.
The number then counts the pieces of an approximation, not clusters.

**One program.** All mixtures are padded with absent components to the largest, so that the ascent is compiled once.

Reference: Bishop (2006), section 10.2.4.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from vae_jax.inference.cavi.coordinate_ascent import Ascent, ascend
from vae_jax.inference.cavi.fitted_components import EMPTY_BELOW, component_sizes
from vae_jax.inference.cavi.mixture_weights import MixtureWeights, padded
from vae_jax.typing import PRNGKey

AT_BEST = 0.1
"""Restarts that end this close to the best (nats) count as having reached it. Optima differ by more."""


class Candidate(NamedTuple):
    """A mixture with one number of components, and its best restart."""

    num_components: int
    """K."""
    model: Any
    ascent: Ascent
    log_symmetries: float
    """The log of the number of optima that differ in the order of the labels only, see `log_num_symmetries`."""
    num_empty: int
    """The number of components without events."""

    @property
    def elbo(self) -> float:
        """The best bound (nats)."""
        return float(self.ascent.elbo)

    @property
    def score(self) -> float:
        """The bound plus the symmetry of its labels (nats), by which numbers of components are compared."""
        return self.elbo + self.log_symmetries

    @property
    def rounding(self) -> float:
        """Nats up to which bounds of this size may differ by rounding."""
        return 32 * float(np.finfo(np.asarray(self.ascent.elbo).dtype).eps) * abs(self.elbo)

    @property
    def elbo_history(self) -> Float[np.ndarray, " T"]:
        """The bound after each sweep of the best restart."""
        return np.asarray(self.ascent.elbo_history)[: int(self.ascent.num_steps)]

    @property
    def num_at_best(self) -> int:
        """The number of restarts that ended at the best bound, up to `AT_BEST` and rounding."""
        ends = np.asarray(self.ascent.restart_elbos)
        return int((ends >= self.elbo - AT_BEST - self.rounding).sum())


class Selection(NamedTuple):
    """Result of `choose_num_components`: mixtures with several numbers of components."""

    candidates: tuple[Candidate, ...]
    """The mixtures in rising order of their number of components."""

    @property
    def best(self) -> Candidate:
        """The mixture with the highest score."""
        return max(self.candidates, key=lambda each: -math.inf if math.isnan(each.score) else each.score)

    @property
    def ends_at_best(self) -> bool:
        """Whether the best of several numbers is the largest: a larger one may be better still."""
        return len(self.candidates) > 1 and self.best is self.candidates[-1]


def choose_num_components(
    build: Callable[[Any, int], Any],
    data: Any,
    num_components: Sequence[int],
    key: PRNGKey,
    *,
    num_restarts: int = 100,
    max_steps: int = 1000,
    tolerance: float = 1e-8,
    on_candidate: Callable[[Candidate], None] | None = None,
) -> Selection:
    """Fits a mixture with each number of components, and scores the numbers by their best bounds.

    The score is the bound plus the log of the number of equivalent orders of the labels, see `log_num_symmetries`. The
    result for a number does not depend on the others.

    Args:
        build: maps data and a number of components to a mixture with `weights`, as `gaussian_poisson_mixture` does.
        data: data that the mixtures are fitted to.
        num_components: the numbers of components to fit, in any order.
        key: consumed; each number has its own key.
        num_restarts: number of starts for each number of components.
        max_steps: largest number of sweeps of a start.
        tolerance: relative rise of the bound at which a start stops, see `ascend`.
        on_candidate: called with each mixture once it is fitted.

    Returns:
        The fitted mixtures, with the best among them.

    Raises:
        ValueError: there is no number, a number occurs twice, or `build` rejects one. Nothing has been fitted then.

    Example:
        Two clusters, far apart, are found among one to three:

        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.inference.cavi import choose_num_components, gaussian_poisson_mixture, located_counts
        >>> places = np.repeat([[0.0, 0.0], [10.0, 10.0]], 20, axis=0)
        >>> data = located_counts(places + np.random.default_rng(0).normal(size=(40, 2)), [5] * 40)
        >>> found = choose_num_components(gaussian_poisson_mixture, data, [1, 2, 3], jax.random.key(0), num_restarts=3)
        >>> found.best.num_components, found.ends_at_best
        (2, False)
    """
    numbers = sorted(num_components)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"num_components must be different numbers, got {list(num_components)}: name each once")
    # The largest first, for it is the one to be refused.
    models = {number: build(data, number) for number in reversed(numbers)}
    candidates = []
    for number in numbers:
        model = models[number]
        ascent = ascend(
            model._replace(weights=padded(model.weights, numbers[-1])),
            data,
            jax.random.fold_in(key, number),
            num_restarts=num_restarts,
            max_steps=max_steps,
            tolerance=tolerance,
        )
        ascent = ascent._replace(state=jax.tree.map(lambda leaf, size=number: leaf[:size], ascent.state))
        is_empty = component_sizes(model, ascent.state) < EMPTY_BELOW
        symmetries = log_num_symmetries(model.weights, is_empty)
        candidates.append(Candidate(number, model, ascent, symmetries, int(is_empty.sum())))
        if on_candidate is not None:
            on_candidate(candidates[-1])
    return Selection(tuple(candidates))


def log_num_symmetries(weights: MixtureWeights, is_empty: Bool[np.ndarray, " K"]) -> float:
    """Log of the number of orders of the components that the prior cannot tell apart and q can.

    It is log K! where all components have the same prior weight and at most one is empty.

    Args:
        weights: the prior of the components' probabilities.
        is_empty: whether each component is empty [K].

    Returns:
        The logarithm (nats).

    Example:
        Four alike components have 4! orders; where two of them are empty, 4! / 2! lead to different q:

        >>> import math
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from vae_jax.inference.cavi import DirichletWeights, log_num_symmetries
        >>> is_empty = np.array([False, False, True, True])
        >>> round(math.exp(log_num_symmetries(DirichletWeights(jnp.ones(4)), is_empty)))
        12
    """
    total = 0.0
    prior = np.asarray(weights.by_component)
    for weight in np.unique(prior):
        alike = prior == weight
        total += math.lgamma(alike.sum() + 1) - math.lgamma((alike & is_empty).sum() + 1)
    return total
