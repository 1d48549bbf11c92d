"""One self-contained page from a run folder, and its leaderboard for the terminal.

`write` reads what a benchmark left behind (`metrics.json`, `predictions/*.parquet`, `config.json` and
`environment.json`) and nothing else, so every number on the page can be traced to the run folder. The page loads
nothing from the network: plotly.js, the style sheet, the program and the data are inside it, and its content
security policy forbids the rest. Tables are plain HTML; figures are drawn in the browser from a block of JSON.

Errors of voltage are in mV, simulated minus measured; of state of charge in points, estimated minus labelled. A
figure per ambient temperature or condition is the mean over its test cycles, then over seeds; `±` is the standard
deviation over seeds. Overall figures are those of the file.
"""

from __future__ import annotations

from pathlib import Path

from celltwin.evaluation.report.figures import read_figures
from celltwin.evaluation.report.metrics import METRICS, check, read_metrics, task_of
from celltwin.evaluation.report.pack_page import pack_page
from celltwin.evaluation.report.page import html_page
from celltwin.evaluation.report.soc_figures import read_estimates
from celltwin.evaluation.report.soc_metrics import check_estimates
from celltwin.evaluation.report.soc_page import soc_page
from celltwin.evaluation.report.terminal import leaderboard, leaderboard_svg
from celltwin.files import read_json, write_text

__all__ = ["leaderboard", "leaderboard_svg", "write"]


def write(run: Path, out: Path | None = None) -> Path:
    """Write the page of the run folder `run` to `out` (default: `report.html` in it); returns its path.

    The file appears whole or not at all. `config.json`, `environment.json` and the predictions may be missing:
    the page says so in their place.

    Raises:
        CelltwinError: `metrics.json` is missing, or a file of the run folder is not what it should be.
    """
    run = Path(run)
    out = run / "report.html" if out is None else Path(out)
    result, where = read_metrics(run), str(run / METRICS)
    config, environment = (
        read_json(path) if (path := run / name).is_file() else None for name in ("config.json", "environment.json")
    )
    if task_of(result) == "soc":
        estimates = check_estimates(result, where)
        page = soc_page(estimates, read_estimates(run, estimates), config, environment)
    elif task_of(result) == "pack":
        page = pack_page(result, run)
    else:
        metrics = check(result, where)
        page = html_page(metrics, read_figures(run, metrics), config, environment)
    write_text(out, page)
    return out
