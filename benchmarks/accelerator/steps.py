"""Training on one accelerator: time of a step, many seeds, log p(x), compared with NumPyro, a jitted step and PyTorch.

    python -m benchmarks.accelerator.steps

The model is 784-256-50. A contender that fails is an entry of the results, steps.json. $VAE_JAX_TEST_DATA may name the
folder that holds mnist/, and $TAG another name of the results.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.accelerator.profiling import kernels
from benchmarks.accelerator.section_report import SectionReport, accelerator_parser, guarded
from benchmarks.training.training_work import Task, TrainingWork, load_work
from benchmarks.training.vae_jax_tasks import log_evidence_task, training_task
from vae_jax.vae.config.experiment import Precision

PROFILED_STEPS = 100

PROFILE = f"profile of {PROFILED_STEPS} steps"

STEPS_OF_MANY = 200
"""Steps of many seeds."""

NUM_IMPORTANCE_SAMPLES, NUM_SCORED = 5_000, 1_000


class StepContender(NamedTuple):
    """A way to train, in one setting."""

    name: str
    make: Callable[..., Task]
    batch_size: int
    precision: Precision = "float32"
    num_seeds: int = 1

    @property
    def label(self) -> str:
        """The contender in the results."""
        return f"{self.name} b{self.batch_size} {self.precision} s{self.num_seeds}"

    @property
    def cells(self) -> str:
        """The contender in columns."""
        return f"{self.name:28s} b{self.batch_size:<5} {self.precision:9s} s{self.num_seeds:<4}"


def _peer_task(module: str, task: str, work: TrainingWork, **setting: Any) -> Task:
    """A task of a module that may not import on this machine."""
    return import_module(f"benchmarks.training.{module}").TASKS[task](work, **setting)


JITTED_STEP = partial(_peer_task, "jax_peer_tasks", "jitted step")

FIRST = StepContender("ours", training_task, 64)

BEFORE_LOG_EVIDENCE = (
    *(StepContender("ours", training_task, 64, "float32", num_seeds) for num_seeds in (8, 64, 512)),
    StepContender("numpyro", partial(_peer_task, "jax_peer_tasks", "numpyro"), 64),
    StepContender("ours", training_task, 1024),
    StepContender("ours", training_task, 64, "bfloat16"),
    StepContender("ours", training_task, 1024, "bfloat16"),
)

AFTER_LOG_EVIDENCE = (
    StepContender("jitted step", JITTED_STEP, 64),
    StepContender("jitted step", JITTED_STEP, 64, "float32", 64),
    StepContender("torch fused", partial(_peer_task, "torch_peer_tasks", "torch eager, fused Adam"), 64),
    StepContender("torch compiled", partial(_peer_task, "torch_peer_tasks", "torch compiled, fused Adam"), 64),
)


def main(options: argparse.Namespace) -> None:
    """Times every contender, prints and saves its row."""
    report = SectionReport(options.tag, options, XLA_FLAGS=os.environ.get("XLA_FLAGS", ""))
    work = load_work(options.data, None)
    _time_contender(FIRST, work, options.scale, report)
    if options.scale >= 1 and report.only in PROFILE:
        profile = guarded(partial(_profile, work))
        report.keep(PROFILE, profile)
        print(profile, flush=True)
    for contender in BEFORE_LOG_EVIDENCE:
        _time_contender(contender, work, options.scale, report)
    _time_log_evidence(work, max(2, int(NUM_SCORED * options.scale)), report)
    for contender in AFTER_LOG_EVIDENCE:
        _time_contender(contender, work, options.scale, report)


def _time_contender(contender: StepContender, work: TrainingWork, scale: float, report: SectionReport) -> None:
    if report.only not in contender.label:
        return
    if report.is_out_of_time:
        print(contender.name, contender.batch_size, contender.precision, contender.num_seeds, "out of time", flush=True)
        return
    row = guarded(partial(_row, contender, work, scale))
    report.keep(contender.label, row)
    print(contender.cells, row, flush=True)


def _row(contender: StepContender, work: TrainingWork, scale: float) -> dict[str, float]:
    num_batches = max(1, len(work.pixels) // contender.batch_size)
    wanted = num_batches if contender.num_seeds == 1 else STEPS_OF_MANY
    num_steps = min(max(2, int(wanted * scale)), num_batches)
    setting = {"precision": contender.precision, "num_seeds": contender.num_seeds, "num_steps": num_steps}
    task = contender.make(work, batch_size=contender.batch_size, **setting)
    first, median, outcome = _timed(task, 3)
    return {
        "us_per_step": round(1e6 * median / num_steps, 2),
        "us_per_seed_step": round(1e6 * median / num_steps / contender.num_seeds, 3),
        "million_images_per_s": round(outcome["images"] / median / 1e6, 3),
        "first_s": round(first, 2),
        "steps": num_steps,
    }


def _time_log_evidence(work: TrainingWork, num_images: int, report: SectionReport) -> None:
    label = f"log p(x) {num_images} images, k={NUM_IMPORTANCE_SAMPLES}"
    if report.only not in label:
        return
    if report.is_out_of_time:
        print("log p(x) out of time", flush=True)
        return

    def measure() -> dict[str, float]:
        task = log_evidence_task(work, num_images=num_images, num_importance_samples=NUM_IMPORTANCE_SAMPLES)
        first, median, outcome = _timed(task, 2)
        rate = round(outcome["operations"] / median / 1e12, 2)
        return {"s": round(median, 3), "first_s": round(first, 2), "TFLOPs_decoder": rate}

    row = guarded(measure)
    report.keep(label, row)
    print("log p(x)", num_images, NUM_IMPORTANCE_SAMPLES, row, flush=True)


def _timed(task: Task, repeats: int) -> tuple[float, float, Any]:
    """The time of the first run, the median of the others (s), and the outcome of the last."""
    times, outcome = [], None
    for _ in range(1 + repeats):
        started = time.perf_counter()
        outcome = task()
        times.append(time.perf_counter() - started)
    return times[0], float(np.median(times[1:])), outcome


def _profile(work: TrainingWork) -> dict[str, Any] | str:
    task = training_task(work, batch_size=64, precision="float32", num_seeds=1, num_steps=PROFILED_STEPS)
    task()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            task()
        return kernels(folder, PROFILED_STEPS)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    folder = os.environ.get("VAE_JAX_TEST_DATA")
    data = "mnist" if folder is None else str(Path(folder) / "mnist")
    described = accelerator_parser(__doc__, scale_on_cpus=0.01)
    described.add_argument(
        "--data", default=data, help="name of a dataset or folder of IDX files ($VAE_JAX_TEST_DATA/mnist)"
    )
    described.add_argument("--tag", default=os.environ.get("TAG", "steps"), help="name of the results ($TAG, steps)")
    return described


if __name__ == "__main__":
    main(parser().parse_args())
