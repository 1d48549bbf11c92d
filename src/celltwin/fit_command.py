"""`celltwin fit`: one model learns a cell from a dataset's training records."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated

import typer

from celltwin import experiment, files, jobs, models, twin
from celltwin.console import Data, Folds, SplitName, note, note_doubts, out
from celltwin.data import datasets, splits
from celltwin.data.splits import Split
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
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
        whole = dataset.split(split)
    if minutes is not None:
        whole = splits.shortened(whole, 60.0 * minutes)
    chain = jobs.chain(model)
    sources = jobs.bases_of(twin.load(source_file), model) if source_file else [None] * len(chain)
    path = out_file or Path(f"{dataset.name}-{model}.twin")
    files.check_target(path)
    if config is not None and family.plan is None:
        raise CelltwinError(f"{model} needs no training", got=f"--config {config}", fix="leave --config out")
    overrides = experiment.plan_changes(config) if config else {}
    splits.refuse_folds(folds or 0, family.task)
    if folds and source_file:
        raise CelltwinError(
            "folds are trained from nothing",
            got=f"--from {source_file}, which may have seen what they leave out",
            fix="leave --from or --folds out",
        )
    parts = splits.folds(whole, folds) if folds else ()
    if folds and len(parts) < folds:
        note(f"{len(parts)} folds, as there are no more training cycles")
    note_doubts((*whole.train, *whole.validate))
    with bars() as listen:

        def trained(on: Split, number: int | None = None) -> twin.Twin:
            """The model, after what it is built on."""
            made: twin.Twin | None = None
            for one, source in zip(chain, sources, strict=True):
                plan = one.plan
                if plan:
                    plan = jobs.gentle(plan) if source else plan
                    mine = overrides if one is family else {}
                    plan = plan.model_copy(update={"seed": seed} | mine)
                    if "adam_rounds" not in mine:
                        plan = plan.for_samples(sum(len(r) for r in whole.train))
                suffix = "" if number is None else f".fold{number}"
                made = jobs.train(
                    jobs.Job(one, seed, plan, number),
                    dataset,
                    on,
                    made,
                    source=source,
                    checkpoint=path.with_name(f".{path.name}.{one.name}{suffix}.checkpoint"),
                    resume=resume,
                    listen=listen,
                )
            assert made is not None
            return made

        made = trained(whole)
        unseen = []
        for number, fold in enumerate(parts):
            unseen += jobs.errors_left_out(trained(fold.split, number), fold)
    if unseen:
        made = jobs.with_bands(made, whole, unseen)
    if minutes is not None:
        made.card["minutes"] = minutes
    rows = protocol.evaluate(made, whole.validate) if whole.validate else []
    made.card["validation"] = [protocol.figures(row) for row in rows]
    made.save(path)
    for checkpoint in path.parent.glob(f".{glob.escape(path.name)}.*.checkpoint"):
        checkpoint.unlink()
    if rows:
        out.print(rows_table("validation", rows, made.task))
    if unseen:
        out.print(f"training cycles left out, {len(parts)} folds: RMSE {made.card['left_out']['rmse']:.1f} mV")
    out.print(f"twin: {path}", soft_wrap=True)
