"""Experiments: what a benchmark is asked for, in a file that can be run again.

    title = "LG 18650HG2, voltage"
    dataset = "lg_18650hg2"               # a registered name, or a path relative to this file
    task = "voltage"                      # or "soc", "pack"
    models = ["thevenin", "narx", "lstm"] # default: the task's usual ones
    seeds = 5                             # how many, or which: [0, 1, 7]
    split = "cold"                        # default: [split] of the dataset
    folds = 4                             # bands from training cycles that a model was trained without; default 0, none

    [training.narx]                       # what differs from the model's own plan of training
    adam_rounds = 30

`config.json` of a run folder is such an experiment too, with all that was left open filled in and the hashes of the
records: running it again gives the same figures, or says that the data are others.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from celltwin import settings
from celltwin.data.record import Record
from celltwin.data.splits import Split
from celltwin.errors import CelltwinError
from celltwin.learning.plan import Plan

CONFIG = "config.json"  # of a run folder


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Experiment(_Strict):
    """What `celltwin benchmark` is to do."""

    title: str = ""
    dataset: str = "demo"
    task: Literal["voltage", "soc", "pack"] | None = None
    models: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    seeds: PositiveInt | Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = 1
    split: str | None = None
    folds: NonNegativeInt = 0
    quick: bool = False
    training: dict[str, Plan] = {}
    records: dict[str, dict[str, str]] = {}  # by side of the split: label and content hash, as `hashes` gives them

    @field_validator("split", mode="before")
    @classmethod
    def _split_is_a_name(cls, split: Any) -> Any:
        if isinstance(split, dict):
            raise ValueError(
                "a split is named here, and written in dataset.toml as [splits.NAME]; default: its [split]"
            )
        return split

    @model_validator(mode="after")
    def _seed_is_said_once(self) -> Experiment:
        for name, plan in self.training.items():
            if "seed" in plan.model_fields_set:
                raise ValueError(f"training.{name} has a seed; the seeds of an experiment are its `seeds`")
        return self

    @model_validator(mode="after")
    def _a_part_is_left_out(self) -> Experiment:
        if self.folds == 1:
            raise ValueError("one fold leaves nothing to train on; folds are 0, for none, or 2 and more")
        return self

    @property
    def seed_numbers(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """By model: the settings of its plan that are said."""
        return {name: plan.said for name, plan in self.training.items()}


class _FitFile(_Strict):
    """What `celltwin fit --config` takes: [training] changes the plan of the one model."""

    training: Plan = Plan()


def load(path: str | Path) -> Experiment:
    """The experiment in a TOML file, or of a run folder or its config.json.

    Raises CelltwinError for a missing file, a key that is not known (with the nearest one) or a wrong value.
    """
    path = Path(path)
    if path.is_dir():
        path = path / CONFIG
    if not path.is_file():
        raise CelltwinError(
            f"there is no experiment {path}", got="no such file", expected="a TOML file, or the folder of a run"
        )
    experiment = settings.read(path, Experiment)
    beside = path.parent / experiment.dataset
    return experiment.model_copy(update={"dataset": str(beside)}) if beside.exists() else experiment


def plan_changes(path: Path) -> dict[str, Any]:
    """Settings of a plan that a file's [training] table says, without a seed. Raises CelltwinError as `load`."""
    plan = settings.read(path, _FitFile).training
    if "seed" in plan.model_fields_set:
        raise CelltwinError(
            f"{path}: [training] has a seed", got=plan.seed, expected="a plan's other settings", fix="use --seed"
        )
    return plan.said


def hashes(split: Split) -> dict[str, dict[str, str]]:
    """Content hashes of the records of each side, by their labels."""
    sides = ("train", "validate", "test")
    return {side: {record.label: record.content_hash for record in getattr(split, side)} for side in sides}


def refuse_other_data(experiment: Experiment, found: dict[str, dict[str, str]]) -> None:
    """Raise CelltwinError where an experiment names its records, and these are others."""
    if not experiment.records or experiment.records == found:
        return
    raise CelltwinError(
        f"the records of {experiment.dataset} are not those of the experiment",
        got=_difference(experiment.records, found),
        expected="the same content on the same side of the split",
        fix="restore the data, or remove `records` from the experiment to run it on these",
    )


def _difference(wanted: dict[str, dict[str, str]], found: dict[str, dict[str, str]]) -> str:
    def flat(sides: dict[str, dict[str, str]]) -> dict[str, str]:
        return {f"{side}: {label}": code for side, labels in sides.items() for label, code in labels.items()}

    old, new = flat(wanted), flat(found)
    parts = [
        _few("missing", sorted(old.keys() - new.keys())),
        _few("in excess", sorted(new.keys() - old.keys())),
        _few("changed", sorted(label for label in old.keys() & new.keys() if old[label] != new[label])),
    ]
    return "; ".join(part for part in parts if part)


def _few(what: str, labels: Iterable[str], most: int = 3) -> str:
    labels = list(labels)
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return f"{what} {', '.join(labels[:most])}{more}" if labels else ""


def of_records(records: Iterable[Record]) -> dict[str, dict[str, str]]:
    """Content hashes of records that have no sides."""
    return {"all": {record.label: record.content_hash for record in records}}
