"""`celltwin runs`: list run folders and compare what their models reached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from celltwin import files, tracking
from celltwin.console import note, out
from celltwin.errors import CelltwinError
from celltwin.evaluation import runs
from celltwin.evaluation.report.metrics import figure_text, number_text
from celltwin.evaluation.report.runs_page import runs_page


def runs_(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="Run folders, or folders of them; default runs.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="rmse, mae, p99, max, headline, max_settled; default: the one that ranks.")
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="Write the leaderboard page with plots here.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
    mlflow: Annotated[
        str | None, typer.Option("--mlflow", metavar="URI", help="Log these runs to MLflow: a folder or a server.")
    ] = None,
) -> None:
    """List finished runs, and compare those that were tested on the same records."""
    found = runs.find(folders or [Path("runs")])
    if not found:
        where = ", ".join(map(str, folders or ["runs"]))
        raise CelltwinError(f"there is no finished run in {where}", fix="celltwin benchmark --out runs/first makes one")
    for group in runs.comparable(found):
        chosen = runs.metric_of(group, metric)
        if metric not in (None, chosen):
            note(f"runs of task {group[0].task} have no {metric}; compared by {chosen}")
        out.print(_table(group, chosen))
    if out_file is not None:
        files.write_text(out_file, runs_page(found, metric))
        out.print(f"leaderboard: {out_file}", soft_wrap=True)
    if json_file is not None:
        files.write_json(json_file, [_plain(run) for run in found])
        out.print(f"figures: {json_file}", soft_wrap=True)
    if mlflow is not None:
        new = sum(tracking.log(run.folder, mlflow) for run in found)
        out.print(f"logged to {mlflow}: {new} new", soft_wrap=True)


def _table(group: list[runs.Run], metric: str) -> Table:
    """Runs as rows with their facts, models as columns; the least of each column is marked."""
    first = group[0]
    title = f"{first.dataset}, {first.task}: {metric} in {runs.FIGURES[first.task][1]}"
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for name in ("run", "UTC", "celltwin", "commit", "seeds"):
        table.add_column(name, no_wrap=name != "run")
    models = runs.ranked(group, metric)
    for name in models:
        table.add_column(name, justify="right")
    for run in group:
        cells = []
        for name in models:
            figure = run.figure(name, metric)
            least = min(v for r in group if (v := r.figure(name, metric).mean) is not None)
            text = "" if figure.mean is None else figure_text(figure, 2).replace(" ± ", " ±")
            cells.append(f"[bold green]{text}[/]" if figure.mean == least and len(group) > 1 else text)
        seeds = number_text(len(run.seeds), 0) + (" quick" if run.quick else "")
        table.add_row(run.name, run.created[:16].replace("T", " "), run.celltwin, run.commit or "–", seeds, *cells)
    return table


def _plain(run: runs.Run) -> dict[str, object]:
    return {
        "folder": str(run.folder),
        "title": run.title,
        "task": run.task,
        "dataset": run.dataset,
        "created": run.created,
        "celltwin": run.celltwin,
        "commit": run.commit,
        "seeds": list(run.seeds),
        "quick": run.quick,
        "tested_on": run.tested_on,
        "models": run.models,
    }
