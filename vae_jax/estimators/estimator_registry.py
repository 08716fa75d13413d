"""Every estimator by name, with what it needs, whether it is biased, what it costs and where it is from."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.distributions import named_leaves
from vae_jax.estimators.antithetic_pairs import antithetic_pairs
from vae_jax.estimators.arm import arm, categorical_disarm, disarm
from vae_jax.estimators.baselines import leave_one_out
from vae_jax.estimators.delta_method import delta_method_pathwise, delta_method_score
from vae_jax.estimators.discrete_latents import discrete_latents, is_discrete_latent
from vae_jax.estimators.enumeration import enumeration, rao_blackwellized
from vae_jax.estimators.gumbel_softmax import gumbel_softmax, straight_through
from vae_jax.estimators.measure_valued import coupled_measure_valued, measure_valued
from vae_jax.estimators.pathwise import closed_form_entropy, inverse_cdf, pathwise, sticking_the_landing
from vae_jax.estimators.rebar import rebar, relax
from vae_jax.estimators.score_function import optimal_score, score_function
from vae_jax.estimators.sobol import randomized_sobol
from vae_jax.markdown_tables import markdown_table
from vae_jax.typing import Distributions, Estimator, Latents, Scalar


class Work(NamedTuple):
    """Sizes that the cost of an estimate depends on.

    Example:
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = {"b": dist.Bernoulli(logits=0.0), "z": dist.Normal(0.0, 1.0)}
        >>> work = vj.estimators.Work.of(q, samples=100, parameters=3)
        >>> work.outcomes, vj.estimators.REGISTRY["measure_valued"].evaluations.number(work)  # (1 + 2 * 3) * 100
        (2, 700)
    """

    samples: int
    parameters: int
    """Elements of q's parameters."""
    outcomes: int
    """Joint outcomes of the discrete latents; 1 without any."""
    first_outcomes: int
    """Outcomes of the latent that `rao_blackwellized` enumerates by itself, or of the first entry of a single one."""
    others: int
    """Latents, or entries of a single one, that are left to be sampled then."""

    @classmethod
    def of(cls, q: Distributions, samples: int, parameters: int) -> "Work":
        """The sizes of an estimate under `q`."""
        leaves = [leaf for _, leaf in named_leaves(q)]
        latents = [discrete_latents(leaf)[0] for leaf in leaves if is_discrete_latent(leaf)]
        if not latents:
            return cls(samples, parameters, 1, 1, len(leaves))
        outcomes = math.prod(latent.num_joint_outcomes for latent in latents)
        first = latents[0]
        if len(leaves) > 1:
            return cls(samples, parameters, outcomes, first.num_joint_outcomes, len(leaves) - 1)
        # Of a single latent the first entry along its first axis is enumerated apart.
        entries, apart = math.prod(first.shape), math.prod(first.shape[1:])
        return cls(samples, parameters, outcomes, first.num_outcomes**apart, entries - apart)


class Evaluations(NamedTuple):
    """Evaluations of the objective for one estimate, its derivative aside."""

    formula: str
    """In S samples, P elements of parameters and K outcomes."""
    number: Callable[[Work], int]


class RegisteredEstimator(NamedTuple):
    """An entry of the registry: an estimator, its needs, its bias, its cost and its source.

    Example:
        >>> import vae_jax as vj
        >>> entry = vj.estimators.REGISTRY["gumbel_softmax"]
        >>> entry.latents, entry.differentiable, entry.unbiased, entry.discrete
        ('Bernoulli, one-hot', True, False, 'only')
    """

    estimator: Estimator
    latents: str
    """The latents that it takes."""
    differentiable: bool
    """Whether the objective must be."""
    unbiased: bool
    evaluations: Evaluations
    source: str
    any_order: bool = True
    """Whether its derivatives of any order are estimates too. If not, a second one by q's parameters is refused."""

    @property
    def discrete(self) -> str:
        """Whether its latents may be discrete: "only", "also" or "no"."""
        return "only" if self.latents in _ONLY_DISCRETE else "also" if self.latents in _ALSO_DISCRETE else "no"


def sum_of_entries(relaxed: Latents) -> Scalar:
    """The surrogate that RELAX is registered with: the sum of the relaxed latents."""
    return jnp.stack([leaf.sum() for leaf in jax.tree.leaves(relaxed)]).sum()


_ONCE = Evaluations("S", lambda work: work.samples)
_AND_AT_LOC = Evaluations("S + 1, and D products with its Hessian", lambda work: work.samples + 1)
_TWICE = Evaluations("2 S", lambda work: 2 * work.samples)

REPARAMETERIZABLE = "reparameterizable"
WITH_DENSITY = "any with a density"
_GAUSSIAN = "Gaussian"
_RELAXABLE = "Bernoulli, one-hot"
_MEASURED = "Normal, Gamma (its rate), Exponential, Poisson, Bernoulli, categorical"
_ONLY_DISCRETE = ("discrete", "one discrete", "Bernoulli", _RELAXABLE)
_ALSO_DISCRETE = (WITH_DENSITY, _MEASURED)

REGISTRY: dict[str, RegisteredEstimator] = {
    "pathwise": RegisteredEstimator(pathwise, REPARAMETERIZABLE, True, True, _ONCE, "Kingma & Welling (2014)"),
    "sticking_the_landing": RegisteredEstimator(
        sticking_the_landing, REPARAMETERIZABLE, True, True, _ONCE, "Roeder, Wu & Duvenaud (2017)"
    ),
    "closed_form_entropy": RegisteredEstimator(
        closed_form_entropy, f"{REPARAMETERIZABLE}, with an entropy", True, True, _ONCE, "Kucukelbir et al. (2017)"
    ),
    "inverse_cdf": RegisteredEstimator(inverse_cdf, "with a quantile function", True, True, _ONCE, "Devroye (1986)"),
    "score_function": RegisteredEstimator(score_function, WITH_DENSITY, False, True, _ONCE, "Williams (1992)"),
    "score_function+leave_one_out": RegisteredEstimator(
        partial(score_function, baseline=leave_one_out), WITH_DENSITY, False, True, _ONCE, "Kool et al. (2019)"
    ),
    "score_function+optimal_score": RegisteredEstimator(
        optimal_score, WITH_DENSITY, False, True, _ONCE, "Ranganath, Gerrish & Blei (2014)"
    ),
    "score_function+delta_method": RegisteredEstimator(
        delta_method_score, _GAUSSIAN, True, True, _AND_AT_LOC, "Paisley, Blei & Jordan (2012)"
    ),
    "pathwise+delta_method": RegisteredEstimator(
        delta_method_pathwise, _GAUSSIAN, True, True, _AND_AT_LOC, "Miller, Foti, D'Amour & Adams (2017)"
    ),
    "score_function+antithetic_pairs": RegisteredEstimator(
        antithetic_pairs(score_function), "symmetric, or with a quantile function", False, True, _ONCE, "Owen (2013)"
    ),
    "pathwise+antithetic_pairs": RegisteredEstimator(
        antithetic_pairs(pathwise), "symmetric, or with a quantile function", True, True, _ONCE, "Owen (2013)"
    ),
    "score_function+sobol": RegisteredEstimator(
        randomized_sobol(score_function), "with a quantile function", False, True, _ONCE, "Buchholz et al. (2018)"
    ),
    "pathwise+sobol": RegisteredEstimator(
        randomized_sobol(pathwise), "with a quantile function", True, True, _ONCE, "Buchholz et al. (2018)"
    ),
    "measure_valued": RegisteredEstimator(
        measure_valued,
        _MEASURED,
        False,
        True,
        Evaluations("(1 + 2 P) S", lambda work: (1 + 2 * work.parameters) * work.samples),
        "Pflug (1989)",
        any_order=False,
    ),
    "coupled_measure_valued": RegisteredEstimator(
        coupled_measure_valued,
        _MEASURED,
        False,
        True,
        Evaluations("(1 + 2 P) S", lambda work: (1 + 2 * work.parameters) * work.samples),
        "Mohamed et al. (2020)",
        any_order=False,
    ),
    "enumeration": RegisteredEstimator(
        enumeration, "discrete", False, True, Evaluations("K", lambda work: work.outcomes), "the definition"
    ),
    "rao_blackwellized": RegisteredEstimator(
        rao_blackwellized,
        "one discrete",
        False,
        True,
        Evaluations("K S, K of one latent", lambda work: work.first_outcomes * (work.samples if work.others else 1)),
        "Casella & Robert (1996)",
    ),
    "gumbel_softmax": RegisteredEstimator(gumbel_softmax, _RELAXABLE, True, False, _ONCE, "Jang et al. (2017)"),
    "straight_through": RegisteredEstimator(
        straight_through, _RELAXABLE, True, False, _ONCE, "Bengio et al. (2013)", any_order=False
    ),
    "rebar": RegisteredEstimator(rebar, _RELAXABLE, True, True, _TWICE, "Tucker et al. (2017)", any_order=False),
    "relax": RegisteredEstimator(
        partial(relax, surrogate=sum_of_entries),
        _RELAXABLE,
        False,
        True,
        _ONCE,
        "Grathwohl et al. (2018)",
        any_order=False,
    ),
    "arm": RegisteredEstimator(arm, "Bernoulli", False, True, _ONCE, "Yin & Zhou (2019)", any_order=False),
    "disarm": RegisteredEstimator(
        disarm, "Bernoulli", False, True, _ONCE, "Dong, Mnih & Tucker (2020)", any_order=False
    ),
    "categorical_disarm": RegisteredEstimator(
        categorical_disarm, "discrete", False, True, _ONCE, "Dong, Mnih & Tucker (2021)", any_order=False
    ),
}
"""The estimators by the names that commands and tables use: a baseline or a control variate stands after a plus."""

ESTIMATORS: dict[str, Estimator] = {name: registered.estimator for name, registered in REGISTRY.items()}


def estimator_named(name: str) -> Estimator:
    """Returns the estimator that the registry has under a name.

    Raises:
        ValueError: no estimator has it.

    Example:
        >>> import vae_jax as vj
        >>> vj.estimators.estimator_named("sticking_the_landing") is vj.sticking_the_landing
        True
        >>> vj.estimators.estimator_named("reinforce")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: estimator must be one of pathwise, ... got reinforce: use one of these
    """
    if name not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, got {name}: use one of these")
    return ESTIMATORS[name]


def estimator_table() -> str:
    """Returns the registry of estimators as a Markdown table, as docs/estimators.md shows it.

    Example:
        >>> import vae_jax as vj
        >>> header, _, first, *_ = vj.estimators.estimator_table().splitlines()
        >>> header.split("|")[1].strip(), first.split("|")[1].strip()
        ('estimator', '`pathwise`')
    """
    needs = ("estimator", "latents", "discrete", "differentiable objective")
    header = (*needs, "unbiased", "derivatives", "evaluations", "source")
    rows = [
        (
            f"`{name}`",
            entry.latents,
            entry.discrete,
            "needed" if entry.differentiable else "-",
            "yes" if entry.unbiased else "no",
            "any order" if entry.any_order else "first",
            entry.evaluations.formula,
            entry.source,
        )
        for name, entry in REGISTRY.items()
    ]
    return markdown_table(header, rows)
