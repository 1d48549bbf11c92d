"""`celltwin export` and `celltwin stream`: a twin as files that run elsewhere, and one that runs along."""

from __future__ import annotations

import itertools
import json
import math
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import typer

from celltwin import files, twin
from celltwin.console import ColumnNames, CurrentSign, columns_of, note, out, reading, refuse_not_finite, sign_of
from celltwin.data import importers
from celltwin.data.columns import Told
from celltwin.data.record import TIME, Record
from celltwin.deploy import c, fmu, native, onnx, stream
from celltwin.deploy.stream import Sample, Stream, believable
from celltwin.errors import CelltwinError
from celltwin.twin import Twin

TwinFile = Annotated[
    str, typer.Argument(metavar="TWIN", help="A .twin file, or a pretrained one by name (lg_18650hg2/soc).")
]


def export(
    twin_file: TwinFile,
    to: Annotated[str, typer.Option("--to", metavar="c|onnx|fmu", help="The kind of files.")],
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder that they go to.")],
    name: Annotated[
        str | None, typer.Option(help="What the files and functions are called; default: like the twin.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the numbers inside: single or double.")] = "single",
    weights: Annotated[
        str, typer.Option(help="Of C: real, or int16 or int8 for matrices of whole numbers with one scale a row.")
    ] = "real",
    fmi: Annotated[str, typer.Option(help="Of an FMU: the version of FMI, 2.0 or 3.0.")] = "2.0",
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="LOG",
            help="Compile the C, compare it with Python over this log, and leave the log as DIR/check.csv.",
        ),
    ] = None,
    current_sign: CurrentSign = None,
    columns: ColumnNames = None,
) -> None:
    """Write a twin as C99 (header, source, a replay and a Makefile), ONNX graphs or an FMU."""
    one = twin.load(twin_file)
    if to != "c" and (weights != "real" or check is not None):
        raise CelltwinError("--weights and --check are options of C", got=f"--to {to}", fix="leave them out")
    match to:
        case "c":
            written = c.export(one, out_folder, name, precision, weights)
        case "onnx":
            written = onnx.export(one, out_folder, name, precision)
        case "fmu":
            written = fmu.export(one, out_folder, name, fmi, precision)
        case _:
            raise CelltwinError("--to is wrong", got=to, expected="c, onnx or fmu")
    for path in written:
        out.print(f"written: {path}", soft_wrap=True)
    if check is not None:
        record = one.with_facts(importers.load(check, **reading(current_sign, columns)))
        out.print(compared(one, record, precision, weights))
        record.save(out_folder / "check.csv")
        out.print(f"written: {out_folder / 'check.csv'}", soft_wrap=True)
        program = next(path.stem for path in written if path.suffix == ".h")
        soc = "" if one.task == "soc" else f" {record.initial_soc:.6g}"
        where = shlex.quote(str(out_folder))
        out.print(f"to replay it: cd {where} && make && ./{program}{soc} < check.csv", soft_wrap=True)


def compared(one: Twin, record: Record, precision: str = "single", weights: str = "real") -> str:
    """How far the compiled C is from Python over a record, in words."""
    compiled = native.Native(c.emit(one, precision=precision, weights=weights))
    start, inputs = one.fed(record, compiled.dtype)
    if one.task == "soc":
        python, unit, scale = one.estimate(record).soc, "points of state of charge", 1e2
    else:
        python, unit, scale = one.simulate(record).voltage, "mV", 1e3
    said = compiled.run(compiled.begin(start), inputs)[:, 0]
    apart = scale * np.abs(said - np.asarray(python))
    refuse_not_finite("the twin", record, apart)
    return (
        f"{record.name}: C ({precision}, weights {weights}) and Python are {apart.max():.2g} {unit} apart at most, "
        f"{apart.mean():.2g} on average, over {len(record)} samples"
    )


def stream_(
    twin_file: TwinFile,
    source: Annotated[
        str, typer.Option("--input", metavar="FILE|-", help="Where samples come from; - is standard input.")
    ] = "-",
    format: Annotated[
        str, typer.Option(help="Of the input: csv, jsonl, or can (a log that python-can reads).")
    ] = "csv",
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more lines at the end of the file.")] = False,
    out_file: Annotated[
        str, typer.Option("--out", metavar="FILE|-", help="Where answers go, a line each; - is standard output.")
    ] = "-",
    snapshot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the state here, and go on from it where it is there already."),
    ] = None,
    every: Annotated[float, typer.Option(min=0.0, help="Seconds of samples between two snapshots.")] = 60.0,
    initial_soc: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Fraction at the first sample, where it is known.")
    ] = None,
    current_sign: CurrentSign = None,
    columns: ColumnNames = None,
    dbc: Annotated[Path | None, typer.Option(metavar="FILE.dbc", help="What the frames of a CAN log mean.")] = None,
    signals: Annotated[
        str | None, typer.Option(metavar="voltage=NAME,...", help="Signals of voltage, current and temperature.")
    ] = None,
) -> None:
    """Run a twin along with samples as they come: one answer a line, and a state that survives a restart."""
    one = twin.load(twin_file)
    sign, told = sign_of(current_sign), columns_of(columns)
    if format == "csv" and source != "-" and not follow:
        _refuse_wrong_sign(Path(source), reading(current_sign, columns))
    running = Stream(one, math.nan if initial_soc is None else initial_soc)
    if snapshot is not None and snapshot.exists():
        running.resume(snapshot)
        note(f"going on after {running.time:.3f} s, where {snapshot} stands")
    try:
        with _samples(source, format, follow, sign, told, dbc, signals) as raw:
            all_ = believable(raw)
            first = list(itertools.islice(all_, 1))  # what cannot be read is refused before anything is written
            with _answers(out_file, format, running) as answer:
                _run(running, itertools.chain(first, all_), answer, snapshot, every)
    finally:
        if snapshot is not None:
            running.save(snapshot)
    if running.unclear and not math.isfinite(running.time):
        raise CelltwinError(
            "no sample of the stream has a time that is understood",
            got=f"{running.unclear} samples without",
            expected="seconds, or a date and time as 2026-03-01T12:00:00",
            fix="--column time=HEADER names another column; celltwin estimate reads what else there is from a file",
        )
    if running.late or running.unclear:
        note(f"left out: {running.late} samples not later than the one before, {running.unclear} without a time")


def _refuse_wrong_sign(path: Path, how: dict[str, Any]) -> None:
    """Raise CelltwinError where a whole log says that its current has the other sign; a stream alone cannot tell."""
    try:
        importers.load(path, **how)
    except importers.WrongSign:
        raise
    except CelltwinError:
        pass  # a stream takes what a record does not: gaps, clocks that start again


def _run(running: Stream, samples: Iterable[Sample], answer: Any, snapshot: Path | None, every: float) -> None:
    saved = running.time
    for sample in samples:
        said = running.push(sample)
        if said is None:
            continue
        answer(sample.time, said)
        if snapshot is not None and not running.time < saved + every:
            running.save(snapshot)
            saved = running.time


@contextmanager
def _samples(
    source: str, format: str, follow: bool, sign: float, told: Told, dbc: Path | None, signals: str | None
) -> Iterator[Iterator[Sample]]:
    """Samples from wherever they come."""
    if format == "can":
        if dbc is None or signals is None or source == "-":
            raise CelltwinError(
                "a CAN log needs more",
                expected="--input LOG --dbc FILE.dbc --signals voltage=NAME,current=NAME,temperature=NAME",
            )
        pairs = (item.partition("=") for item in signals.split(","))
        named = {role: name for role, _, name in pairs}
        if set(named) - {"voltage", "current", "temperature"} or not {"voltage", "current"} <= set(named):
            raise CelltwinError(
                "--signals is wrong", got=signals, expected="voltage=NAME,current=NAME,temperature=NAME"
            )
        yield stream.from_can(Path(source), dbc, named, sign)
        return
    readers = {"csv": stream.from_csv, "jsonl": stream.from_json}
    if format not in readers:
        raise CelltwinError("--format is wrong", got=format, expected="csv, jsonl or can")
    if follow and source == "-":
        raise CelltwinError("--follow needs a file", got="standard input", fix="give --input FILE")
    if source == "-":
        yield readers[format](sys.stdin, sign, told)
    elif follow:
        yield readers[format](stream.follow(Path(source)), sign, told)
    else:
        with stream.opened(Path(source)) as file:
            yield readers[format](file, sign, told)


@contextmanager
def _answers(target: str, format: str, running: Stream) -> Iterator[Any]:
    """A function that writes a line, at once. Of a file that is there, what the snapshot has seen is kept."""
    names = [TIME, *(stream.COLUMNS[n] for n in running.outputs)]
    as_json = format == "jsonl"

    def line(time: float, said: tuple[Any, ...]) -> str:
        if as_json:
            values = [files.plain(v) for v in (time, *said[:-1])]
            return json.dumps(dict(zip(names, [*values, bool(said[-1])], strict=True)))
        return f"{time:.10g},{','.join(f'{v:.7g}' for v in said[:-1])},{said[-1]}"

    def writer(file: TextIO) -> Any:
        def write(time: float, said: tuple[Any, ...]) -> None:
            file.write(line(time, said) + "\n")
            file.flush()

        return write

    if target == "-":
        if not as_json and not math.isfinite(running.time):
            print(",".join(names), flush=True)
        yield writer(sys.stdout)
        return
    kept = [] if as_json else [",".join(names)]
    path = Path(target)
    if path.exists() and math.isfinite(running.time):
        kept = [row for row in path.read_text(encoding="utf-8").splitlines() if _seen(row, as_json, running.time)]
    files.write_text(path, "".join(f"{row}\n" for row in kept))
    with path.open("a", encoding="utf-8") as file:
        yield writer(file)


def _seen(row: str, as_json: bool, time: float) -> bool:
    """Was this line written before the snapshot? A half line of a killed process was not."""
    try:
        value = float(json.loads(row)[TIME]) if as_json else float(row.partition(",")[0])
    except (ValueError, KeyError, TypeError):
        return row.startswith(TIME)
    return float(f"{value:.10g}") <= float(f"{time:.10g}")
