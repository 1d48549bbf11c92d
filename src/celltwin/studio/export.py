"""Files to take away: the twin, its C, ONNX and FMU, a result and a page that shows it."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from celltwin import __version__, files
from celltwin.deploy import c, fmu, onnx
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
from celltwin.studio import figures
from celltwin.studio.session import card_lines, curves_of, figures_of, result_columns
from celltwin.studio.whatif import Answer
from celltwin.twin import Twin

_EXPORTS: dict[str, Callable[[Twin, Path], list[Path]]] = {
    "c": lambda one, folder: c.export(one, folder),
    "onnx": lambda one, folder: onnx.export(one, folder),
    "fmu": lambda one, folder: fmu.export(one, folder),
    "twin": lambda one, folder: [one.save(folder / f"{one.name}.twin")],
}


def take(one: Twin, kind: str, folder: Path) -> Path:
    """Write a twin as "c", "onnx" (each a zip), "fmu" or "twin" into `folder`; the one file that it is.

    Raises CelltwinError where an extra that is needed is not installed, or the model cannot be written so.
    """
    if kind not in _EXPORTS:
        raise CelltwinError("there is no such export", got=kind, expected=", ".join(_EXPORTS))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        written = _EXPORTS[kind](one, Path(inside))
        if len(written) == 1:
            return written[0].replace(folder / written[0].name)
        target = folder / f"{one.name}-{kind}.zip"
        with files.replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in written:
                archive.write(path, f"{one.name}-{kind}/{path.name}")
    return target


def result(row: protocol.Row, folder: Path) -> Path:
    """A record and what the twin said of it, as parquet."""
    target = folder / "result.parquet"
    files.write_table(target, row["record"].table(result_columns(row)))
    return target


def answer(given: Answer, folder: Path) -> Path:
    """A what-if as parquet."""
    target = folder / "what-if.parquet"
    columns = {"soc": given.soc, "energy_wh": given.energy_wh, "in_domain": given.in_domain}
    files.write_table(target, given.record.table(columns))
    return target


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1e293b;margin:2rem auto;max-width:75rem;padding:0 1.5rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}p{color:#475569;max-width:50rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.2rem}dt{color:#64748b}dd{margin:0}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem}.tiles div{border:1px solid #e2e8f0;border-radius:.6rem;padding:.6rem 1rem}
.tiles b{display:block;font-size:1.25rem}.tiles span{color:#64748b}
"""


def report(one: Twin, row: protocol.Row | None, given: Answer | None, folder: Path) -> Path:
    """A page that stands alone: the twin's card, its work on a record, its curves, and a what-if where there is one."""
    parts: list[str] = [_definitions(card_lines(one))]
    drawn = 0

    def draw(shown: Sequence[go.Figure]) -> None:
        nonlocal drawn
        for figure in shown:
            figures.themed(figure, dark=False)
            parts.append(figure.to_html(full_html=False, include_plotlyjs=drawn == 0, config=figures.CONFIG))
            drawn += 1

    if row is not None:
        parts.append(f"<h2>Against {escape(row['record'].label)}</h2>{_tiles(figures_of(row, one.task))}")
        draw([figures.compared(row)])
        if "rmse" in row:
            draw([figures.residual_map([row])])
    if one.task == "voltage":
        parts.append("<h2>What the model holds of the cell</h2>")
        draw([figures.curves(curves_of(one))])
    if given is not None:
        parts.append(f"<h2>What if</h2>{_tiles(given.tiles)}")
        parts.append("".join(f"<p>{escape(line)}</p>" for line in given.log))
        draw([figures.answered(given)])
    title = f"{one.name} of {one.cell.name}"
    target = folder / "report.html"
    files.write_text(
        target,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; img-src data: blob:\">"
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"<p>Written by celltwin {__version__}. Current is positive on charge; error is simulated or estimated minus "
        f"measured; shaded stretches lie outside the training domain.</p>{''.join(parts)}</body></html>",
    )
    return target


def _definitions(lines: Sequence[tuple[str, object]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in lines) + "</dl>"


def _tiles(given: Sequence[tuple[str, str]]) -> str:
    shown = "".join(f"<div><span>{escape(k)}</span><b>{escape(v)}</b></div>" for k, v in given)
    return f'<div class="tiles">{shown}</div>'
