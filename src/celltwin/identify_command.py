"""`celltwin identify`: from a dataset or from logs to a circuit, its twin and its page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from celltwin import exchange, files
from celltwin.console import ColumnNames, CurrentSign, err, note, note_doubts, out, reading
from celltwin.data import datasets, importers
from celltwin.data.domain import Domain
from celltwin.data.record import Cell, PackRecord, Record
from celltwin.errors import CelltwinError
from celltwin.evaluation.report.identification import MIDDLE, identification_page
from celltwin.evaluation.report.identified import efficiency_text, resistances
from celltwin.learning import identification
from celltwin.learning.identification import Identification
from celltwin.learning.identification.pairs import MOST_PAIRS
from celltwin.learning.tasks import MILLIVOLT
from celltwin.learning.training import parameters
from celltwin.physics.thevenin import Thevenin
from celltwin.twin import Twin

TITLE = "Equivalent circuit identified from pulses, rests and slow discharges"


def identify(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET|FILE...",
            help="A dataset, or logs of one cell: HPPC, GITT or pulse tests, best with a slow discharge (C/10).",
        ),
    ],
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE.json", help="The circuit, as ECM-PS JSON.")],
    ambient: Annotated[
        str | None,
        typer.Option(
            metavar="DEGC,...", help="Where the folder's name does not tell it: one for all files, or one for each."
        ),
    ] = None,
    current_sign: CurrentSign = None,
    columns: ColumnNames = None,
    format: Annotated[
        str | None, typer.Option(help=f"Of the files; default: found out. {', '.join(importers.FORMATS)}.")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, max=MOST_PAIRS, help="Number of RC pairs; default: the data decide.")
    ] = None,
    twin_file: Annotated[
        Path | None, typer.Option("--twin", metavar="TWIN", help="Default: beside --out, as .twin.")
    ] = None,
    page_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Default: beside --out, as .html.")
    ] = None,
) -> None:
    """Identify a circuit from pulse tests: tables with standard errors, a twin, and a page to judge them by."""
    paths = _outputs(out_file, twin_file, page_file)
    with out.status(f"reading {', '.join(given[:3])}{' ...' if len(given) > 3 else ''}", spinner="line"):
        logs = _logs(given, ambient, current_sign, columns, format)
    out.print(f"{logs.origin}: {', '.join(record.label for record in logs.records)}", markup=False)
    note_doubts(logs.records)
    for record in logs.records:
        for text in record.notes:
            note(f"{record.label}: {text}")
    with _bar() as tick:
        found = identification.identify(logs.records, logs.cell, pairs=pairs, tick=tick)
    page = identification_page(found, [record.label for record in logs.records], logs.origin)
    made = twin_of(found, logs)
    for table in (_facts(found), _candidates(found, pairs), _temperatures(found)):
        out.print(table)
    for text in found.notes:
        note(text)
    exchange.save(found.circuit, paths[0])
    made.save(paths[1])
    files.write_text(paths[2], page)
    for what, path in zip(("circuit", "twin", "report"), paths, strict=True):
        out.print(f"{what}: {path}", markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Logs:
    """What a circuit is identified from."""

    records: tuple[Record, ...]
    cell: Cell | None  # what is known of it
    name: str
    origin: str  # in words
    licence: str = ""
    citation: str = ""


def twin_of(found: Identification, logs: Logs) -> Twin:
    """The circuit as a twin: its domain is that of the runs it was fitted to, `seen` are the logs they are from."""
    model = Thevenin.of(found.circuit)
    seen = tuple(sorted(record.content_hash for record in logs.records))
    card: dict[str, Any] = {
        "title": TITLE,
        "dataset": logs.name,
        "licence": logs.licence,
        "citation": logs.citation,
        "split": {"train": [record.label for record in logs.records], "validate": [], "test": []},
        "parameters": parameters(model),
        "training_seconds": found.seconds,
        "identified": {
            "from": {record.label: record.content_hash for record in logs.records},
            "origin": logs.origin,
            "rmse_mV": MILLIVOLT * found.rmse,
            "coulombic_efficiency": found.coulombic_efficiency,
            "notes": list(found.notes),
        },
    }
    return Twin("thevenin", model, dataclasses.replace(Domain.of(found.runs), seen=seen), found.cell, card)


# --- what was given ---------------------------------------------------------------------------------------------------


def _outputs(out_file: Path, twin_file: Path | None, page_file: Path | None) -> tuple[Path, Path, Path]:
    if out_file.suffix != ".json":
        raise CelltwinError("--out is no JSON file", got=out_file, expected="a name that ends in .json")
    paths = (out_file, twin_file or out_file.with_suffix(".twin"), page_file or out_file.with_suffix(".html"))
    if len(set(paths)) < len(paths):
        raise CelltwinError("--out, --twin and --report name one file twice", got=", ".join(map(str, paths)))
    for path in paths:
        files.check_target(path)
    return paths


def _logs(
    given: Sequence[str], ambient: str | None, current_sign: str | None, columns: list[str] | None, format: str | None
) -> Logs:
    paths = [Path(one) for one in given]
    datasets_given = [p for p in paths if p.is_dir() or p.suffix == ".toml" or (not p.suffix and not p.is_file())]
    if not datasets_given:
        return _from_files(paths, ambient, {"format": format, **reading(current_sign, columns)})
    options = {"--ambient": ambient, "--current-sign": current_sign, "--column": columns, "--format": format}
    unused = [name for name, value in options.items() if value]
    if len(paths) > 1 or unused:
        raise CelltwinError(
            "a dataset stands alone",
            got=f"{datasets_given[0]} with {', '.join([*map(str, paths[1:]), *unused])}",
            expected="one dataset, or log files",
            fix="what these options say belongs into its dataset.toml",
        )
    found = datasets.characterisation(given[0])
    origin = f"{found.name}, {found.origin}"
    return Logs(found.records, found.cell, found.name, origin, found.source.licence, found.source.citation)


def _from_files(paths: list[Path], ambient: str | None, how: dict[str, Any]) -> Logs:
    records: dict[str, Record] = {}
    for path, degrees in zip(paths, _ambients(ambient, len(paths)), strict=True):
        folder = importers.ambient_from_path(path)
        if degrees is not None and folder == folder:
            if degrees != folder:
                note(f"{path}: its folder says {folder:g} degC, so --ambient {degrees:g} is not used")
            degrees = None
        record = importers.load(path, ambient_degC=degrees, **how)
        if isinstance(record, PackRecord):
            raise CelltwinError(f"{path} is the log of a pack", expected="logs of one cell")
        if twin := records.get(record.content_hash):
            raise CelltwinError(
                "the same measurement is given twice", got=f"{twin.source} and {path}", fix="leave one of them out"
            )
        records[record.content_hash] = record
    count = len(records)
    return Logs(tuple(records.values()), None, "files", f"{count} log file{'s' if count > 1 else ''}")


def _ambients(given: str | None, count: int) -> Sequence[float | None]:
    """One temperature in degC for each of `count` files."""
    if given is None:
        return [None] * count
    try:
        values = [float(part) for part in given.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, count) or not all(-100.0 < value < 150.0 for value in values):
        raise CelltwinError(
            "--ambient is wrong",
            got=given,
            expected=f"a temperature in degC, or {count}, one for each file" if count > 1 else "a temperature in degC",
            fix="e.g. --ambient 25",
        )
    return values * (count if len(values) == 1 else 1)


# --- what is shown ----------------------------------------------------------------------------------------------------


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    """A bar for each stage, full when the next begins."""
    columns = (TextColumn("{task.description:<18}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        tasks: dict[str, Any] = {}

        def tick(stage: str, share: float) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    progress.update(earlier, total=1.0, completed=1.0)
                    progress.stop_task(earlier)
                tasks[stage] = progress.add_task(stage, total=None)
            progress.update(tasks[stage], total=1.0 if share > 0.0 else None, completed=share)

        yield tick
        for last in tasks.values():
            progress.update(last, total=1.0, completed=1.0)


def _facts(found: Identification) -> Table:
    table = Table(box=None, show_header=False, title=found.cell.name, title_justify="left")
    efficiency = found.coulombic_efficiency
    facts = {
        "capacity": f"{found.circuit.capacity_ah:.4g} Ah",
        "coulombic efficiency": ("" if np.isnan(efficiency) else f"{efficiency:.4f}, ") + efficiency_text(efficiency),
        "RC pairs": f"{found.circuit.pairs}"
        + (" and a charge transfer" if found.circuit.transfer_scale is not None else ""),
        "RMSE": f"{MILLIVOLT * found.rmse:.2f} mV over {len(found.runs)} runs, closed loop",
        "took": f"{found.seconds:.0f} s",
    }
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _candidates(found: Identification, fixed: int | None) -> Table:
    """Numbers of RC pairs that were weighed."""
    table = Table(box=None, title="numbers of RC pairs weighed", title_justify="left")
    for heading in ("pairs", "RMSE mV", "criterion", "time constants s"):
        table.add_column(heading, justify="right")
    table.add_column("")
    least = min((c.criterion for c in found.candidates), default=0.0)
    for c in found.candidates:
        mark = ("" if c.pairs != found.circuit.pairs else "chosen") if fixed is None else ""
        mark = "by --pairs" if c.pairs == fixed else mark
        tau = ", ".join(f"{t:.3g}" if t < 100 else f"{t:.0f}" for t in c.time_constants)
        table.add_row(str(c.pairs), f"{MILLIVOLT * c.rmse:.2f}", f"{c.criterion - least:+.0f}", tau, mark)
    return table


def _temperatures(found: Identification) -> Table:
    table = Table(box=None, title=f"resistance at {100 * MIDDLE:.0f} % state of charge", title_justify="left")
    for heading in ("temperature", "R0 mΩ", "total mΩ"):
        table.add_column(heading, justify="right")
    for r in resistances(found.circuit, MIDDLE):
        table.add_row(
            f"{r.temperature:g} °C",
            f"{1e3 * r.r0:.2f} ± {1e3 * r.r0_error:.2f}",
            f"{1e3 * r.total:.2f} ± {1e3 * r.total_error:.2f}",
        )
    return table
