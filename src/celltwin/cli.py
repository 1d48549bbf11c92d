"""The command line: parse, call, print."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import jax
import numpy as np
import pooch
import typer
import typer.core
from rich.table import Table

from celltwin import (
    __version__,
    adaptation,
    benchmark,
    deploy_command,
    ensemble_command,
    experiment,
    files,
    fit_command,
    identify_command,
    models,
    pack_benchmark,
    runs_command,
    studio_command,
    tracking,
    twin,
)
from celltwin.console import (
    ColumnNames,
    CurrentSign,
    Data,
    Folds,
    SplitName,
    err,
    escape,
    note,
    note_doubts,
    out,
    reading,
    refuse_not_finite,
)
from celltwin.data import datasets, importers, inspection, splits
from celltwin.data.record import PackRecord, Record
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol, report, runs
from celltwin.learning import training
from celltwin.shown import bars, rows_table

BAD_INPUT, INTERRUPTED = 2, 130
SAME = 1e-6  # of figures: no more than this apart

DEFAULT_MODELS = {
    "voltage": "hold,ohmic,thevenin,narx,lstm,hybrid,hybrid-gru,circuit-neural",
    "soc": "soc-coulomb,soc-ocv,soc-ekf,soc-observer,soc-fused",
    "pack": ",".join(pack_benchmark.TITLES),
}


class _Commands(typer.core.TyperGroup):
    """Turns errors that a user can put right into one line and exit status 2, Ctrl-C into status 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CelltwinError as error:
            err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            _leave(BAD_INPUT)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
            err.print(f"[bold red]error:[/] {escape(what)}", soft_wrap=True)
            _leave(BAD_INPUT)
        except (KeyboardInterrupt, training.Interrupted):
            err.print("interrupted; fit and benchmark go on where they stopped with the same --out and --resume")
            _leave(INTERRUPTED)


def _leave(status: int) -> NoReturn:
    raise typer.Exit(status)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn a lithium-ion cell's dynamics from its cycler logs, and say honestly how well.\n\n"
    "Example: [cyan]celltwin benchmark[/]",
)


def _version(asked: bool) -> None:
    if asked:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.getLogger("jax").setLevel(logging.ERROR)
    if jax.config.values["jax_compilation_cache_dir"] is None:  # compiled programs serve the next run too
        jax.config.update("jax_compilation_cache_dir", str(Path(pooch.os_cache("celltwin")) / "compiled"))


TableFile = Annotated[
    Path, typer.Option("--out", metavar="FILE.parquet", help="Where the result goes; or a name that ends in .csv.")
]
TwinFile = Annotated[Path, typer.Argument(metavar="TWIN", help="A file of fit or benchmark, or a pretrained name.")]
Adapt = Annotated[
    float | None,
    typer.Option(
        "--adapt",
        metavar="MINUTES",
        min=0.0,
        help="First find capacity, resistance and charge of this very cell from its first minutes; scored on the rest.",
    ),
]
MlflowUri = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="URI", help="Log finished runs there too: a folder, or http://127.0.0.1:5000."),
]


@app.command("benchmark", epilog="Example: celltwin benchmark --data demo --models thevenin,lstm --out runs/first")
def benchmark_(
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="DATASET", help="Folder with a dataset.toml, or a registered name; default demo."
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            "--models", help="Names, separated by commas; see celltwin models. Default: the task's usual ones."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="What the models are to say: voltage (the default), soc, or pack (every cell of a pack)."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="An experiment: a TOML file, or a run folder to run again. Other options win over it."),
    ] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Run folder; default runs/<dataset>-<time>.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A fifth of the training, of packs a tenth: to try out, not to judge.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="First seed; default 0.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds; the spread over them is reported. Default 1.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")] = False,
    split: SplitName = None,
    folds: Folds = None,
    mlflow: MlflowUri = None,
) -> None:
    """Train several models on a dataset, score them, write a report."""
    if task is not None and task not in DEFAULT_MODELS:
        raise CelltwinError(f"there is no task '{task}'", expected=", ".join(DEFAULT_MODELS), fix="leave --task out")
    if resume and out_dir is None:
        raise CelltwinError("--resume needs to know which run", fix="add --out DIR")
    asked = experiment.load(config) if config else experiment.Experiment()
    given: dict[str, Any] = {"dataset": data, "task": task, "split": split, "folds": folds, "quick": quick or None}
    if seed is not None or seeds is not None:
        first = seed or 0
        given["seeds"] = tuple(range(first, first + (seeds or 1)))
    if names is not None:
        given["models"] = tuple(name.strip() for name in names.split(",") if name.strip())
        if not given["models"]:
            raise CelltwinError("--models names none", got=repr(names), expected="names that celltwin models lists")
        if asked.training and set(given["models"]) != set(asked.models or ()):
            given["training"] = {}
    asked = asked.model_copy(update={key: value for key, value in given.items() if value is not None})
    with out.status(f"reading {asked.dataset}"):
        dataset = datasets.load(asked.dataset)
    packs = asked.task == "pack"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = out_dir or Path("runs") / f"{dataset.name}{'-pack' if packs else ''}-{stamp}"
    metrics = (_benchmark_packs if packs else _benchmark_cells)(asked, dataset, folder, resume)
    out.print(report.leaderboard(metrics))
    before = config.parent if config is not None and config.name == experiment.CONFIG else config
    if before is not None and (before / "metrics.json").exists() and before != folder:
        out.print(_compared(before, folder), soft_wrap=True)
    out.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    if mlflow is not None:
        tracking.log(folder, mlflow)
        out.print(f"logged to {mlflow}", soft_wrap=True)


def _compared(before: Path, after: Path) -> str:
    """Whether a run gave the figures of an earlier one, in the models that both have."""
    asked = [files.read_json(run / experiment.CONFIG) for run in (before, after)]
    if any(asked[0].get(key, 0) != asked[1].get(key, 0) for key in ("records", "seeds", "quick", "split", "folds")):
        return f"not compared with {before}, which was asked for other data, seeds or training"
    found = [{m["name"]: m for m in files.read_json(run / "metrics.json")["models"]} for run in (before, after)]
    both = [name for name in found[1] if name in found[0]]
    if not both:
        return f"not compared with {before}, which has other models"
    apart, where = runs.difference([found[0][name] for name in both], [found[1][name] for name in both])
    among = "" if len(both) == len(found[0]) else f", for {', '.join(both)}"
    if apart <= SAME:
        return f"the same figures as in {before}{among}"
    return f"figures differ from {before} by up to {apart:.3g}, in {where.strip('/')}"


def _benchmark_cells(
    asked: experiment.Experiment, dataset: datasets.Dataset, folder: Path, resume: bool
) -> dict[str, Any]:
    chosen = asked.models or DEFAULT_MODELS[asked.task or "voltage"].split(",")
    says = benchmark.task_of([models.family(name) for name in chosen])
    if asked.task is not None and says != asked.task:
        raise CelltwinError(f"the models say {says}", got=f"task {asked.task}", fix="leave one of the two out")
    parts = dataset.split(asked.split)
    experiment.refuse_other_data(asked, experiment.hashes(parts))
    out.print(
        f"{dataset.cell.name}: {len(parts.train)} training, {len(parts.validate)} validation "
        f"and {len(parts.test)} test records"
    )
    out.print(f"run folder: {folder}", soft_wrap=True)
    note_doubts(dataset.records)
    with bars() as listen:
        return benchmark.run(
            dataset,
            parts,
            chosen,
            folder,
            seeds=asked.seed_numbers,
            quickly=asked.quick,
            resume=resume,
            split_name=asked.split,
            title=asked.title,
            changes=asked.changes,
            folds=asked.folds,
            listen=listen,
        )


def _benchmark_packs(
    asked: experiment.Experiment, dataset: datasets.Dataset, folder: Path, resume: bool
) -> dict[str, Any]:
    """Pack models on packs driven with a dataset's cycles, or on the string that it holds."""
    if asked.training:
        raise CelltwinError("plans of pack models cannot be changed", got="a [training] table", fix="remove it")
    splits.refuse_folds(asked.folds, "pack")
    experiment.refuse_other_data(asked, experiment.of_records(dataset.records))
    out.print(f"run folder: {folder}", soft_wrap=True)

    def say(text: str) -> None:
        err.print(escape(text), soft_wrap=True)

    return pack_benchmark.run(
        dataset,
        folder,
        names=asked.models or DEFAULT_MODELS["pack"].split(","),
        seeds=asked.seed_numbers,
        quickly=asked.quick,
        resume=resume,
        title=asked.title,
        say=say,
    )


app.command(epilog="Example: celltwin fit thevenin demo --out cell.twin")(fit_command.fit)


@app.command(epilog="Example: celltwin evaluate cell.twin demo --cycles 'US06' --json figures.json")
def evaluate(
    twin_file: TwinFile,
    data: Data,
    cycles: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Cycles instead of the test split; repeat for several.")
    ] = None,
    start: Annotated[float, typer.Option(metavar="FRACTION", help="Begin at this fraction of each cycle.")] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help=f"What is wrong with what the twin sees: {', '.join([*protocol.FAULTS, *protocol.SAMPLINGS])}.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here; - for stdout.")
    ] = None,
    adapt: Adapt = None,
    split: SplitName = None,
) -> None:
    """Score a twin on whole cycles, per cycle and ambient: a simulation in closed loop, or an estimator that knows no
    state of charge at its start."""
    if json_file is not None and str(json_file) != "-":
        files.check_target(json_file)
    one = twin.load(twin_file)
    dataset = datasets.load(data)
    records = dataset.select(cycles or dataset.patterns(split)["test"])
    if not records:
        raise CelltwinError("the dataset's split has no test records", fix="name cycles with --cycles")
    contents = {r.content_hash for r in records}
    if len(contents) < len(records):
        note(f"{len(records) - len(contents)} of {len(records)} cycles are another once more, under another name")
    seen = [r for r in records if r.content_hash in one.domain.seen]
    if seen:
        note(f"{len(seen)} of {len(records)} cycles were among this twin's training records")
    checked = {r.label for r in records} & set(one.card.get("split", {}).get("validate", []))
    if checked and one.card.get("dataset") == dataset.name:
        note(f"{len(checked)} of {len(records)} cycles chose this twin's best round (validation)")
    note_doubts(records)
    faults = _faults(fault or [])
    records = [protocol.from_fraction(r, start) for r in records]
    if adapt is None:
        rows = protocol.evaluate(one, records, faults)
    elif faults:
        raise CelltwinError("--adapt and --fault do not go together", got="both", fix="leave one of them out")
    else:
        rows = protocol.evaluate_adapted(one, records, 60.0 * adapt)
    for row in rows:
        refuse_not_finite(
            twin_file, row["record"], row["output"].voltage if one.task == "voltage" else row["output"].soc
        )
    result = {"task": one.task, "rows": [protocol.figures(r) for r in rows], "overall": protocol.overall(rows)}
    if json_file is not None and str(json_file) == "-":
        typer.echo(json.dumps(files.plain(result), indent=1))
        return
    title = f"{one.name} on {dataset.name}"
    if adapt is None:
        out.print(rows_table(title, rows, one.task))
    else:
        out.print(rows_table(f"{title}, adapted to {adapt:g} min, scored on the rest", rows, "adapted"))
    if json_file is not None:
        files.write_json(json_file, result)


@app.command(epilog="Example: celltwin simulate cell.twin log.csv --out simulated.parquet")
def simulate(
    twin_file: TwinFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A log that celltwin inspect reads.")],
    out_file: TableFile,
    initial_soc: Annotated[
        float | None, typer.Option(help="Fraction at the first sample; default: from its rested voltage.")
    ] = None,
    adapt: Adapt = None,
    current_sign: CurrentSign = None,
    columns: ColumnNames = None,
) -> None:
    """Simulate the voltage of a log from its current and temperature."""
    one, record = _twin_and_log(twin_file, "voltage", file, out_file, initial_soc, reading(current_sign, columns))
    known = "as given" if initial_soc is not None else "as the log says"
    if initial_soc is not None:
        record = replace(record, initial_soc=initial_soc)
    elif math.isnan(record.initial_soc):
        record, known = one.with_facts(record), f"read from its voltage at rest, {record.voltage[0]:.3f} V"
    out.print(f"state of charge at the start: {100 * record.initial_soc:.1f} %, {known}")
    if adapt is not None:
        one, found = adaptation.adapt(one, record, 60.0 * adapt)
        out.print(str(found))
    judged = record if adapt is None else adaptation.rest_of(record, 60.0 * adapt)
    row = protocol.evaluate(one, [judged])[0]
    refuse_not_finite(twin_file, judged, row["output"].voltage)
    files.write_table(out_file, record.table(protocol.columns(row)))
    held = (
        f"{100 * row['coverage']:.1f} % within the {100 * one.bands.level:g} % band (± {row['half_width']:.1f} mV), "
        if one.bands
        else ""
    )
    out.print(
        f"{record.name}: RMSE {row['rmse']:.1f} mV, worst {row['max']:.1f} mV, {held}"
        f"{_outside(one, judged, row['output'].soc, row['in_domain'])}"
    )
    out.print(f"written: {out_file}", soft_wrap=True)


@app.command(epilog="Example: celltwin estimate cell.twin log.csv --out estimated.parquet")
def estimate(
    twin_file: TwinFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A log that celltwin inspect reads.")],
    out_file: TableFile,
    initial_soc: Annotated[
        float | None,
        typer.Option(help="Stored state of charge (fraction) at the first sample; default: none is known."),
    ] = None,
    current_sign: CurrentSign = None,
    columns: ColumnNames = None,
) -> None:
    """Estimate the state of charge of a log from its voltage, current and temperature, sample by sample."""
    one, record = _twin_and_log(twin_file, "soc", file, out_file, initial_soc, reading(current_sign, columns))
    estimated = one.estimate(record, initial_soc)
    refuse_not_finite(twin_file, record, estimated.soc)
    inside = one.in_domain(record, estimated.soc)
    said = {"soc": estimated.soc, "soc_std": estimated.std, "in_domain": inside}
    files.write_table(out_file, record.table(said))
    out.print(
        f"{record.name}: from {100 * estimated.soc[0]:.1f} to {100 * estimated.soc[-1]:.1f} % state of charge, "
        f"the last ± {100 * estimated.std[-1]:.1f} points (1 std); "
        f"{_outside(one, record, estimated.soc, inside)}"
    )
    out.print(f"written: {out_file}", soft_wrap=True)


@app.command(epilog="Example: celltwin inspect log.csv --plot log.html")
def inspect(
    logs: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Cycler logs of any kind celltwin reads.")],
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write an interactive plot (of each log) here.")
    ] = None,
    current_sign: CurrentSign = None,
    columns: ColumnNames = None,
) -> None:
    """Show what is in logs: ranges, rate, charge, gaps, and whether the sign of the current is right."""
    summaries: list[inspection.Summary | inspection.OcvSummary] = []
    records: list[Record] = []
    failed: list[CelltwinError] = []
    how, said = reading(current_sign, columns), set[str]()
    for path in logs:
        try:
            examined = importers.examine(path, **how)
            summary = inspection.summarise(examined.record)
            if (taken := inspection.columns_read(examined)) not in said:  # logs of one tester: once
                said.add(taken)
                summary = replace(summary, notes=(taken, *summary.notes))
            summaries.append(summary)
            records.append(examined.record)
        except CelltwinError as error:
            try:
                summaries.append(inspection.summarise_ocv(path))
            except CelltwinError:
                failed.append(error)
    if summaries:
        out.print(inspection.table(summaries))
    if plot is not None and records:
        figures = [
            inspection.figure(record).to_html(full_html=False, include_plotlyjs=i == 0)
            for i, record in enumerate(records)
        ]
        files.write_text(
            plot, f"<!doctype html><meta charset='utf-8'><title>celltwin inspect</title>{''.join(figures)}"
        )
        out.print(f"plot: {plot}", soft_wrap=True)
    for error in failed[:-1]:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    if failed:
        raise failed[-1]


app.command("export", epilog="Example: celltwin export lg_18650hg2/soc --to c --out firmware")(deploy_command.export)
app.command("stream", epilog="Example: celltwin stream lg_18650hg2/soc --input log.csv --snapshot bms.json")(
    deploy_command.stream_
)
app.command("ensemble", epilog="Example: celltwin ensemble runs/first hybrid-gru --out cell.twin")(
    ensemble_command.ensemble
)
app.command("identify", epilog="Example: celltwin identify demo --out cell.json")(identify_command.identify)
app.command("studio", epilog="Example: celltwin studio demo")(studio_command.studio)


app.command("runs", epilog="Example: celltwin runs runs --metric max --out leaderboard.html")(runs_command.runs_)


@app.command("report", epilog="Example: celltwin report runs/first --out report.html")
def report_(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of celltwin benchmark.")],
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="Default RUN/report.html.")
    ] = None,
) -> None:
    """Write the report page of a run again."""
    out.print(f"report: {report.write(run, out_file)}", soft_wrap=True)


@app.command("models", epilog="Example: celltwin models")
def models_() -> None:
    """List the models that can be trained."""
    table = Table(box=None)
    table.add_column("name", style="bold")
    table.add_column("says")
    table.add_column("what it is")
    for family in models.families():
        table.add_row(family.name, family.task, family.title)
    for name, title in pack_benchmark.TITLES.items():
        table.add_row(name, "pack", title)
    out.print(table)


def _twin_and_log(
    twin_file: Path, task: str, file: Path, out_file: Path, initial_soc: float | None, how: dict[str, Any]
) -> tuple[twin.Twin, Record]:
    """A twin that says what is asked, and a log of its cell. Raises CelltwinError where an option is wrong."""
    importers.refuse_missing(file)  # before the folder of the result is made
    files.check_table(out_file)
    if out_file.exists() and out_file.samefile(file):
        raise CelltwinError("the result would overwrite the log", got=out_file, fix="give --out another name")
    if initial_soc is not None and not 0.0 <= initial_soc <= 1.0:
        raise CelltwinError("--initial-soc is no fraction", got=initial_soc, expected="0 to 1")
    one = twin.load(twin_file)
    one.refuse_unless(task)
    record = importers.load(file, **how)
    if isinstance(record, PackRecord):
        raise CelltwinError(f"{file} is the log of a pack", expected="the log of one cell")
    note_doubts([record])
    for text in record.notes:
        note(text)
    return one, replace(record, cell=one.cell)


def _outside(one: twin.Twin, record: Record, soc: Any, inside: np.ndarray) -> str:
    """The share of samples outside the training domain, and what of them is."""
    why = "" if inside.all() else f" ({one.why_outside(record, soc)})"
    return f"{100 * (~inside).mean():.1f} % outside the training domain{why}"


def _faults(given: list[str]) -> dict[str, float]:
    faults = {}
    for item in given:
        name, _, value = item.partition("=")
        try:
            faults[name] = float(value)
            if not math.isfinite(faults[name]):
                raise ValueError(value)
        except ValueError as error:
            raise CelltwinError("--fault is not NAME=VALUE", got=item, fix="e.g. --fault current_offset=0.1") from error
    return faults


if __name__ == "__main__":
    sys.exit(app())
