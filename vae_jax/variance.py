"""How the gradient estimators of a problem fare at several numbers of samples, beside the exact answers."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from vae_jax.estimators import ESTIMATORS, in_blocks
from vae_jax.problems import ExactMoments, PoissonGamma
from vae_jax.replicates import check_replicates, stack_replicates
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

BELIEVABLE_STD_ERROR = 0.5
"""Share of the exact standard error of a standard deviation below which a measured one is not believed."""


@dataclass(frozen=True)
class Row:
    """One parameter's gradient (or the ELBO) under one estimator at one number of samples."""

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
    seconds: float
    """Of the pass that made this row, compilation aside. One pass makes all rows of a study."""


@dataclass(frozen=True)
class VarianceStudy:
    """Rows, and the replicates that they summarize."""

    rows: list[Row]
    replicates: Float[np.ndarray, "R E N P"]
    """num_replicates x estimators x numbers of samples x parameters."""
    estimators: tuple[str, ...]
    num_samples: tuple[int, ...]
    parameters: tuple[str, ...]
    """ "elbo", then the parameters of q."""

    def row(self, estimator: str, parameter: str, num_samples: int) -> Row:
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
    problem: PoissonGamma,
    params: Mapping[str, float],
    key: PRNGKey,
    num_replicates: int,
    *,
    estimators: Sequence[str],
    num_samples: Sequence[int],
    mesh: Mesh | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> VarianceStudy:
    """Measures every estimator's ELBO and gradient at every number of samples, in one compiled program.

    In replicate r every estimator draws from the same key at every number of samples, and the compiler shares the
    draws. So the rows are correlated: a smaller number's samples are the first of a larger one's. Large numbers of
    samples are averaged in blocks of 10,000, which draw their own; a leave-one-out baseline is that of the block.

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
            an estimator refuses, or parameters that the problem refuses.
    """
    check_study(problem, params, num_replicates, estimators, num_samples)
    axes = (tuple(dict.fromkeys(estimators)), tuple(sorted(set(num_samples))), ("elbo", *params))
    least_rounds = max(LEAST_ROUNDS, math.ceil(num_replicates * max(num_samples) / ROUND_ELEMENTS))
    round_size = math.ceil(num_replicates / least_rounds)
    rounds = math.ceil(num_replicates / round_size)
    program = jax.jit(partial(_round, problem, *axes, round_size, mesh))
    arguments = (jax.tree.map(jnp.asarray, dict(params)), key)
    compiled = program.lower(*arguments, 0).compile()
    started = time.perf_counter()
    parts = []
    for number in range(rounds):
        parts.append(np.asarray(compiled(*arguments, number * round_size)))
        on_progress((number + 1) / rounds)
    replicates = np.concatenate(parts)[:num_replicates]
    seconds = time.perf_counter() - started
    rows = list(_rows(problem, params, *axes, jax.jit(summarize)(replicates), seconds))
    return VarianceStudy(rows, replicates, *axes)


def _round(
    problem: PoissonGamma,
    estimators: Sequence[str],
    num_samples: Sequence[int],
    parameters: Sequence[str],
    num_replicates: int,
    mesh: Mesh | None,
    params: Mapping[str, Array],
    key: PRNGKey,
    first: int | Int[Array, ""],
) -> Float[Array, "r E N P"]:
    """ELBOs and gradients of `num_replicates` replicates from number `first` on."""

    def cell(key: PRNGKey, estimator: str, size: int) -> Float[Array, " P"]:
        blocked = size > 10 * BLOCK_SIZE and size % BLOCK_SIZE == 0
        chosen = in_blocks(ESTIMATORS[estimator], BLOCK_SIZE) if blocked else ESTIMATORS[estimator]
        loss = partial(problem.elbo, key=key, num_samples=size, estimator=chosen)
        value, gradient = jax.value_and_grad(loss)(params)
        return jnp.stack([value, *(gradient[name] for name in parameters[1:])])

    def draw(key: PRNGKey) -> Float[Array, "E N P"]:
        return jnp.stack([jnp.stack([cell(key, name, size) for size in num_samples]) for name in estimators])

    return stack_replicates(draw, key, num_replicates, first=first, mesh=mesh)


def _rows(
    problem: PoissonGamma,
    params: Mapping[str, float],
    estimators: Sequence[str],
    num_samples: Sequence[int],
    parameters: Sequence[str],
    statistics: Statistics,
    seconds: float,
) -> Iterator[Row]:
    num_replicates = int(statistics.num_replicates)
    fields = ("num_nonfinite", "mean", "mean_se", "std", "std_se", "tail_index")
    table = {field: np.asarray(getattr(statistics, field), float) for field in fields}
    for i, estimator in enumerate(estimators):
        exact = problem.exact(params, estimator)
        for k, parameter in enumerate(parameters):
            for j, size in enumerate(num_samples):
                measured = {field: float(values[i, j, k]) for field, values in table.items()}
                moments = exact(size)[parameter]
                exact_std_se = moments.std_se(num_replicates)
                yield Row(
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
                    z_score=_z_score(measured["mean"], measured["mean_se"], moments.mean.value),
                    reliable=_reliable(measured["std"], measured["std_se"], exact_std_se, moments),
                    seconds=seconds,
                    **measured,
                )


def _z_score(mean: float, mean_se: float, exact_mean: float | None) -> float | None:
    return None if exact_mean is None or mean_se == 0 else (mean - exact_mean) / mean_se


def _reliable(std: float, std_se: float, exact_std_se: float | None, exact: ExactMoments) -> bool:
    # Every comparison with NaN is false, so that a replicate that is not finite makes the row unreliable.
    known = std_se if exact_std_se is None else exact_std_se
    believable = std_se >= BELIEVABLE_STD_ERROR * known
    small = max(std_se, known) < RELIABLE_STD_ERROR * std
    return {exact.mean.status, exact.std.status} <= {"finite", "unknown"} and small and believable


def check_study(
    problem: PoissonGamma,
    params: Mapping[str, float],
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
        if size < 2 and any(name.endswith("+leave_one_out") for name in estimators):
            raise ValueError(
                f"leave_one_out needs at least 2 samples, got {size}: raise num_samples, or drop that estimator"
            )
    kept = num_replicates * len(estimators) * len(num_samples) * (1 + len(params)) * 4
    if kept > MAX_STUDY_BYTES:
        raise ValueError(
            f"num_replicates must keep the replicates within {MAX_STUDY_BYTES / 1e9:.1f} GB, got {num_replicates:,} "
            f"for {kept / 1e9:.1f} GB: lower it, or use gradient_statistics, which keeps none"
        )
