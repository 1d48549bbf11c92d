"""`celltwin fit`: one model learns a cell from a dataset's training records."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from celltwin import experiment, jobs, models, twin
from celltwin.console import Data, Folds, SplitName, note_doubts, out
from celltwin.data import datasets, splits
from celltwin.data.splits import Split
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
from celltwin.learning import bands
from celltwin.shown import bars, rows_table


def fit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name that celltwin models lists.")],
    data: Data,
    config: Annotated[
        Path | None, typer.Option(help="TOML file whose \\[training] table overrides the model's plan.")
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="TWIN", help="Default <dataset>-<model>.twin.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training of the same --out.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random start.")] = 0,
    split: SplitName = None,
    source_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="TWIN", help="Begin with this trained twin of the same model, of any cell."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.0, help="Train on no more than the first minutes of the training records."),
    ] = None,
    folds: Folds = None,
) -> None:
    """Train one model on a dataset's training records and save its twin."""
    family = models.family(model)
    with out.status(f"reading {data}"):
        dataset = datasets.load(data)
        parts = dataset.split(split)
    if minutes is not None:
        parts = splits.shortened(parts, 60.0 * minutes)
    chain = jobs.chain(model)
    sources = jobs.bases_of(twin.load(source_file), model) if source_file else [None] * len(chain)
    path = out_file or Path(f"{dataset.name}-{model}.twin")
    if config is not None and family.plan is None:
        raise CelltwinError(f"{model} needs no training", got=f"--config {config}", fix="leave --config out")
    overrides = experiment.plan_changes(config) if config else {}
    left = splits.folds(parts, folds) if folds else ()
    if left and family.task != "voltage":
        raise CelltwinError("folds are for the bands of voltage models", got=model, fix="leave --folds out")
    note_doubts((*parts.train, *parts.validate))
    stop = threading.Event()
    checkpoints: list[Path] = []
    with bars() as listen:

        def trained(parts: Split, fold: int | None = None) -> twin.Twin:
            """The model, after what it is built on."""
            made: twin.Twin | None = None
            for one, source in zip(chain, sources, strict=True):
                plan = one.plan
                if plan:
                    plan = jobs.gentle(plan) if source else plan
                    mine = overrides if one is family else {}
                    plan = plan.model_copy(update={"seed": seed} | mine)
                    if "adam_rounds" not in mine:
                        plan = plan.for_samples(sum(len(r) for r in parts.train))
                job = jobs.Job(one, seed, plan, fold)
                checkpoints.append(path.with_name(f".{path.name}.{job.name}.checkpoint"))
                made = jobs.train(
                    job,
                    dataset,
                    parts,
                    made,
                    source=source,
                    checkpoint=checkpoints[-1],
                    resume=resume,
                    listen=listen,
                    stop=stop,
                )
            assert made is not None
            return made

        made = trained(parts)
        unseen = []
        for k, fold in enumerate(left):
            unseen += jobs.errors(trained(fold.split, k), fold.left_out)
    if unseen:
        made = jobs.with_bands(made, parts, unseen)
    if minutes is not None:
        made.card["minutes"] = minutes
    rows = protocol.evaluate(made, parts.validate) if parts.validate else []
    made.card["validation"] = [protocol.figures(row) for row in rows]
    made.save(path)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    if rows:
        out.print(rows_table("validation", rows, made.task))
    if unseen:
        out.print(f"training cycles left out, {len(left)} folds: RMSE {bands.rmse(unseen):.1f} mV")
    out.print(f"twin: {path}", soft_wrap=True)
