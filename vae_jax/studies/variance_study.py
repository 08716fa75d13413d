"""How the gradient estimators of a problem fare at several numbers of samples, beside the exact answers."""

import math
import statistics as stats
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from vae_jax.estimators import ESTIMATORS, REGISTRY, Work, in_blocks
from vae_jax.problems import ExactMoments, Problem
from vae_jax.replicates import check_replicates, stack_replicates
from vae_jax.runtime import wide_vectors
from vae_jax.statistics import Statistics, summarize
from vae_jax.typing import PRNGKey

ROUND_ELEMENTS = 2**27
"""Draws of one latent between two reports of progress, at most."""

LEAST_ROUNDS = 10

MAX_STUDY_BYTES = 2**32
"""Of replicates that a study may keep."""

BLOCK_SIZE = 10_000
"""Samples of a block where there are too many for a cache."""

RELIABLE_STD_ERROR = 0.1
"""Relative standard error of a standard deviation from which on it is called unreliable."""

ROUNDING = 16
"""Units in the last place of a mean that a standard deviation may be by rounding alone."""

BELIEVABLE_STD_ERROR = 0.5
"""Share of the exact standard error of a standard deviation below which a measured one is not believed."""


@dataclass(frozen=True)
class VarianceRow:
    """One parameter's gradient (or the value) under one estimator at one number of samples."""

    problem: str
    estimator: str
    parameter: str
    num_samples: int
    num_replicates: int
    num_nonfinite: int
    mean: float
    mean_se: float
    std: float
    std_se: float
    exact_mean: float | None
    exact_mean_status: str
    exact_std: float | None
    exact_std_status: str
    exact_std_se: float | None
    """The standard error that std really has, where it is known."""
    z_score: float | None
    """(mean - exact_mean) / mean_se."""
    tail_index: float
    reliable: bool
    """The exact moments are finite or unknown, no replicate is NaN or infinite, and the standard error of std is small
    and believable: it and the exact one are under a tenth of std, and it is at least half of the exact one."""
    num_evaluations: int
    """Of the objective for one estimate."""
    seconds: float
    """Of the pass that made this row, compilation aside. One pass makes all rows of an estimator."""
    seconds_per_estimate: float
    """The row's share of that pass, by its evaluations, for one estimate of all parameters. An indication: passes are
    not interleaved, and what does not grow with the evaluations is shared out with the rest."""
    variance_seconds: float
    """std^2 times seconds_per_estimate: what a given error of an average of estimates costs."""


@dataclass(frozen=True)
class VarianceStudy:
    """Rows, and the replicates that they summarize."""

    rows: list[VarianceRow]
    replicates: Float[np.ndarray, "R E N P"]
    """num_replicates x estimators x numbers of samples x parameters."""
    estimators: tuple[str, ...]
    num_samples: tuple[int, ...]
    parameters: tuple[str, ...]
    """The problem's name for the value, then those of q's parameters, a vector's by element."""

    @property
    def values_are_shared(self) -> bool:
        """Whether every estimator gave the same values, up to rounding."""
        values = self.replicates[..., 0]
        return bool(np.allclose(values, values[:, :1], rtol=1e-4, equal_nan=True))

    def row(self, estimator: str, parameter: str, num_samples: int) -> VarianceRow:
        """The row of one cell."""
        wanted = (estimator, parameter, num_samples)
        return next(row for row in self.rows if (row.estimator, row.parameter, row.num_samples) == wanted)

    def replicates_of(self, estimator: str, parameter: str, num_samples: int) -> Float[np.ndarray, " R"]:
        """The replicates of one cell."""
        cell = (
            self.estimators.index(estimator),
            self.num_samples.index(num_samples),
            self.parameters.index(parameter),
        )
        return self.replicates[:, *cell]


def study_variance(
    problem: Problem,
    params: Mapping[str, Any],
    key: PRNGKey,
    num_replicates: int,
    *,
    estimators: Sequence[str],
    num_samples: Sequence[int],
    mesh: Mesh | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> VarianceStudy:
    """Measures every estimator's value and gradient at every number of samples, in one compiled program each.

    In replicate r every estimator draws from the same key at every number of samples, and within an estimator the
    compiler shares the draws. So the rows are correlated: a smaller number's samples are the first of a larger one's.
    Large numbers of samples are averaged in blocks of 10,000, which draw their own; what couples an estimator's samples
    couples those of a block.

    Args:
        problem: the target, with its exact moments.
        params: the parameters of q at which gradients are taken.
        key: consumed.
        num_replicates: R, at least 2.
        estimators: names in `vae_jax.estimators.ESTIMATORS`.
        num_samples: the numbers of samples.
        mesh: the devices that replicates are sharded over, by default the current one alone.
        on_progress: told the share of the replicates that are done.

    Raises:
        ValueError: no or unknown estimators, fewer than 2 replicates, a number of samples that is not positive or that
            an estimator refuses, parameters that the problem refuses, or an estimator that the problem has no use for.
    """
    check_study(problem, params, num_replicates, estimators, num_samples)
    axes = (tuple(dict.fromkeys(estimators)), tuple(sorted(set(num_samples))), parameter_names(problem, params))
    arrays = _arrays(params)
    parts: list[Float[np.ndarray, "R N P"]] = []
    seconds = []
    for number, name in enumerate(axes[0]):

        def on_share(share: float, number: int = number) -> None:
            on_progress((number + share) / len(axes[0]))

        part, duration = _pass(problem, name, axes[1], num_replicates, mesh, arrays, key, on_share)
        parts.append(part)
        seconds.append(duration)
    replicates = np.stack(parts, axis=1)
    rows = list(_rows(problem, params, *axes, jax.jit(summarize)(replicates), seconds))
    return VarianceStudy(rows, replicates, *axes)


def parameter_names(problem: Problem, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The problem's name for the value, then those of the parameters: "loc", or "logits[0]" of a vector."""
    return (problem.value_name, *(name for key, value in params.items() for name in _element_names(key, value)))


def _element_names(name: str, value: Any) -> list[str]:
    shape = np.shape(value)
    return [f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(shape)] if shape else [name]


def _arrays(params: Mapping[str, Any]) -> dict[str, Array]:
    return {name: jnp.asarray(value, jnp.result_type(float)) for name, value in params.items()}


def _pass(
    problem: Problem,
    estimator: str,
    num_samples: Sequence[int],
    num_replicates: int,
    mesh: Mesh | None,
    params: Mapping[str, Array],
    key: PRNGKey,
    on_progress: Callable[[float], None],
) -> tuple[Float[np.ndarray, "R N P"], float]:
    """The replicates of one estimator, and the seconds that they took."""
    least_rounds = max(LEAST_ROUNDS, math.ceil(num_replicates * max(num_samples) / ROUND_ELEMENTS))
    round_size = math.ceil(num_replicates / least_rounds)
    rounds = math.ceil(num_replicates / round_size)
    program = jax.jit(
        partial(_round, problem, estimator, num_samples, round_size, mesh, tuple(params)),
        compiler_options=wide_vectors(),
    )
    compiled = program.lower(params, key, 0).compile()
    parts, durations = [], []
    for number in range(rounds):
        started = time.perf_counter()
        parts.append(np.asarray(compiled(params, key, number * round_size)))
        durations.append(time.perf_counter() - started)
        on_progress((number + 1) / rounds)
    # The median of the rounds is not moved by what else the machine did.
    seconds = stats.median(durations) * num_replicates / round_size
    return np.concatenate(parts)[:num_replicates], seconds


def _round(
    problem: Problem,
    estimator: str,
    num_samples: Sequence[int],
    num_replicates: int,
    mesh: Mesh | None,
    names: Sequence[str],
    params: Mapping[str, Array],
    key: PRNGKey,
    first: int | Int[Array, ""],
) -> Float[Array, "r N P"]:
    """Values and gradients, in the order of `names`, of `num_replicates` replicates from number `first` on."""

    def cell(key: PRNGKey, size: int) -> Float[Array, " P"]:
        value, gradient = jax.value_and_grad(_loss(problem, estimator, size))(params, key)
        return jnp.concatenate([value[None], *(gradient[name].reshape(-1) for name in names)])

    def draw(key: PRNGKey) -> Float[Array, "N P"]:
        return jnp.stack([cell(key, size) for size in num_samples])

    return stack_replicates(draw, key, num_replicates, first=first, mesh=mesh)


def _loss(problem: Problem, estimator: str, num_samples: int) -> Callable[..., Any]:
    blocked = num_samples > 10 * BLOCK_SIZE and num_samples % BLOCK_SIZE == 0
    chosen = in_blocks(ESTIMATORS[estimator], BLOCK_SIZE) if blocked else ESTIMATORS[estimator]
    return partial(problem.estimate, num_samples=num_samples, estimator=chosen)


def refusal(problem: Problem, params: Mapping[str, Any], estimator: str, num_samples: int) -> str | None:
    """Why a problem's gradient cannot be had by an estimator at a number of samples; None if it can."""
    loss = jax.value_and_grad(_loss(problem, estimator, num_samples))
    try:
        jax.eval_shape(loss, _arrays(params), jax.random.key(0))
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def admitted(problem: Problem, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The estimators that the problem's gradient can be had by."""
    return tuple(name for name in ESTIMATORS if refusal(problem, params, name, 4) is None)


def work_of(problem: Problem, params: Mapping[str, Any], num_samples: int) -> Work:
    """What the cost of one estimate of the problem's gradient depends on."""
    num_parameters = sum(np.size(value) for value in params.values())
    return Work.of(problem.q(_arrays(params)), num_samples, num_parameters)


def _rows(
    problem: Problem,
    params: Mapping[str, Any],
    estimators: Sequence[str],
    num_samples: Sequence[int],
    parameters: Sequence[str],
    statistics: Statistics,
    seconds: Sequence[float],
) -> Iterator[VarianceRow]:
    num_replicates = int(statistics.num_replicates)
    fields = ("num_nonfinite", "mean", "mean_se", "std", "std_se", "tail_index")
    table = {field: np.asarray(getattr(statistics, field), float) for field in fields}
    for i, estimator in enumerate(estimators):
        exact = problem.exact(params, estimator)
        count = REGISTRY[estimator].evaluations.number
        by_size = {size: count(work_of(problem, params, size)) for size in num_samples}
        for k, parameter in enumerate(parameters):
            for j, size in enumerate(num_samples):
                measured = {field: float(values[i, j, k]) for field, values in table.items()}
                moments = exact(size)[parameter]
                exact_std_se = moments.std_se(num_replicates)
                evaluations = by_size[size]
                each = seconds[i] / num_replicates * evaluations / sum(by_size.values())
                yield VarianceRow(
                    problem=problem.name,
                    estimator=estimator,
                    parameter=parameter,
                    num_samples=size,
                    num_replicates=num_replicates,
                    num_nonfinite=int(measured.pop("num_nonfinite")),
                    exact_mean=moments.mean.value,
                    exact_mean_status=moments.mean.status,
                    exact_std=moments.std.value,
                    exact_std_status=moments.std.status,
                    exact_std_se=exact_std_se,
                    z_score=_z_score(measured["mean"], measured["mean_se"], moments),
                    reliable=_reliable(measured["std"], measured["std_se"], exact_std_se, moments),
                    num_evaluations=evaluations,
                    seconds=seconds[i],
                    seconds_per_estimate=each,
                    variance_seconds=measured["std"] ** 2 * each,
                    **measured,
                )


def _z_score(mean: float, mean_se: float, exact: ExactMoments) -> float | None:
    # What has no variance has an error by rounding alone, whose size its replicates do not tell.
    if exact.mean.value is None or mean_se == 0 or exact.std.value == 0:
        return None
    return (mean - exact.mean.value) / mean_se


def is_rounding(row: VarianceRow) -> bool:
    """Whether all the variance that was measured comes from the arithmetic."""
    unit = ROUNDING * float(jnp.finfo(jnp.result_type(float)).eps)
    return row.std <= unit * max(abs(row.mean), 1.0) and (row.exact_std is None or row.exact_std <= unit)


def _reliable(std: float, std_se: float, exact_std_se: float | None, exact: ExactMoments) -> bool:
    # Every comparison with NaN is false, so that a replicate that is not finite makes the row unreliable.
    if exact.std.value == 0:
        return True
    known = std_se if exact_std_se is None else exact_std_se
    believable = std_se >= BELIEVABLE_STD_ERROR * known
    small = max(std_se, known) < RELIABLE_STD_ERROR * std
    return {exact.mean.status, exact.std.status} <= {"finite", "unknown"} and small and believable


def _telling(num_samples: Sequence[int]) -> list[int]:
    """The least even and the least odd number: what an estimator refuses is too few samples, or an odd number."""
    return sorted({min(size for size in num_samples if size % 2 == rest) for rest in {n % 2 for n in num_samples}})


def check_study(
    problem: Problem,
    params: Mapping[str, Any],
    num_replicates: int,
    estimators: Sequence[str],
    num_samples: Sequence[int],
) -> None:
    """Raises the ValueError that `study_variance` would, before any work is done."""
    problem.check_params(params)
    check_replicates(num_replicates, None, least=2)
    if not estimators:
        raise ValueError(f"estimators must name at least one of {', '.join(ESTIMATORS)}, got none: add one")
    for name in estimators:
        if name not in ESTIMATORS:
            raise ValueError(f"estimators must be among {', '.join(ESTIMATORS)}, got {name}: choose of these")
    if not num_samples:
        raise ValueError("num_samples must have at least one number, got none: add one")
    for size in num_samples:
        if size < 1:
            raise ValueError(f"num_samples must be at least 1, got {size}: raise it")
    for name in dict.fromkeys(estimators):
        for size in _telling(num_samples):
            reason = refusal(problem, params, name, size)
            if reason is not None:
                raise ValueError(f"{name}: {reason}")
    kept = num_replicates * len(estimators) * len(num_samples) * len(parameter_names(problem, params)) * 4
    if kept > MAX_STUDY_BYTES:
        raise ValueError(
            f"num_replicates must keep the replicates within {MAX_STUDY_BYTES / 1e9:.1f} GB, got {num_replicates:,} "
            f"for {kept / 1e9:.1f} GB: lower it, or use gradient_statistics, which keeps none"
        )
