"""Measures what the tests catch: puts deliberate faults into the package, one at a time, and runs tests on each.

Run it from the repository's root:

    python tests/mutations.py [--only TEXT ...] [--list] [--workers N] [--timeout SECONDS] [-- PYTEST ARGUMENTS]

Each fault goes into a copy of the tracked files, never into the checkout. The tests of its module follow, up to the
first that fails. Prints a table, and exits with code 1 if a fault survives, or if the package has changed so that a
fault no longer applies.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

WIDTH = 80
INDENT = 21
"""Columns left of the words of a table's row."""

ALL_PASSED, SOME_FAILED = 0, 1
"""Exit codes of pytest."""


class Fault(NamedTuple):
    """A change of the package that tests should notice."""

    file: str
    """Relative to vae_jax/."""
    what: str
    old: str
    """The text that is replaced; it stands in the file once."""
    new: str
    tests: tuple[str, ...] = ()
    """Files of tests, relative to tests/; by default the one that mirrors the file."""

    @property
    def path(self) -> Path:
        """The file that is changed, relative to the root."""
        return Path("vae_jax", self.file)

    @property
    def test_paths(self) -> list[Path]:
        """The files of tests, relative to the root."""
        mirror = Path(self.file)
        names = self.tests or (str(mirror.with_name(f"test_{mirror.name}")),)
        return [Path("tests", name) for name in names]

    def faulty(self, source: str) -> str:
        """The source with the fault in it.

        Raises:
            ValueError: the old text does not stand in it once.
        """
        count = source.count(self.old)
        if count != 1:
            raise ValueError(f"{self.path} must hold the text of '{self.what}' once, got {count} times: adjust it")
        return source.replace(self.old, self.new)


FAULTS = (
    Fault(
        "estimators/score_function.py",
        "the baseline is added, not subtracted",
        "scored(values, jnp.broadcast_to(baselines, values.shape), log_densities)",
        "scored(values, -jnp.broadcast_to(baselines, values.shape), log_densities)",
        ("estimators/test_estimators.py",),
    ),
    Fault(
        "estimators/score_function.py",
        "a fold's own samples count in its coefficient",
        "jnp.where(own, 0, sums[None])",
        "jnp.where(own, sums[None], sums[None])",
        ("estimators/test_control_variates.py",),
    ),
    Fault(
        "estimators/baselines.py",
        "the leave-one-out mean is over S, not S - 1",
        "return (values.sum() - values) / (num_samples - 1)",
        "return (values.sum() - values) / num_samples",
        ("estimators/test_estimators.py",),
    ),
    Fault(
        "estimators/pathwise.py",
        "sticking the landing does not hold q fixed",
        "return values_at(objective, samples, held_at_first(q)).mean() + fixed_support(q)",
        "return values_at(objective, samples, q).mean()",
        ("estimators/test_estimators.py",),
    ),
    Fault(
        "estimators/arm.py",
        "DisARM takes the sigmoid of the logit, not of its modulus",
        "jax.nn.sigmoid(jnp.abs(logits))[None]",
        "jax.nn.sigmoid(logits)[None]",
        ("estimators/test_discrete_latents.py",),
    ),
    Fault(
        "estimators/weak_derivatives.py",
        "the double-sided Maxwell length is of two dimensions",
        "jax.random.gamma(length_key, 1.5, shape)",
        "jax.random.gamma(length_key, 1.0, shape)",
        ("estimators/test_measure_valued.py",),
    ),
    Fault(
        "estimators/delta_method.py",
        "the point of expansion keeps its gradient",
        "point = lax.stop_gradient(gaussian.loc)",
        "point = gaussian.loc",
        ("estimators/test_control_variates.py",),
    ),
    Fault(
        "bounds/importance_weighted.py",
        "the weights' own dependence on q is dropped",
        "logs = values_at(weight, samples, base)",
        "logs = values_at(weight, samples, distributions.without_gradient(base))",
        ("bounds/test_multi_sample_bounds.py",),
    ),
    Fault(
        "bounds/importance_weighted.py",
        "VIMCO's baseline lacks the others' geometric mean",
        "jax.nn.softplus(centred - others) - jax.nn.softplus(others_mean(centred) - others)",
        "jax.nn.softplus(centred - others)",
        ("bounds/test_multi_sample_bounds.py",),
    ),
    Fault(
        "bounds/log_weights.py",
        "the mean of the other weights is over K, not K - 1",
        "mean = (finite.sum() - finite) / (values.shape[0] - 1)",
        "mean = (finite.sum() - finite) / values.shape[0]",
        ("bounds/test_multi_sample_bounds.py",),
    ),
    Fault(
        "bounds/renyi.py",
        "the paths are slowed by the weights, not their powers",
        "jax.nn.softmax((1 - alpha) * logs)",
        "jax.nn.softmax(logs)",
        ("bounds/test_multi_sample_bounds.py",),
    ),
    Fault(
        "bounds/wake_sleep.py",
        "the reweighted samples' weights keep their gradient",
        "weights = lax.stop_gradient(jax.nn.softmax(values_at(weight, draws, base)))",
        "weights = jax.nn.softmax(values_at(weight, draws, base))",
        ("bounds/test_multi_sample_bounds.py",),
    ),
    Fault(
        "statistics.py",
        "the variance is over R, not R - 1",
        "return m.scale * jnp.sqrt(m.square / (m.number - 1))",
        "return m.scale * jnp.sqrt(m.square / m.number)",
    ),
    Fault(
        "statistics.py",
        "the shares of unequal chunks are exchanged in the fourth moment",
        "6 * step**2 * (share_a**2 * b.square + share_b**2 * a.square)",
        "6 * step**2 * (share_b**2 * b.square + share_a**2 * a.square)",
    ),
    Fault(
        "statistics.py",
        "the standard error of a mean has no Bessel's correction",
        "values.std(axis, ddof=1)",
        "values.std(axis, ddof=0)",
    ),
    Fault(
        "replicates.py",
        "what a device draws beyond its share is counted too",
        "counted = (within < chunks.per_device) & (",
        "counted = (within >= 0) & (",
    ),
    Fault(
        "divergences.py",
        "the series near equality ends after four terms",
        "for power in range(21, 1, -2):",
        "for power in range(9, 1, -2):",
    ),
    Fault(
        "distributions.py",
        "all latents draw from one key",
        "leaf_keys = jax.random.split(key, len(leaves))",
        "leaf_keys = [key] * len(leaves)",
    ),
    Fault(
        "problems/exact_moments.py",
        "the exact leave-one-out variance is off by one in N",
        "(others - 1) / others * g**2",
        "others / num_samples * g**2",
    ),
    Fault(
        "studies/estimator_comparison.py",
        "the interval of a ratio leaves out twice the share",
        "norm.isf((1 - confidence) / 2)",
        "norm.isf(1 - confidence)",
    ),
    Fault(
        "vae/training/training_loop.py",
        "the last batch counts one image too many",
        "counted = (slots < num_images)",
        "counted = (slots <= num_images)",
    ),
    Fault(
        "vae/training/training_loop.py",
        "every epoch has the same order of images",
        "jax.random.fold_in(keys.order, epoch)",
        "keys.order",
    ),
    Fault(
        "vae/training/optimizers.py",
        "the update is clipped, not the gradient",
        "optax.chain(optax.clip_by_global_norm(config.gradient_clip), optimizer)",
        "optax.chain(optimizer, optax.clip_by_global_norm(config.gradient_clip))",
        ("vae/training/test_training_loop.py",),
    ),
    Fault(
        "vae/training/training_schedules.py",
        "the KL's warm-up is a step ahead",
        "position.astype(jnp.float32) / ramp",
        "(position.astype(jnp.float32) + 1) / ramp",
    ),
    Fault(
        "vae/runs/training_run.py",
        "the patience is an epoch longer",
        'rows[-1]["epoch"] - best["epoch"] >= patience',
        'rows[-1]["epoch"] - best["epoch"] > patience',
    ),
    Fault(
        "vae/runs/training_run.py",
        "a resumed run keeps the metrics of an epoch that is lost",
        "self.folder.keep_rows(self.folder.rows()[:done])",
        "self.folder.keep_rows(self.folder.rows()[: done + 1])",
    ),
    Fault(
        "vae/runs/periodic_checkpoints.py",
        "the best state has no score where it is saved later",
        "self.checkpoints.save(best_step, best_state, score=self.best_score, about=self.facts(best_step))",
        "self.checkpoints.save(best_step, best_state, score=None, about=self.facts(best_step))",
        ("vae/runs/test_training_run.py",),
    ),
    Fault(
        "vae/runs/checkpoint_files.py",
        "a checkpoint's files are not verified",
        '    _verify_files(folder, manifest["files"])\n',
        "",
        ("vae/runs/test_checkpoints.py",),
    ),
    Fault(
        "inference/laplace/laplace.py",
        "the covariance is the root's transpose times the root",
        "covariance=root @ root.T",
        "covariance=root.T @ root",
    ),
    Fault(
        "inference/cavi/normal_wishart_mixture.py",
        "the digammas of a Wishart's log determinant are off by one",
        "jnp.arange(num_dimensions)[None]",
        "jnp.arange(1, num_dimensions + 1)[None]",
        ("inference/cavi/test_cavi.py",),
    ),
    Fault(
        "inference/fit/minibatches.py",
        "the last example is in no batch",
        "jax.random.randint(key, (self.batch_size,), 0, self.num_examples)",
        "jax.random.randint(key, (self.batch_size,), 0, self.num_examples - 1)",
        ("inference/fit/test_fit.py",),
    ),
    Fault(
        "inference/fit/stochastic_ascent.py",
        "flat windows need not be in a row",
        "num_flat=jnp.where(is_flat, now.num_flat + 1, 0)",
        "num_flat=now.num_flat + is_flat",
        ("inference/fit/test_fit.py",),
    ),
    Fault(
        "inference/evidence/evidence_estimate.py",
        "the evidence's variance is over S, not S - 1",
        "excess / (num_samples - 1)",
        "excess / num_samples",
        ("inference/evidence/test_evidence.py",),
    ),
    Fault(
        "inference/evidence/hamiltonian_chains.py",
        "chains move at the temperature before",
        "_moved(route, chains.vectors, number, temperature, transition)",
        "_moved(route, chains.vectors, number, before, transition)",
        ("inference/evidence/test_evidence.py",),
    ),
    Fault(
        "vae/data/binarization.py",
        "a black pixel is white once in 65,536 draws",
        "(bits.astype(jnp.int32) < threshold)",
        "(bits.astype(jnp.int32) <= threshold)",
    ),
    Fault(
        "vae/data/download.py",
        "a download's checksum is not verified",
        "if sha256 != file.sha256:",
        "if not content:",
        ("vae/data/test_tfds_images.py",),
    ),
    Fault(
        "settings.py",
        "only the first of several numbers is checked",
        "for number in numbers:",
        "for number in numbers[:1]:",
    ),
    Fault(
        "cli/main.py",
        "a failure has the exit code of misuse",
        "_report(_failure(error, command), FAILED, debug=command.debug)",
        "_report(_failure(error, command), MISUSED, debug=command.debug)",
        ("cli/test_command_line.py",),
    ),
    Fault(
        "cli/output_folder.py",
        "a command that fails leaves half of its files",
        "yield stage",
        "yield out",
        ("cli/test_command_line.py",),
    ),
    Fault(
        "cli/regress/regression_fit.py",
        "the column of Laplace's std holds the fit's",
        '"laplace_std": self.reference.std',
        '"laplace_std": self.moments.std',
        ("cli/regress/test_regress_command.py",),
    ),
)


class Outcome(NamedTuple):
    """The result of the tests on one fault."""

    verdict: str
    seconds: float
    test: str
    """The test that caught it, or nothing."""


def main() -> int:
    """Runs the tests on the faults and returns the exit code."""
    options = _options()
    drifted = list(_drifted())
    if drifted:
        print("\n".join(drifted), file=sys.stderr)
        return 1
    chosen = {number: fault for number, fault in enumerate(FAULTS, start=1) if _is_chosen(fault, options.only)}
    if options.list:
        for number, fault in chosen.items():
            _print_row(number, "", "", f"{fault.file}: {fault.what}")
        return 0
    begin = time.monotonic()
    run = partial(_outcome, timeout=options.timeout, pytest_arguments=options.pytest_arguments)
    _print_row("#", "", "s", "file: fault, and the test that caught it")
    survivors = []
    with ThreadPoolExecutor(options.workers) as executor:
        for number, outcome in zip(chosen, executor.map(run, chosen.values()), strict=True):
            fault = chosen[number]
            _print_row(number, outcome.verdict, f"{outcome.seconds:.0f}", f"{fault.file}: {fault.what}", outcome.test)
            survivors += [] if outcome.verdict == "caught" else [str(number)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught in {time.monotonic() - begin:.0f} s.")
    if survivors:
        print(f"Not caught: {', '.join(survivors)}.")
    return 1 if survivors else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="faults whose file or words hold a text")
    parser.add_argument("--list", action="store_true", help="list the faults and run nothing")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="faults at a time")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for the tests on one fault")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:end])
    options.pytest_arguments = words[end + 1 :]
    return options


def _drifted() -> Iterator[str]:
    """A line for each fault that does not apply to the package as it is."""
    for fault in FAULTS:
        try:
            fault.faulty((ROOT / fault.path).read_text())
        except (OSError, ValueError) as error:
            yield str(error)
        yield from (f"{path} must exist for '{fault.what}'" for path in fault.test_paths if not (ROOT / path).exists())


def _is_chosen(fault: Fault, texts: Sequence[str]) -> bool:
    return not texts or any(text in f"{fault.file} {fault.what}" for text in texts)


def _outcome(fault: Fault, *, timeout: float, pytest_arguments: Sequence[str]) -> Outcome:
    """Runs the tests of a fault on a copy of the tracked files that has it."""
    with tempfile.TemporaryDirectory(prefix="vae_jax-fault-") as folder:
        copy = Path(folder, ROOT.name)
        _copy_tracked_files(copy)
        (copy / fault.path).write_text(fault.faulty((copy / fault.path).read_text()))
        begin = time.monotonic()
        code, output = _pytest(copy, [*map(str, fault.test_paths), *pytest_arguments], timeout)
        seconds = time.monotonic() - begin
    if code is None:
        return Outcome("NO END", seconds, "")
    verdict = {ALL_PASSED: "SURVIVED", SOME_FAILED: "caught"}.get(code, f"EXIT {code}")
    failed = re.search(r"^(?:FAILED|ERROR) \S+?::(.+?)(?: - .*)?$", output, flags=re.MULTILINE)
    return Outcome(verdict, seconds, failed[1] if failed else "")


def _copy_tracked_files(copy: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)


def _pytest(folder: Path, arguments: Sequence[str], timeout: float) -> tuple[int | None, str]:
    """The exit code of pytest, None if it did not end in time, and what it printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-n", "0"]
    # Commands that tests start must import the copy too.
    environment = {"VAE_JAX_TEST_DATA": str(ROOT.parent / "shared" / "data"), **os.environ, "PYTHONPATH": str(folder)}
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]
    return process.returncode, output


def _print_row(number: int | str, verdict: str, seconds: str, *texts: str) -> None:
    """Prints a row of the table, its words broken into lines of 80 columns."""
    lines = [line for text in texts for line in textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False)]
    print(f"{number:>2}  {verdict:<8} {seconds:>5}  ".ljust(INDENT) + lines[0], flush=True)
    for line in lines[1:]:
        print(" " * INDENT + line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
