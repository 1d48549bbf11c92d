"""The leaderboard for the terminal, and a picture of it."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from celltwin.evaluation.report.metrics import (
    Figure,
    ModelRun,
    check,
    degrees_text,
    figure_text,
    number_text,
    or_infinity,
    rmse_at,
    rmse_overall,
)
from celltwin.files import write_text


def _brief(figure: Figure) -> str:
    digits = 0 if or_infinity(figure.mean) >= 1000.0 else 1
    return figure_text(figure, digits).replace(" ± ", " ±")


def leaderboard(metrics: dict[str, Any]) -> Table:
    """The leaderboard of a loaded `metrics.json` as a table for the terminal, errors in mV.

    Trained models first, best overall RMSE on top, baselines apart. Fits in 110 columns with up to six
    ambient temperatures and names of up to 12 letters.

    Raises:
        CelltwinError: `metrics` is not the content of a voltage benchmark's `metrics.json`.
    """
    checked = check(metrics, "metrics")
    ambients = checked.ambients
    table = Table(
        title=Text(f"{checked.dataset.name}: RMSE in mV on the test cycles, closed loop"),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        header_style="bold",
        title_justify="left",
    )
    table.add_column("Model", no_wrap=True)
    headings = ["Params", *(degrees_text(ambient) for ambient in ambients), "All", "Worst", "Train s", "µs/step"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    trained = [model for model in checked.ranked if model.trained]
    columns: list[Callable[[ModelRun], tuple[float | None, str]]] = [
        lambda m: (m.parameters, number_text(m.parameters, 0)),
        *((lambda m, at=ambient: (rmse_at(m, at).mean, _brief(Figure(rmse_at(m, at).mean)))) for ambient in ambients),
        lambda m: (m.overall.rmse, _brief(rmse_overall(m))),
        lambda m: (m.overall.max, number_text(m.overall.max, 0)),
        lambda m: (m.training_seconds, number_text(m.training_seconds, 0)),
        lambda m: (m.microseconds_per_step, number_text(m.microseconds_per_step, 2)),
    ]
    least = [min((or_infinity(column(model)[0]) for model in trained), default=math.inf) for column in columns]
    for model in checked.ranked:
        cells = [Text(model.name, style="bold" if model is checked.ranked[0] else "" if model.trained else "dim")]
        for column, best in zip(columns, least, strict=True):
            value, text = column(model)
            mark = model.trained and len(trained) > 1 and value == best and math.isfinite(best)
            cells.append(Text(text, style="bold green" if mark else "" if model.trained else "dim"))
        table.add_row(*cells, end_section=model is (trained[-1] if trained else None))
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
