"""The kernels that a GPU ran, read from a trace of JAX's profiler.

python -m benchmarks.accelerator.profiling FOLDER
"""

import argparse
import collections
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.benchmark_options import described_parser

Event = Mapping[str, Any]
"""An entry of a trace: times and durations in microseconds."""


def kernels(folder: str | Path, repeats: int, top: int = 14) -> dict[str, Any] | str:
    """The kernels of the device in the newest trace of a folder, for each repeat.

    Args:
        folder: of the trace.
        repeats: runs of the program that the trace holds.
        top: kernels to list, by their total time.

    Returns:
        The number of events, the time in which the device was busy and the time from the first to the last kernel
        (microseconds), and the largest kernels as (name, number, microseconds).
    """
    files = sorted(Path(folder).rglob("*.trace.json.gz"))
    if not files:
        return "no trace"
    with gzip.open(files[-1]) as file:
        chosen = list(_device_events(json.load(file)["traceEvents"]))
    time, count = collections.Counter[str](), collections.Counter[str]()
    for event in chosen:
        time[event["name"]] += event["dur"]
        count[event["name"]] += 1
    ends = (event["ts"] + event["dur"] for event in chosen)
    span = max(ends, default=0) - min((event["ts"] for event in chosen), default=0)
    return {
        "events": len(chosen) / repeats,
        "busy_us": round(sum(time.values()) / repeats, 1),
        "span_us": round(span / repeats, 1),
        "top": [
            (name[:60], round(count[name] / repeats, 2), round(total / repeats, 2))
            for name, total in time.most_common(top)
        ],
    }


def _device_events(events: list[Event]) -> Iterator[Event]:
    """The events of the streams of every GPU."""
    named = [event for event in events if event.get("name") == "process_name"]
    devices = {event["pid"] for event in named if "GPU" in str(event["args"].get("name"))}
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"] for event in events if event.get("name") == "thread_name"
    }
    for event in events:
        is_on_stream = "Stream" in threads.get((event["pid"], event.get("tid")), "") if "pid" in event else False
        if event.get("ph") == "X" and is_on_stream and event["pid"] in devices:
            yield event


def main(options: argparse.Namespace) -> None:
    """Prints the kernels of a trace."""
    print(json.dumps(kernels(options.folder, options.repeats), indent=1))


def _parse() -> argparse.Namespace:
    parser = described_parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder that jax.profiler.trace wrote")
    parser.add_argument("--repeats", type=int, default=1, help="runs of the program that it holds (1)")
    return parser.parse_args()


if __name__ == "__main__":
    main(_parse())
