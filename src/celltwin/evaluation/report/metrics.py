"""`metrics.json` as it must be, what is read off it, and its numbers as text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from celltwin.errors import CelltwinError
from celltwin.files import read_json

METRICS = "metrics.json"


class CellFacts(BaseModel):
    name: str = ""
    chemistry: str = ""
    nominal_capacity_ah: float | None = None
    reference_capacity_ah: float | None = None
    voltage_limits_volt: list[float] = []


class Split(BaseModel):
    train: list[str] = []
    validate_: list[str] = Field(default=[], alias="validate")
    test: list[str] = []


class Dataset(BaseModel):
    name: str
    cell: CellFacts = CellFacts()
    licence: str = ""
    citation: str = ""
    split: Split = Split()


class Row(BaseModel):
    """One model with one seed on one cycle. Errors in mV; `out_of_domain` is a share of the samples."""

    cycle: str
    cell: str = ""
    ambient_degC: float | None = None
    split: str
    seed: int = 0
    rmse: float | None = None
    mae: float | None = None
    max: float | None = None
    p99: float | None = None
    n: int | None = None
    nrmse: float | None = None
    r2: float | None = None
    rmse_transient: float | None = None
    rmse_rest: float | None = None
    bias: float | None = None
    coverage: float | None = None  # share of the samples within the band of the twin, where it has one
    half_width: float | None = None  # mean of the band's half, in mV
    out_of_domain: float | None = None

    @property
    def record(self) -> tuple[str, float | None, str]:
        """What the row was scored on, whatever the model and the seed."""
        return self.cell, self.ambient_degC, self.cycle


class Overall(BaseModel):
    """Of the test split, in mV; `rmse_std` over seeds."""

    rmse: float | None = None
    rmse_std: float | None = None
    mae: float | None = None
    max: float | None = None
    p99: float | None = None
    coverage: float | None = None
    half_width: float | None = None


class Epoch(BaseModel):
    epoch: int
    train_rmse: float | None = None
    validate_rmse: float | None = None


class Curves(BaseModel):
    """What a model learned of the cell: over `soc`, one list per temperature."""

    soc: list[float] = []
    temperature_degC: list[float] = []
    ocv_volt: list[list[float | None]] = []
    r0_ohm: list[list[float | None]] = []
    r_total_ohm: list[list[float | None]] = []

    @model_validator(mode="after")
    def _one_list_per_temperature(self) -> Self:
        for name in ("ocv_volt", "r0_ohm", "r_total_ohm"):
            lists = getattr(self, name)
            if lists and [len(values) for values in lists] != [len(self.soc)] * len(self.temperature_degC):
                raise ValueError(f"{name} needs one list over soc for each of temperature_degC")
        return self


class Microcontroller(BaseModel):
    """What the emitted C costs on one; the time is an estimate."""

    cpu: str
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    instructions: float
    estimated_microseconds: float


class ModelFacts(BaseModel):
    """What is known of a model or estimator, whatever it says of the cell."""

    name: str
    title: str = ""
    trained: bool = True
    parameters: int | None = None
    training_seconds: float | None = None
    microseconds_per_step: float | None = None
    microcontroller: Microcontroller | None = None
    seeds: list[int] = []
    twin: str | None = None


class ModelRun(ModelFacts):
    rows: list[Row] = []
    overall: Overall = Overall()
    history: dict[str, list[Epoch]] | None = None
    curves: Curves | None = None
    left_out_rmse: float | None = None  # mV, with folds: of their models on the training cycles left out

    @property
    def test(self) -> list[Row]:
        return [row for row in self.rows if row.split == "test"]


class RunFacts(BaseModel):
    """What is known of a run, whatever its models say."""

    celltwin: str
    created: str = ""
    seconds: float | None = None
    quick: bool = False  # trained a fifth of what is due
    dataset: Dataset


class Metrics(RunFacts):
    task: Literal["voltage"]
    models: list[ModelRun]

    @property
    def ranked(self) -> list[ModelRun]:
        """Trained models, best overall RMSE first, then the baselines likewise."""
        return sorted(self.models, key=lambda model: (not model.trained, or_infinity(model.overall.rmse)))

    @property
    def ambients(self) -> list[float | None]:
        """Of the test rows, in degC, coldest first; None (not known) last."""
        return sorted({row.ambient_degC for model in self.models for row in model.test}, key=or_infinity)

    @property
    def folded(self) -> bool:
        """Was any model trained without a part of the training cycles, and scored on it?"""
        return any(model.left_out_rmse is not None for model in self.models)

    @property
    def banded(self) -> list[ModelRun]:
        """Those of `ranked` whose twins have bands."""
        return [model for model in self.ranked if model.overall.coverage is not None]


Checked = TypeVar("Checked", bound=BaseModel)


def check(data: object, where: str) -> Metrics:
    return check_as(Metrics, data, where, "voltage")


def check_as(kind: type[Checked], data: object, where: str, benchmark: str) -> Checked:
    """The data as a `kind`. Raises CelltwinError where they are not the result of that benchmark."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise CelltwinError(
            f"{where} is not the result of a {benchmark} benchmark",
            got=f"{place}: {first['msg']} ({error.error_count()} such faults)",
            expected="task, celltwin, dataset and models as `celltwin benchmark` writes them",
            fix="run the benchmark again",
        ) from error


def read_metrics(run: Path) -> Any:
    """What `metrics.json` of a run holds, still to be checked. Raises CelltwinError where it is missing or no JSON."""
    path = run / METRICS
    if not path.is_file():
        raise CelltwinError(
            f"no {METRICS} in {run}",
            got="a folder without it" if run.is_dir() else "no such folder",
            expected="the run folder of a benchmark",
            fix="give the folder that `celltwin benchmark --out DIR` wrote",
        )
    return read_json(path)


def task_of(data: object) -> object:
    """What the models of unchecked metrics say."""
    return data.get("task") if isinstance(data, dict) else None


@dataclass(frozen=True)
class Figure:
    """A mean and, where several seeds were run, its standard deviation over them."""

    mean: float | None
    spread: float | None = None


def or_infinity(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value


def finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def mean_rmse(rows: Iterable[Row]) -> Figure:
    """Mean over cycles, then over seeds. A row without RMSE leaves none at all: failures do not hide."""
    return mean_over_seeds((row.seed, row.rmse) for row in rows)


def mean_over_seeds(values: Iterable[tuple[int, float | None]]) -> Figure:
    """Of pairs of seed and value: the mean of each seed's, then over seeds. One missing value leaves none at all."""
    by_seed: dict[int, list[float]] = {}
    for seed, value in values:
        by_seed.setdefault(seed, []).append(math.nan if value is None else value)
    means = [sum(values) / len(values) for values in by_seed.values()]
    if not means or any(math.isnan(mean) for mean in means):
        return Figure(None)
    mean = sum(means) / len(means)
    several = len(means) > 1 and math.isfinite(mean)
    return Figure(mean, statistics.stdev(means) if several else None)


def rmse_at(model: ModelRun, ambient: float | None) -> Figure:
    return mean_rmse(row for row in model.test if row.ambient_degC == ambient)


def coverage_at(model: ModelRun, ambient: float | None) -> float | None:
    """Share of the samples within the band: mean over the cycles of an ambient temperature, then over seeds."""
    return mean_over_seeds((row.seed, row.coverage) for row in model.test if row.ambient_degC == ambient).mean


def rmse_overall(model: ModelRun) -> Figure:
    return Figure(model.overall.rmse, model.overall.rmse_std)


def number_text(value: float | None, digits: int = 1) -> str:
    if value is None or math.isnan(value):
        return "–"
    text = "∞" if math.isinf(value) else f"{abs(value):,.{digits}f}"
    return f"−{text}" if value < 0 and text.strip("0.") else text


def percent_text(share: float | None, digits: int = 1) -> str:
    return number_text(None if share is None else 100.0 * share, digits)


def degrees_text(ambient: float | None) -> str:
    return "ambient unknown" if ambient is None else f"{number_text(ambient, 0 if ambient == round(ambient) else 1)} °C"


def figure_text(figure: Figure, digits: int = 1) -> str:
    spread = f" ± {number_text(figure.spread, digits)}" if figure.spread is not None else ""
    return number_text(figure.mean, digits) + spread
