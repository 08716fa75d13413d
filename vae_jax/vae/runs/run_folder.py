"""The folder of a training run: its configuration, its metrics by epoch, its summary and where the rest lies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeAlias

from vae_jax.files import append_json_line, json_ready, reason, replacing, write_csv, write_json
from vae_jax.settings import check_settings
from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, ObjectiveConfig, TrainingConfig
from vae_jax.vae.runs.schema_version import SCHEMA_VERSION, check_schema_version

EpochRow: TypeAlias = dict[str, Any]
"""The metrics of an epoch by name. With several seeds a metric of each is a list."""


class NoRun(ValueError):
    """A folder holds no run, or a run that cannot be read. The message is one line."""


class RunFolder:
    """Folder with the files of one training run. A file that is written replaces the old one as a whole.

    Args:
        path: path of the folder, which need not exist yet.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from vae_jax.vae import Experiment, RunFolder
        >>> with tempfile.TemporaryDirectory() as path:
        ...     folder = RunFolder(Path(path) / "run")
        ...     folder.write_config(Experiment(seed=3), {})
        ...     folder.append_row({"epoch": 1, "train_elbo": -120.0})
        ...     folder.experiment().seed, folder.rows()
        (3, [{'epoch': 1, 'train_elbo': -120.0}])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.figures = path / "figures"

    @property
    def is_run(self) -> bool:
        """Whether a run has been started here."""
        return (self.path / "config.json").exists()

    def write_config(self, experiment: Experiment, more: Mapping[str, Any]) -> None:
        """Writes config.json: the schema version, the experiment and more facts about the run."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {"schema_version": SCHEMA_VERSION, **more, "experiment": asdict(experiment)}
        write_json(self.path / "config.json", content)

    def read_config(self) -> dict[str, Any]:
        """The content of config.json, through which every reader of a run goes first.

        Raises:
            NoRun: there is none, or it is damaged.
            OtherSchema: another version of the library wrote it.
        """
        content = self._read_json("config.json")
        check_schema_version(content, self.path / "config.json")
        return content

    def experiment(self) -> Experiment:
        """The configured experiment.

        Raises:
            NoRun: as `read_config`, or a setting is not as it may be.
            OtherSchema: as `read_config`.
        """
        return experiment_from(self.read_config().get("experiment", {}), self.path)

    def image_facts(self) -> dict[str, Any]:
        """The images that the run is trained on, by their name, source, checksum, shape and numbers.

        Raises:
            NoRun: as `read_config`, or there is nothing about images.
            OtherSchema: as `read_config`.
        """
        facts = self.read_config().get("images")
        if not isinstance(facts, dict) or not {"checksum", "shape", "num_train"} <= set(facts):
            raise NoRun(f"{self.path / 'config.json'} must have the facts of the images, got {facts}: train anew")
        return facts

    def summary_path(self, split: str) -> Path:
        """The scores of a split: summary.json for the test images, else summary_validation.json and so on."""
        return self.path / ("summary.json" if split == "test" else f"summary_{split}.json")

    def write_summary(self, summary: Mapping[str, Any], split: str = "test") -> None:
        """Writes the scores of a split."""
        write_json(self.summary_path(split), {"num_epochs": len(self.rows()), **summary})

    def append_row(self, row: EpochRow) -> None:
        """Adds an epoch to metrics.jsonl, so that it outlives the process."""
        append_json_line(self.path / "metrics.jsonl", row)

    def rows(self) -> list[EpochRow]:
        """The epochs of metrics.jsonl. The last is left out if it was cut short in writing.

        Raises:
            NoRun: another line is damaged.
        """
        try:
            lines = (self.path / "metrics.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                if number == len(lines):
                    break
                raise NoRun(f"{self.path / 'metrics.jsonl'} must be JSON lines, got {error} in {number}") from error
        return rows

    def keep_rows(self, rows: Sequence[EpochRow]) -> None:
        """Makes these the epochs of metrics.jsonl."""
        with replacing(self.path / "metrics.jsonl") as file:
            file.writelines(json.dumps(json_ready(row)) + "\n" for row in rows)

    def write_csv(self) -> None:
        """Writes metrics.csv from metrics.jsonl, a line for each epoch and seed."""
        lines = [line for row in self.rows() for line in _by_seed(row)]
        if lines:
            write_csv(self.path / "metrics.csv", lines)

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            raise NoRun(f"{self.path} must be the folder of a run, got one without {name}: train it first") from None
        except (OSError, ValueError) as error:
            raise NoRun(f"{self.path / name} must be JSON, got {error}: the run cannot be used without it") from error
        if not isinstance(content, dict):
            raise NoRun(f"{self.path / name} must be a JSON object, got {content!r}: the run cannot be used without it")
        return content


def _by_seed(row: EpochRow) -> list[EpochRow]:
    seeds = max((len(value) for value in row.values() if isinstance(value, list)), default=1)
    return [
        {"epoch": row["epoch"], "seed": seed}
        | {name: value[seed] if isinstance(value, list) else value for name, value in row.items()}
        for seed in range(seeds)
    ]


def experiment_from(content: Any, where: object) -> Experiment:
    """An experiment from its JSON form.

    Args:
        content: what JSON holds, which may be anything.
        where: for the message.

    Raises:
        NoRun: a setting is missing, unknown or not as it may be.
    """
    sections = {"data": DataConfig, "model": ModelConfig, "objective": ObjectiveConfig, "training": TrainingConfig}
    try:
        parts = {name: _dataclass_from(kind, content[name]) for name, kind in sections.items()}
        experiment = _dataclass_from(Experiment, {**content, **parts})
        check_settings(experiment)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NoRun(f"{where} must hold the settings of a run, got others: {reason(error)}: train anew") from error
    return experiment


def _dataclass_from(kind: Any, content: Mapping[str, Any]) -> Any:
    missing = {each.name for each in fields(kind)} - set(content)
    if missing:
        raise TypeError(f"no {', '.join(sorted(missing))}")
    # JSON has no tuples.
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})
