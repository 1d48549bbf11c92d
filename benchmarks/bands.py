"""Bands of trained twins: how they were chosen on validation, and what share of the test cycles they hold.

    python benchmarks/bands.py RUN DATASET [--models gru,hybrid-gru] [--seeds 0,1,2] [--folds RUN]

1. On validation alone, one ambient temperature left out at a time: calibrated on the others, how much of the one left
   out is within. Once with the shape of the errors from the same validation cycles, once from the training cycles.
2. The test cycles, each ambient apart: means over the seeds, and of the ensemble of the seeds.

With --folds, a run of the same models with folds, also with bands from the training cycles that were left out there:
one cycle after the other of those that no model saw is left out of the bands, and they are asked how much of it they
hold; then the test cycles; then the validation cycles, of bands that stayed away from all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from celltwin import experiment, jobs, twin
from celltwin.data import datasets
from celltwin.data.record import Record
from celltwin.data.splits import Split
from celltwin.evaluation import protocol
from celltwin.learning.bands import LEVEL, Errors, calibrate, errors_of
from celltwin.twin import Twin


def left_out(records: Sequence[Record], trained: Sequence[Errors] | None, held: Sequence[Errors]) -> np.ndarray:
    """Coverage and mean half-width (mV) of each ambient temperature without it in validation: [ambients, 2]."""
    figures = []
    for ambient in sorted({record.ambient_degC for record in records}):
        others = [errors for record, errors in zip(records, held, strict=True) if record.ambient_degC != ambient]
        bands = calibrate(trained or others, others)
        assert bands is not None
        mine = [errors for record, errors in zip(records, held, strict=True) if record.ambient_degC == ambient]
        half = np.concatenate([bands.half_width(e.soc, e.temperature) for e in mine])
        size = np.concatenate([e.size for e in mine])
        figures.append((np.mean(size <= half), 1e3 * np.mean(half)))
    return np.array(figures)


def choice(names: Sequence[str], twins: dict[str, list[Twin]], split: Split) -> None:
    print("| shape from | coverage per ambient left out | mean distance from the level | ± mV |\n|---|---|---|---|")
    figures = {"validation": [], "training": []}
    for name in names:
        for one in twins[name]:
            trained, held = (errors_of(one.runner, side) for side in (split.train, split.validate))
            figures["validation"].append(left_out(split.validate, None, held))
            figures["training"].append(left_out(split.validate, trained, held))
    for shape, found in figures.items():
        coverage, half = np.mean(found, axis=0).T
        distance = 100 * np.mean(np.abs(np.array(found)[:, :, 0] - LEVEL))
        listed = ", ".join(f"{100 * value:.1f}" for value in coverage)
        print(f"| {shape} | {listed} | {distance:.1f} points | {half.mean():.1f} |")


def one_out(name: str, unseen: Sequence[Errors], held: Sequence[Errors]) -> None:
    """Coverage of each unseen training cycle and each validation cycle by bands of all the others, mean over cycles."""
    everything, coverage = [*unseen, *held], []
    for left, mine in enumerate(everything):
        shape = [errors for at, errors in enumerate(unseen) if at != left]
        bands = calibrate(shape, [errors for at, errors in enumerate(everything) if at != left])
        assert bands is not None
        coverage.append(np.mean(mine.size <= bands.half_width(mine.soc, mine.temperature)))
    print(f"{name}: one of {len(everything)} unseen cycles left out, {100 * np.mean(coverage):.1f} % of it held")


def tested(name: str, size_from: str, twins: Sequence[Twin], records: Sequence[Record]) -> None:
    by_seed = [protocol.evaluate(one, records) for one in twins]
    cells = []
    for ambient in sorted({record.ambient_degC for record in records}):
        rows = [row for rows in by_seed for row in rows if row["ambient_degC"] == ambient]
        coverage, half = (np.mean([row[k] for row in rows]) for k in ("coverage", "half_width"))
        cells.append(f"{100 * coverage:.1f} % (± {half:.1f})")
    whole = [protocol.overall(rows) for rows in by_seed]
    rmse, coverage, half = (np.mean([figures[k] for figures in whole]) for k in ("rmse", "coverage", "half_width"))
    factor = np.mean([one.bands.inflation for one in twins if one.bands])
    print(
        f"| {name} | {size_from} | {rmse:.2f} | {factor:.2f} | {' | '.join(cells)} "
        f"| {100 * coverage:.1f} % (± {half:.1f}) |"
    )


def head(records: Sequence[Record]) -> None:
    ambients = [f"{ambient:g} °C" for ambient in sorted({record.ambient_degC for record in records})]
    columns = ["model", "bands of", "RMSE (mV)", "f", *ambients, "all"]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("data", metavar="DATASET")
    parser.add_argument("--models", default="hybrid-gru,hybrid,koopman,gru,lstm,narx")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--folds", type=Path, metavar="RUN", help="a run folder with folds of these models")
    parser.add_argument("--validation-only", action="store_true", help="leave the test cycles alone")
    given = parser.parse_args()
    split = datasets.load(given.data).split(None)
    names, seeds = given.models.split(","), given.seeds.split(",")
    twins = {name: [twin.load(given.run / "twins" / f"{name}-{seed}.twin") for seed in seeds] for name in names}
    choice(names, twins, split)
    if given.validation_only:
        return
    unseen: dict[str, list[Errors]] = {name: [] for name in names}
    if given.folds is not None:
        asked = experiment.load(given.folds)
        unseen = {name: jobs.unseen_in(given.folds, name, asked, split) for name in names}
        print()
        for name in filter(unseen.get, names):
            one_out(name, unseen[name], errors_of(twins[name][0].runner, split.validate))
    head(split.test)
    for name in names:
        ways: dict[str, Sequence[Errors]] = {"validation": ()}
        if unseen[name]:
            ways["folds"] = unseen[name]
        for size_from, errors in ways.items():
            tested(name, size_from, [jobs.with_bands(one, split, errors) for one in twins[name]], split.test)
            if len(seeds) > 1:
                together = [jobs.ensemble(twins[name], split, errors)]
                tested(f"ensemble of {len(seeds)}", size_from, together, split.test)
    if given.folds is not None:
        head(split.validate)
        apart = replace(split, validate=())
        for name in names:
            made = [jobs.with_bands(one, apart, unseen[name]) for one in twins[name]]
            tested(name, "folds alone", made, split.validate)


if __name__ == "__main__":
    main()
