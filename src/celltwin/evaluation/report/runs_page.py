"""The page of many runs: the leaderboard over all of them, and each model's figure from run to run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from celltwin.data.sheets import count
from celltwin.evaluation.report.metrics import figure_text, number_text
from celltwin.evaluation.report.page import Section, document, plain_table
from celltwin.evaluation.runs import FIGURES, Run, comparable, metric_of, ranked


def runs_page(runs: Sequence[Run], metric: str | None = None) -> str:
    """The page as HTML; only runs that were tested on the same records stand side by side."""
    groups = comparable(runs)
    top = (
        '<header><p class="kicker">Leaderboard</p><h1>Runs</h1>'
        f"<p>{count(len(runs), 'run')} on {count(len(groups), 'set')} of test records. Figures are compared within a "
        "set only: on other records the same error means something else. Every score is closed loop.</p></header>"
    )
    sections: list[Section] = []
    drawn = []
    for number, group in enumerate(groups, 1):
        first, chosen = group[0], metric_of(group, metric)
        unit = FIGURES[first.task][1]
        models = ranked(group, chosen)
        text = f"{chosen} in {unit} on the test records; ± is the standard deviation over seeds. Least is best."
        several = len(group) > 1
        figure = f'<div class="figure" id="runs-{number}"></div>' if several else ""
        heading = f"{escape(first.dataset)}: {first.task}"
        sections.append((f"group-{number}", heading, text, figure + _best(group, chosen, models) + _listed(group)))
        if several:
            drawn.append(_drawn(group, chosen, models, f"runs-{number}", f"{chosen} in {unit}"))
    return document("runs", top, sections, {"groups": drawn}, "runs.js")


def _drawn(group: Sequence[Run], metric: str, models: Sequence[str], place: str, title: str) -> dict[str, Any]:
    figures = {name: [run.figure(name, metric) for run in group] for name in models}
    return {
        "figure": place,
        "title": title,
        "runs": [run.name for run in group],
        "models": {
            name: {"value": [one.mean for one in each], "spread": [one.spread for one in each]}
            for name, each in figures.items()
        },
    }


def _best(group: Sequence[Run], metric: str, models: Sequence[str]) -> str:
    rows = []
    for name in models:
        scored = [run for run in group if run.figure(name, metric).mean is not None]
        if scored:
            best = min(scored, key=lambda run: run.figure(name, metric).mean or 0.0)
            cells = [name, figure_text(best.figure(name, metric), 2), best.name, number_text(len(best.seeds), 0)]
            rows.append([*cells, number_text(len(scored), 0), "quick" if best.quick else ""])
    return plain_table(["Model", "Best", "Run", "Seeds", "Runs", "Note"], rows)


def _listed(group: Sequence[Run]) -> str:
    rows = [
        [
            run.name,
            run.title,
            run.created.replace("T", " ").replace("Z", ""),
            run.celltwin,
            run.commit or "–",
            number_text(len(run.seeds), 0),
            number_text(run.seconds / 60.0),
            run.best or "–",
        ]
        for run in group
    ]
    return "<h3>Runs</h3>" + plain_table(
        ["Run", "Title", "UTC", "celltwin", "Commit", "Seeds", "Minutes", "Best"], rows
    )
