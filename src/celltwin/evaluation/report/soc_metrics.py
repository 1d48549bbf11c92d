"""`metrics.json` of estimators of state of charge as it must be, and what is read off it.

Errors are in points of state of charge. A figure of a condition is the mean over its records, then over seeds; its
worst sample is the worst of its records, then the mean over seeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field

from celltwin.evaluation.report.metrics import (
    Figure,
    ModelFacts,
    RunFacts,
    check_as,
    finite,
    mean_over_seeds,
    or_infinity,
)

LIMIT = 2.0  # points of mean error, above which an estimator has to say that it is in doubt
LEAST_COVERAGE = 0.85  # share of samples within the 95 % band, below which it has not said so


class EstimateRow(BaseModel):
    """One estimator with one seed on one cycle under one condition. Errors in points, shares as fractions."""

    condition: str
    group: str
    cycle: str
    cell: str = ""
    ambient_degC: float | None = None
    seed: int = 0
    mae: float | None = None
    rmse: float | None = None
    max: float | None = None
    max_settled: float | None = None
    p99: float | None = None
    n: int | None = None
    bias: float | None = None
    coverage: float | None = None
    nees: float | None = None
    mean_std: float | None = None
    out_of_domain: float | None = None
    return_second: float | None = None

    @property
    def record(self) -> tuple[str, float | None, str]:
        """What the row was scored on, whatever the condition, the estimator and the seed."""
        return self.cell, self.ambient_degC, self.cycle


class EstimateOverall(BaseModel):
    """`headline` over the starts, `headline_std` over seeds; the others of the full start."""

    headline: float | None = None
    headline_std: float | None = None
    mae: float | None = None
    rmse: float | None = None
    max: float | None = None
    max_settled: float | None = None
    coverage: float | None = None
    nees: float | None = None
    nis: float | None = None


class EstimateEpoch(BaseModel):
    """`train` is a loss, `validate` a mean error in points."""

    epoch: int
    train: float | None = None
    validate_: float | None = Field(default=None, alias="validate")


class Condition(NamedTuple):
    group: str
    name: str

    @property
    def title(self) -> str:
        """Its name with minus signs for the hyphens before its numbers."""
        return re.sub(r"-(?=\d)", "−", self.name)


def start_condition(share: float) -> Condition:
    """Of a start at a share of the cycle with nothing known."""
    return Condition("start", f"start at {100 * share:.0f} %")


FULL_START = start_condition(0.0)


@dataclass(frozen=True)
class Stress:
    """How an estimator fares under one condition."""

    mae: Figure
    worst: float | None  # later than 100 s after the start
    coverage: float | None
    std: float | None  # that it states, mean
    returned: float | None  # s, mean over the runs that came back to a small error for good
    back: int  # how many of them came back,
    runs: int  # of how many

    @property
    def over(self) -> bool:
        """Whether the mean error is over the limit."""
        return or_infinity(self.mae.mean) > LIMIT

    @property
    def untold(self) -> bool:
        """Whether the error is over the limit and the stated doubt does not say so."""
        return self.over and (self.coverage is None or not self.coverage >= LEAST_COVERAGE)


class EstimatorRun(ModelFacts):
    rows: list[EstimateRow] = Field(default_factory=list)
    overall: EstimateOverall = EstimateOverall()
    history: dict[str, list[EstimateEpoch]] | None = None
    weight_bytes: int | None = None
    state_bytes: int | None = None

    @property
    def headline(self) -> Figure:
        return Figure(self.overall.headline, self.overall.headline_std)

    @cached_property
    def stresses(self) -> dict[Condition, Stress]:
        """By condition, in the order of the file."""
        parts: dict[Condition, list[EstimateRow]] = {}
        for row in self.rows:
            parts.setdefault(Condition(row.group, row.condition), []).append(row)
        return {condition: _stress(rows) for condition, rows in parts.items()}

    def of_group(self, group: str) -> list[EstimateRow]:
        return [row for row in self.rows if row.group == group]

    def at(self, ambient: float | None, condition: Condition) -> Figure:
        """Mean absolute error at an ambient temperature under a condition."""
        return mean_over_seeds(
            (row.seed, row.mae)
            for row in self.rows
            if row.ambient_degC == ambient and (row.group, row.condition) == condition
        )

    def over_starts(self, ambient: float | None) -> Figure:
        """Mean absolute error at an ambient temperature over all starts with nothing known."""
        return mean_over_seeds((row.seed, row.mae) for row in self.of_group("start") if row.ambient_degC == ambient)


def _stress(rows: Sequence[EstimateRow]) -> Stress:
    times = [row.return_second for row in rows if row.return_second is not None and finite(row.return_second)]
    return Stress(
        mae=mean_over_seeds((row.seed, row.mae) for row in rows),
        worst=worst_settled(rows),
        coverage=mean_over_seeds((row.seed, row.coverage) for row in rows).mean,
        std=mean_over_seeds((row.seed, row.mean_std) for row in rows).mean,
        returned=sum(times) / len(times) if times else None,
        back=len(times),
        runs=len(rows),
    )


def worst_settled(rows: Iterable[EstimateRow]) -> float | None:
    """The worst sample later than 100 s; a record that ends before has none."""
    by_seed: dict[int, float] = {}
    for row in rows:
        if row.max_settled is not None and row.max_settled == row.max_settled:
            by_seed[row.seed] = max(row.max_settled, by_seed.get(row.seed, 0.0))
    return sum(by_seed.values()) / len(by_seed) if by_seed else None


class EstimateMetrics(RunFacts):
    task: Literal["soc"]
    models: list[EstimatorRun]

    @property
    def ranked(self) -> list[EstimatorRun]:
        """Trained estimators, best headline first, then the baselines likewise."""
        return sorted(self.models, key=lambda model: (not model.trained, or_infinity(model.overall.headline)))

    @property
    def ambients(self) -> list[float | None]:
        """In degC, coldest first; None (not known) last."""
        return sorted({row.ambient_degC for model in self.models for row in model.rows}, key=or_infinity)

    @property
    def conditions(self) -> list[Condition]:
        """All that any of the estimators was put to, in the order of the file."""
        return list(dict.fromkeys(condition for model in self.models for condition in model.stresses))

    @property
    def starts(self) -> list[Condition]:
        return [condition for condition in self.conditions if condition.group == "start"]


def check_estimates(data: object, where: str) -> EstimateMetrics:
    return check_as(EstimateMetrics, data, where, "state-of-charge")
