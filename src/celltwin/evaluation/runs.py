"""Run folders side by side: which there are, and what their models reached on the same test records."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celltwin.errors import CelltwinError
from celltwin.evaluation.report.metrics import METRICS, Figure, task_of
from celltwin.files import read_json

log = logging.getLogger("celltwin")

# By task: the figures that runs can be compared by, the one that ranks first, and their unit.
FIGURES = {
    "voltage": (("rmse", "mae", "p99", "max"), "mV"),
    "soc": (("headline", "mae", "rmse", "max_settled"), "points"),
    "pack": (("rmse", "max", "soc_rmse"), "mV"),
}
_SPREAD = {"rmse": "rmse_std", "headline": "headline_std"}


@dataclass(frozen=True)
class Run:
    """What a run folder says of itself."""

    folder: Path
    task: str
    dataset: str
    created: str
    seconds: float
    celltwin: str
    title: str = ""
    commit: str | None = None  # of the checkout it ran from; with a + where that was changed
    seeds: tuple[int, ...] = ()
    quick: bool = False
    tested_on: str = ""  # hash of the test records' content: runs of the same one can be compared
    models: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name: the overall figures

    @property
    def name(self) -> str:
        return self.folder.name

    def figure(self, model: str, metric: str) -> Figure:
        """One model's figure with its spread over seeds; without a value where it is not known."""
        overall = self.models.get(model, {})
        return Figure(overall.get(metric), overall.get(_SPREAD.get(metric, "")))

    @property
    def best(self) -> str | None:
        """The model that ranks first."""
        metric = FIGURES[self.task][0][0]
        scored = {name: value for name in self.models if (value := self.figure(name, metric).mean) is not None}
        return min(scored, key=lambda name: scored[name]) if scored else None


def find(folders: Iterable[Path]) -> list[Run]:
    """The finished runs in these folders and below them, the newest last; what is no run or damaged is logged.

    Raises CelltwinError where a folder does not exist.
    """
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CelltwinError(f"there is no folder {folder}", expected="a run folder, or a folder of them")
        for path in sorted(folder.rglob(METRICS)):
            try:
                runs[path.parent.resolve()] = read(path.parent)
            except CelltwinError as error:
                log.warning("%s is left out: %s", path.parent, error)
    return sorted(runs.values(), key=lambda run: (run.created, str(run.folder)))


def read(folder: Path) -> Run:
    """The run in a folder. Raises CelltwinError where its metrics.json is missing or not that of a benchmark."""
    metrics = read_json(folder / METRICS)
    config, environment = (
        read_json(folder / name) if (folder / name).is_file() else {} for name in ("config.json", "environment.json")
    )
    task = str(task_of(metrics))
    if task not in FIGURES:
        raise CelltwinError(
            f"{folder / METRICS} is not of a benchmark", got=f"task {task}", expected=", ".join(FIGURES)
        )
    try:
        checkout = environment.get("git")
        return Run(
            folder,
            task,
            metrics["dataset"]["name"],
            metrics["created"],
            float(metrics["seconds"]),
            metrics["celltwin"],
            config.get("title", ""),
            checkout and checkout["commit"][:9] + ("+" if checkout["changed"] else ""),
            tuple(config.get("seeds", ())),
            bool(config.get("quick", False)),
            _tested_on(config, metrics),
            {model["name"]: _overall(model) for model in metrics["models"]},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CelltwinError(
            f"{folder} is damaged", got=f"{type(error).__name__}: {error}", fix="run the benchmark again"
        ) from error


def _overall(model: dict[str, Any]) -> dict[str, Any]:
    """A model's figures over all tests; of packs those of the first set of tests."""
    return model["overall"] if "overall" in model else next(iter(model["sets"].values()))


def _tested_on(config: dict[str, Any], metrics: dict[str, Any]) -> str:
    records = config.get("records", {})
    content = sorted((records.get("test") or records.get("all") or {}).values())
    facts = [metrics["task"], *(content or [metrics["dataset"]["name"]])]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs in groups that were tested on the same records, in the order of their first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.tested_on, []).append(run)
    return list(groups.values())


def metric_of(group: Sequence[Run], wanted: str | None) -> str:
    """The metric to compare a group by: the wanted one where it is said, else the one that ranks first.

    Raises CelltwinError for a metric that no task has.
    """
    known = FIGURES[group[0].task][0]
    if wanted is None:
        return known[0]
    if all(wanted not in names for names, _ in FIGURES.values()):
        every = dict.fromkeys(name for names, _ in FIGURES.values() for name in names)
        raise CelltwinError(f"there is no metric '{wanted}'", got=wanted, expected=", ".join(every))
    return wanted if wanted in known else known[0]


def ranked(group: Sequence[Run], metric: str) -> list[str]:
    """Models of a group, the one with the least figure in any of its runs first."""
    names = dict.fromkeys(name for run in group for name in run.models)

    def least(name: str) -> float:
        values = [value for run in group if (value := run.figure(name, metric).mean) is not None]
        return min(values, default=float("inf"))

    return sorted(names, key=least)


MEASURED_ANEW = ("seconds", "microseconds_per_step", "created", "history", "celltwin", "microcontroller")


def difference(before: Any, after: Any, where: str = "") -> tuple[float, str]:
    """The largest difference between the figures of two runs of one experiment, and where it is; times left out.

    Infinite where one has what the other lacks.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [k for k in (*before, *(k for k in after if k not in before)) if not k.endswith(MEASURED_ANEW)]
        pairs = [(before.get(k), after.get(k), f"{where}/{before.get('name', '')}/{k}") for k in keys]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(b, a, where) for b, a in zip(before, after, strict=True)]
    elif isinstance(before, (int, float)) and isinstance(after, (int, float)):
        return abs(before - after), where
    else:
        return (0.0 if before == after else float("inf")), where
    return max((difference(*pair) for pair in pairs), default=(0.0, where))
