"""The folder of a training run: its configuration, its metrics by epoch, its summary and where the rest lies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeAlias

from vae_jax.files import append_json_line, json_ready, reason, replacing, write_csv
from vae_jax.sealed_json import SEAL, BrokenSeal, digest_of, json_object, unsealed, write_sealed
from vae_jax.settings import check_settings
from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, ObjectiveConfig, TrainingConfig
from vae_jax.vae.config.setting_conflicts import check_settings_agree
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
        write_sealed(self.path / "config.json", content)

    def read_config(self) -> dict[str, Any]:
        """The content of config.json, through which every reader of a run goes first.

        Raises:
            NoRun: there is none, or it is not as it was written.
            OtherSchema: another version of the library wrote it.
        """
        path = self.path / "config.json"
        try:
            written = path.read_bytes()
        except FileNotFoundError:
            raise NoRun(
                f"{self.path} must be the folder of a run, got one without config.json: train it first"
            ) from None
        except OSError as error:
            raise NoRun(f"{path} must be a file that can be read, got {reason(error)}") from error
        try:
            # What the seal of another version covers is not known.
            check_schema_version(json_object(written, path), path)
            return unsealed(written, path)
        except BrokenSeal as error:
            raise NoRun(f"{error}: restore the file, or train anew; flags change the settings of a run") from error

    def experiment(self) -> Experiment:
        """The configured experiment.

        Raises:
            NoRun: as `read_config`, or a setting is not as it may be.
            OtherSchema: as `read_config`.
        """
        return experiment_from(self.read_config().get("experiment", {}), self.path / "config.json")

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
        write_sealed(self.summary_path(split), {"num_epochs": len(self.rows()), **summary})

    def append_row(self, row: EpochRow) -> None:
        """Adds an epoch to metrics.jsonl, so that it outlives the process.

        Each line ends in the SHA-256 of itself and of all lines before.
        """
        row = json_ready(row)
        before = self._seals()[-1:] or [""]
        append_json_line(self._metrics, {**row, SEAL: digest_of(row, before[0])})

    def rows(self) -> list[EpochRow]:
        """The epochs of metrics.jsonl. The last is left out if it was cut short in writing.

        Raises:
            NoRun: a line is not as it was written.
        """
        rows, before = [], ""
        for number, line in enumerate(self._lines(), start=1):
            row = self._row(line, number)
            seal = row.pop(SEAL, None)
            before = digest_of(row, before)
            if seal != before:
                raise NoRun(f"{self._metrics} must be as it was written, got another line {number}: {RESTORE}")
            rows.append(row)
        return rows

    def keep_rows(self, rows: Sequence[EpochRow]) -> None:
        """Makes these the epochs of metrics.jsonl."""
        with replacing(self._metrics) as file:
            before = ""
            for row in map(json_ready, rows):
                before = digest_of(row, before)
                file.write(json.dumps({**row, SEAL: before}) + "\n")

    def facts(self, experiment: Experiment, num_epochs: int) -> dict[str, Any]:
        """Facts that a checkpoint keeps about its run: digests of the settings and of the metrics so far."""
        return {
            "settings": digest_of(json_ready(_lasting(experiment))),
            "num_epochs": num_epochs,
            "metrics": [*self._seals(), *[""] * num_epochs][num_epochs - 1] if num_epochs else "",
        }

    def check_facts(self, facts: Mapping[str, Any], experiment: Experiment, step: int) -> None:
        """Refuses a folder whose configuration or metrics are not those that a checkpoint was saved with.

        Args:
            facts: facts of the checkpoint, from `facts`.
            experiment: the experiment of the run.
            step: the step of the checkpoint, for the message.

        Raises:
            NoRun: another configuration, or fewer or other metrics.
        """
        if not facts:
            return
        rows = self.rows()
        now = self.facts(experiment, facts["num_epochs"])
        if now["settings"] != facts["settings"]:
            raise NoRun(
                f"{self.path / 'config.json'} must hold the settings that the checkpoint of step {step} was trained "
                f"with, got others: {RESTORE}"
            )
        if len(rows) < facts["num_epochs"] or now["metrics"] != facts["metrics"]:
            raise NoRun(
                f"{self._metrics} must hold the {facts['num_epochs']} epochs before the checkpoint of step {step}, got "
                f"{len(rows)} epochs or others: {RESTORE}"
            )

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def _lines(self) -> list[bytes]:
        """The lines of metrics.jsonl that were written to their end."""
        try:
            return self._metrics.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise NoRun(f"{self._metrics} must be a file that can be read, got {reason(error)}") from error

    def _row(self, line: bytes, number: int) -> EpochRow:
        try:
            row = json_object(line, self._metrics)
        except BrokenSeal as error:
            raise NoRun(f"{error} in line {number}: {RESTORE}") from error
        if json.dumps(row).encode() != line:
            raise NoRun(f"{self._metrics} must be as it was written, got another line {number}: {RESTORE}")
        return row

    def _seals(self) -> list[str]:
        return [self._row(line, number).get(SEAL, "") for number, line in enumerate(self._lines(), start=1)]

    def write_csv(self) -> None:
        """Writes metrics.csv from metrics.jsonl, a line for each epoch and seed."""
        lines = [line for row in self.rows() for line in _by_seed(row)]
        if lines:
            write_csv(self.path / "metrics.csv", lines)


RESTORE = "restore the file from a copy, or train anew"


def _lasting(experiment: Experiment) -> dict[str, Any]:
    """The settings that do not change when a run is resumed."""
    settings = asdict(experiment)
    del settings["data"]["data"], settings["data"]["data_dir"], settings["training"]["num_epochs"]
    return settings


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
        check_settings_agree(experiment)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NoRun(f"{where} must hold the settings of a run, got others: {reason(error)}: train anew") from error
    return experiment


def _dataclass_from(kind: Any, content: Mapping[str, Any]) -> Any:
    missing = {each.name for each in fields(kind)} - set(content)
    if missing:
        raise TypeError(f"no {', '.join(sorted(missing))}")
    # JSON has no tuples.
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})
