"""What commands show of jobs and of figures: a progress bar for each job, a table of scored records."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from celltwin import jobs, models
from celltwin.console import err
from celltwin.evaluation import protocol
from celltwin.learning import training
from celltwin.learning.tasks import TASKS

COLUMNS = {
    "voltage": {"RMSE mV": "rmse", "MAE": "mae", "p99": "p99", "worst": "max"},
    "adapted": {"RMSE mV": "rmse", "before": "rmse_before", "p99": "p99", "worst": "max"},
    "soc": {
        "MAE points": "mae",
        "RMSE": "rmse",
        "p99": "p99",
        "worst": "max",
        "worst after 100 s": "max_settled",
        "within 95 % band": "coverage",
    },
}


@contextmanager
def bars() -> Iterator[jobs.Listen]:
    """A progress bar for each job, with its time to go, and what the last round showed."""
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=err) as progress:
        tasks: dict[str, Any] = {}
        lock = threading.Lock()

        def listen(job: str, share: float, round_: training.Progress | None) -> None:
            with lock:
                if job not in tasks:
                    tasks[job] = progress.add_task(job, total=1.0, last="")
            progress.update(tasks[job], completed=share)
            if round_ is not None:
                unit = TASKS[models.family(job.rpartition("-")[0]).task].unit
                checked = "" if round_.validate != round_.validate else f", validation {round_.validate:.2f} {unit}"
                progress.update(tasks[job], last=f"training {round_.train:.2f}{checked}")

        yield listen


def rows_table(title: str, rows: Sequence[protocol.Row], task: str) -> Table:
    """Figures of scored records, one a line, and of all of them."""
    table = Table(title=title, box=None)
    columns = COLUMNS[task]
    if task == "voltage" and "coverage" in rows[0]:
        columns = columns | {"within band": "coverage", "band ± mV": "half_width"}
    table.add_column("cycle", style="bold")
    for name in ("ambient", *columns, "outside domain"):
        table.add_column(name, justify="right")

    def shown(row: protocol.Row) -> list[str]:
        digits = 2 if task == "soc" else 1
        return [f"{100 * row[k]:.1f} %" if k == "coverage" else f"{row[k]:.{digits}f}" for k in columns.values()]

    for row in rows:
        ambient = row["ambient_degC"]
        table.add_row(
            f"{row['cell']} {row['cycle']}".strip(),
            "" if ambient != ambient else f"{ambient:g} °C",
            *shown(row),
            f"{100 * row['out_of_domain']:.1f} %",
        )
    table.add_section()
    table.add_row("mean (worst: of all)", "", *shown(protocol.overall(rows)), "")
    return table
