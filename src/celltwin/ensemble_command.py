"""`celltwin ensemble`: the seeds of one model in a run become one twin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celltwin import experiment, jobs, models, twin
from celltwin.console import out
from celltwin.data import datasets
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol


def ensemble(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of celltwin benchmark with several seeds.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="One of its models or estimators.")],
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="TWIN", help="Default <dataset>-<model>-ensemble.twin.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATASET", help="Where the run's dataset is, if it has moved.")
    ] = None,
) -> None:
    """Make one twin of the seeds of a model: it answers with their mean."""
    asked = experiment.load(run)
    of_voltage = models.family(model).task == "voltage"
    found = [path for seed in asked.seed_numbers if (path := run / "twins" / f"{model}-{seed}.twin").exists()]
    if len(found) < 2:
        raise CelltwinError(
            f"{run} holds too few seeds of {model}",
            got=len(found),
            expected="2 or more",
            fix=f"celltwin benchmark --models {model} --seeds 5",
        )
    dataset = datasets.load(data or asked.dataset)
    parts = dataset.split(asked.split)
    experiment.refuse_other_data(asked, experiment.hashes(parts))
    unseen = jobs.unseen_in(run, model, asked, parts)
    made = jobs.ensemble([twin.load(path) for path in found], parts, unseen)
    path = made.save(out_file or Path(f"{dataset.name}-{made.name}.twin"))
    if parts.validate:
        figures = protocol.overall(protocol.evaluate(made, parts.validate))
        error = f"RMSE {figures['rmse']:.1f} mV" if of_voltage else f"MAE {figures['mae']:.2f} points"
        out.print(f"{len(found)} seeds of {model}: validation {error}")
    out.print(f"twin: {path}", soft_wrap=True)
