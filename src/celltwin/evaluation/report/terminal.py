"""The leaderboard for the terminal, and a picture of it."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from celltwin.evaluation.protocol import SETTLED
from celltwin.evaluation.report.metrics import (
    Figure,
    Metrics,
    ModelFacts,
    check,
    degrees_text,
    figure_text,
    number_text,
    or_infinity,
    percent_text,
    rmse_at,
    rmse_overall,
    task_of,
)
from celltwin.evaluation.report.pack_page import pack_leaderboard
from celltwin.evaluation.report.soc_metrics import FULL_START, EstimateMetrics, check_estimates
from celltwin.evaluation.report.soc_tables import BAND
from celltwin.files import write_text
from celltwin.learning.bands import LEVEL


def _brief(figure: Figure) -> str:
    digits = 0 if or_infinity(figure.mean) >= 1000.0 else 1
    return figure_text(figure, digits).replace(" ± ", " ±")


Cells = Callable[[Any], tuple[float | None, str]]  # of a model: the value that is compared, and its text


def leaderboard(metrics: dict[str, Any]) -> Table:
    """The leaderboard of a loaded `metrics.json` as a table for the terminal: of voltage in mV, else in points.

    Trained models first, least error on top, baselines apart. Fits in 110 columns with up to six
    ambient temperatures and names of up to 12 letters.

    Raises:
        CelltwinError: `metrics` is not the content of a benchmark's `metrics.json`.
    """
    if task_of(metrics) == "soc":
        return _of_estimators(check_estimates(metrics, "metrics"))
    if task_of(metrics) == "pack":
        return pack_leaderboard(metrics)
    return _of_voltage(check(metrics, "metrics"))


def _of_voltage(metrics: Metrics) -> Table:
    columns: list[tuple[str, Cells]] = [
        ("Params", lambda m: (m.parameters, number_text(m.parameters, 0))),
        *((degrees_text(at), lambda m, at=at: _compared(Figure(rmse_at(m, at).mean))) for at in metrics.ambients),
        ("All", lambda m: _compared(rmse_overall(m))),
        ("Worst", lambda m: (m.overall.max, number_text(m.overall.max, 0))),
        *([("Band", lambda m: _near(m.overall.coverage, LEVEL))] if metrics.banded else []),
        ("Train s", lambda m: (m.training_seconds, number_text(m.training_seconds, 0))),
        ("µs/step", lambda m: (m.microseconds_per_step, number_text(m.microseconds_per_step, 2))),
    ]
    note = f"Band: % of the samples in the {100 * LEVEL:g} % band." if metrics.banded else ""
    return _board(f"{metrics.dataset.name}: RMSE in mV on the test cycles, closed loop", columns, metrics.ranked, note)


def _of_estimators(metrics: EstimateMetrics) -> Table:
    def points(value: float | None) -> tuple[float | None, str]:
        return value, number_text(value, 2)

    columns: list[tuple[str, Cells]] = [
        ("All", lambda m: (m.headline.mean, figure_text(m.headline, 2).replace(" ± ", " ±"))),
        ("Full", lambda m: points(m.overall.mae)),
        *((degrees_text(at), lambda m, at=at: points(m.at(at, FULL_START).mean)) for at in metrics.ambients),
        ("Worst", lambda m: points(m.overall.max_settled)),
        # What is nearest to 95 % is best.
        ("Band", lambda m: _near(m.overall.coverage, BAND)),
        ("Params", lambda m: (m.parameters, number_text(m.parameters, 0))),
        ("µs/step", lambda m: (m.microseconds_per_step, number_text(m.microseconds_per_step, 2))),
    ]
    title = f"{metrics.dataset.name}: MAE of state of charge in points on the test cycles, nothing known"
    note = (
        "All: mean over all starts. The others are of the full start. "
        f"Worst: later than {SETTLED:.0f} s. Band: % of the labels in the 95 % band."
    )
    return _board(title, columns, metrics.ranked, note)


def _compared(figure: Figure) -> tuple[float | None, str]:
    return figure.mean, _brief(figure)


def _near(coverage: float | None, level: float) -> tuple[float | None, str]:
    return None if coverage is None else abs(coverage - level), percent_text(coverage, 0)


def _board(title: str, columns: Sequence[tuple[str, Cells]], ranked: Sequence[ModelFacts], note: str = "") -> Table:
    """The best of the trained models is marked in each column."""
    table = Table(
        title=Text(title),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        header_style="bold",
        title_justify="left",
        caption=Text(note, style="dim") if note else None,
        caption_justify="left",
    )
    table.add_column("Model", no_wrap=True)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    trained = [model for model in ranked if model.trained]
    least = [min((or_infinity(cells(model)[0]) for model in trained), default=math.inf) for _, cells in columns]
    for model in ranked:
        row = [Text(model.name, style="bold" if model is ranked[0] else "" if model.trained else "dim")]
        for (_, cells), best in zip(columns, least, strict=True):
            value, text = cells(model)
            mark = model.trained and len(trained) > 1 and value == best and math.isfinite(best)
            row.append(Text(text, style="bold green" if mark else "" if model.trained else "dim"))
        table.add_row(*row, end_section=model is (trained[-1] if trained else None))
    return table


def leaderboard_svg(metrics: dict[str, Any], path: Path) -> None:
    """Write the terminal leaderboard as a picture that loads no font or anything else from outside.

    Raises:
        CelltwinError: as `leaderboard`.
    """
    table = leaderboard(metrics)
    width = Console(width=1000, file=io.StringIO()).measure(table).maximum
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(table)
    picture = console.export_svg(title="celltwin benchmark", unique_id="celltwin")
    write_text(path, re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))
