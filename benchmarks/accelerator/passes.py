"""Passes of gradient statistics on one accelerator, with the floors under them and peers on the same work.

    python -m benchmarks.accelerator.passes

A pass is the statistics of the Poisson-Gamma problem's gradients at 10,000 samples by 1,000 replicates, hot. Every
section is guarded: a failure is an entry of the results, passes.json.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from benchmarks.accelerator.device_floors import (
    copy,
    draw_floors,
    hot,
    inverse_error_functions,
    launch,
    random_bits,
    torch_normals,
)
from benchmarks.accelerator.profiling import kernels
from benchmarks.accelerator.section_report import SectionReport, accelerator_parser
from benchmarks.interleaved_timing import seconds_of
from benchmarks.process_memory import peak_on_device
from benchmarks.variance.gradient_passes import cut_normal_loss, elbo_loss, gradient_pass, written_log_joint
from benchmarks.variance.variance_jax_peers import numpyro_peers, tfp_peers
from benchmarks.variance.variance_torch_peers import torch_peers
from benchmarks.variance.variance_work import LEAST_LATENT, GradientWork, Peer, default_work, z_scores
from vae_jax.estimators import ESTIMATORS
from vae_jax.problems import PoissonGamma
from vae_jax.statistics import gradient_statistics

NUM_SAMPLES, NUM_REPLICATES = 10_000, 1_000

TIMED = ("pathwise", "sticking_the_landing", "score_function", "score_function+leave_one_out", "pathwise+sobol")

LARGE_PASSES = ((10_000, 100_000), (1_000_000, 1_000), (1, 10_000_000))
"""Samples and replicates."""

PROFILED_RUNS = 3

PROBLEM = PoissonGamma()
PARAMS = {name: jnp.asarray(value, float) for name, value in PROBLEM.default_params.items()}

Section = tuple[str, Callable[[], Any]]
"""A name, and what it measures."""


def main(options: argparse.Namespace) -> None:
    """Measures, prints and saves every section."""
    report = SectionReport("passes", options)
    num_replicates = max(10, int(NUM_REPLICATES * options.scale))
    num_normals = 2 * NUM_SAMPLES * num_replicates
    sections = [
        *_floors(options.scale, num_normals),
        *_passes(num_replicates),
        ("peers (scaled ms, z against ours)", partial(_peers, num_replicates, report)),
        ("torch.randn: 20 million normals drawn and summed", partial(torch_normals, num_normals)),
        *_large_passes(options.scale),
    ]
    for name, measure in sections:
        report.section(name, measure)


def _floors(scale: float, num_normals: int) -> Iterator[Section]:
    yield "copy", partial(copy, scale)
    yield "null", launch
    yield "draw floors: 20 million normals drawn and summed", partial(draw_floors, num_normals)
    yield "bits only: 20 million threefry words summed", partial(random_bits, num_normals)
    inversion = "uniforms to normals only (erf_inv of 20 million, no draw)"
    yield inversion, partial(inverse_error_functions, num_normals)


def _passes(num_replicates: int) -> Iterator[Section]:
    for name in TIMED:
        yield f"pass {name} {NUM_SAMPLES} x {num_replicates}", partial(_timed_pass, name, num_replicates)
    yield "plain JAX: jit(vmap(grad)) mean and var", partial(_plain_jax, num_replicates)
    yield "profile of the pathwise pass", partial(_profile, num_replicates)


def _large_passes(scale: float) -> Iterator[Section]:
    for num_samples, num_replicates in LARGE_PASSES:
        run = num_replicates if scale >= 1 else max(2, int(num_replicates * scale / 10))
        yield f"large pass pathwise {num_samples} x {num_replicates}", partial(_large_pass, num_samples, run)


def _pass(estimator: str, num_samples: int, num_replicates: int, **options: Any) -> Callable[[int], Any]:
    """A pass as a function of the number of its run."""
    loss = partial(PROBLEM.estimate, num_samples=num_samples, estimator=ESTIMATORS[estimator])
    return lambda seed: gradient_statistics(loss, PARAMS, jax.random.key(seed), num_replicates, **options)


def _timed_pass(estimator: str, num_replicates: int) -> dict[str, float]:
    times = hot(_pass(estimator, NUM_SAMPLES, num_replicates))
    if estimator in ("pathwise", "score_function"):
        without_tails = hot(_pass(estimator, NUM_SAMPLES, num_replicates, tail_size=0))
        times |= {"tail0_ms": without_tails["median_ms"]}
    return times


def _large_pass(num_samples: int, num_replicates: int) -> dict[str, float]:
    times = hot(_pass("pathwise", num_samples, num_replicates), 3)
    return times | {"peak_GiB": round((peak_on_device() or 0) / 2**30, 2)}


def _plain_jax(num_replicates: int) -> dict[str, float]:
    """The mean and the variance of a plain normal's gradients in ten lines of JAX."""

    def bound(params: Mapping[str, Any], key: jax.Array) -> jax.Array:
        keys = dict(zip("uv", jax.random.split(key), strict=True))
        q = {name: dist.Normal(params[f"loc_{name}"], params[f"scale_{name}"]) for name in keys}
        noise = {name: jax.random.normal(keys[name], (NUM_SAMPLES,)) for name in keys}
        z = {name: params[f"loc_{name}"] + params[f"scale_{name}"] * noise[name] for name in keys}
        z = {name: jnp.maximum(value, LEAST_LATENT) for name, value in z.items()}
        log_q = sum(q[name].log_prob(z[name]) for name in keys)
        return (jax.vmap(PROBLEM.log_joint)(z) - log_q).mean()

    @jax.jit
    def statistics(params: Mapping[str, Any], key: jax.Array) -> Any:
        gradients = jax.vmap(jax.grad(bound), (None, 0))(params, jax.random.split(key, num_replicates))
        return jax.tree.map(lambda x: (x.mean(0), x.var(0)), gradients)

    return hot(lambda seed: statistics(PARAMS, jax.random.key(seed)))


def _profile(num_replicates: int) -> dict[str, Any] | str:
    run = _pass("pathwise", NUM_SAMPLES, num_replicates)
    jax.block_until_ready(run(0))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for number in range(PROFILED_RUNS):
                jax.block_until_ready(run(number))
        return kernels(folder, PROFILED_RUNS)


def _peers(num_replicates: int, report: SectionReport) -> dict[str, Any]:
    """Milliseconds of ours; milliseconds of each peer, scaled to the work, over ours, and its z-scores."""
    work = default_work(NUM_SAMPLES, num_replicates, 1)
    ours = _our_passes(work)
    found: dict[str, Any] = {f"ours {name}": round(1e3 * _median_seconds(run, 7), 3) for name, run in ours.items()}
    for make in (tfp_peers, torch_peers, numpyro_peers):
        try:
            for peer in make(work):
                if report.is_out_of_time:
                    found["rest"] = "out of time"
                    break
                found[peer.name] = _compared(peer, work, found[f"ours {peer.counterpart}"], ours[peer.counterpart])
                print(peer.name, found[peer.name], flush=True)
        # A peer that does not run on this machine leaves the others alone.
        except Exception as error:
            found[make.__name__] = f"FAILED {type(error).__name__}: {str(error)[:200]}"
    return found


def _our_passes(work: GradientWork) -> dict[str, Callable[[], Any]]:
    """Our contenders, compiled."""
    passes = {
        f"normal/{name}": gradient_pass(cut_normal_loss(work, name), work) for name in ("pathwise", "score_function")
    }
    passes |= {name: gradient_pass(elbo_loss(work, name), work) for name in ("pathwise", "score_function")}
    written = elbo_loss(work, "pathwise", log_joint=written_log_joint)
    passes |= {"numpyro_log_joint/pathwise": gradient_pass(written, work)}
    for run in passes.values():
        jax.block_until_ready(run())
    return passes


def _compared(
    peer: Peer, work: GradientWork, our_milliseconds: float, ours: Callable[[], Any]
) -> tuple[float, float, Any]:
    peer.run()
    milliseconds = 1e3 * _median_seconds(peer.run, 3) / peer.share(work)
    over_ours = round(milliseconds / our_milliseconds, 2)
    return round(milliseconds, 3), over_ours, z_scores(peer.run(), ours())


def _median_seconds(run: Callable[[], Any], repeats: int) -> float:
    return float(np.median([seconds_of(run) for _ in range(repeats)]))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return accelerator_parser(__doc__, scale_on_cpus=0.01)


if __name__ == "__main__":
    main(parser().parse_args())
