"""A process that holds one family of contenders, and runs one of their tasks on request.

A line of JSON on its standard input names a task and its arguments; a line on its standard output answers with the
seconds that it took and its results. The output of libraries goes to the standard error.
"""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks.child_process import child_environment, module_command
from vae_jax.runtime import num_cores


@dataclass(frozen=True)
class TaskFamily:
    """A module of tasks, and whether JAX has one CPU device in its process or every core."""

    module: str
    one_cpu_device: bool = True


FAMILIES = {
    "ours": TaskFamily("benchmarks.training.vae_jax_tasks"),
    "ours on all devices": TaskFamily("benchmarks.training.vae_jax_tasks", one_cpu_device=False),
    "jax": TaskFamily("benchmarks.training.jax_peer_tasks"),
    "torch": TaskFamily("benchmarks.training.torch_peer_tasks"),
}
"""Two CPU devices share the cores between them, so that one model trains slower than on the one."""


class TaskFailed(RuntimeError):
    """A task that a worker cannot do. One line."""


class Worker:
    """A family's process, as its parent sees it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def ask(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Has a task done once.

        Raises:
            TaskFailed: the task failed, or the process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"task": task, "arguments": arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise TaskFailed("its process has ended") from error
        line = self.process.stdout.readline()
        if not line:
            raise TaskFailed("its process has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise TaskFailed(answer["error"])
        return answer


@contextmanager
def started(family: str, data: str, num_images: int | None) -> Iterator[Worker]:
    """Starts a family's process, which ends with the block."""
    more = () if num_images is None else ("--num-images", num_images)
    command = module_command("benchmarks.training.task_worker", family, data, *more)
    with subprocess.Popen(
        command, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()
            # A request that the process did not live to read is still in the pipe.
            with suppress(BrokenPipeError):
                process.communicate()


def _serve(family: TaskFamily, data: str, num_images: int | None) -> None:
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    tasks = _Tasks(family, data, num_images)
    for line in sys.stdin:
        try:
            answer = tasks.do(json.loads(line))
        # Whatever stops a contender is an entry of the results, and not the end of the others.
        except Exception as error:
            answer = {"error": _one_line(error)}
        print(json.dumps(answer), file=replies, flush=True)


class _Tasks:
    """The tasks of a family, each prepared when it is first asked for."""

    def __init__(self, family: TaskFamily, data: str, num_images: int | None) -> None:
        self.family, self.data, self.num_images = family, data, num_images
        self.prepared: dict[str, Any] = {}

    def do(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = json.dumps(request)
        if name not in self.prepared:
            self.prepared[name] = self.module.TASKS[request["task"]](self.work, **request["arguments"])
        begin = time.perf_counter()
        outcome = self.prepared[name]()
        return {"seconds": time.perf_counter() - begin, **outcome}

    @cached_property
    def module(self) -> Any:
        import jax

        jax.config.update("jax_num_cpu_devices", 1 if self.family.one_cpu_device else num_cores())
        return importlib.import_module(self.family.module)

    @cached_property
    def work(self) -> Any:
        from benchmarks.training.training_work import load_work

        return load_work(self.data, self.num_images)


def _one_line(error: Exception) -> str:
    """The kind of an error and the first line of its text, without the files of this machine that it may name."""
    text = next(iter(str(error).splitlines()), "")
    return re.sub(r"\S*/\S+", "...", f"{type(error).__name__}: {text}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("data")
    parser.add_argument("--num-images", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    options = _parse()
    _serve(FAMILIES[options.family], options.data, options.num_images)
