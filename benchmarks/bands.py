"""Bands of trained twins: how they were chosen on validation, and what share of the test cycles they hold.

    python benchmarks/bands.py RUN DATASET [--models gru,hybrid-gru] [--seeds 0,1,2]

1. On validation alone, one ambient temperature left out at a time: calibrated on the others, how much of the one left
   out is within. Once with the shape of the errors from the same validation cycles, once from the training cycles.
2. The test cycles, each ambient apart: means over the seeds, and of the ensemble of the seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from celltwin import jobs, twin
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


def tested(name: str, twins: Sequence[Twin], split: Split) -> None:
    by_seed = [protocol.evaluate(one, split.test) for one in twins]
    cells = []
    for ambient in sorted({record.ambient_degC for record in split.test}):
        rows = [row for rows in by_seed for row in rows if row["ambient_degC"] == ambient]
        coverage, half = (np.mean([row[k] for row in rows]) for k in ("coverage", "half_width"))
        cells.append(f"{100 * coverage:.1f} % (± {half:.1f})")
    whole = [protocol.overall(rows) for rows in by_seed]
    rmse, coverage, half = (np.mean([figures[k] for figures in whole]) for k in ("rmse", "coverage", "half_width"))
    factor = np.mean([one.bands.inflation for one in twins if one.bands])
    print(f"| {name} | {rmse:.2f} | {factor:.2f} | {' | '.join(cells)} | {100 * coverage:.1f} % (± {half:.1f}) |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("data", metavar="DATASET")
    parser.add_argument("--models", default="hybrid-gru,hybrid,koopman,gru,lstm,narx")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--validation-only", action="store_true", help="leave the test cycles alone")
    given = parser.parse_args()
    split = datasets.load(given.data).split(None)
    names, seeds = given.models.split(","), given.seeds.split(",")
    twins = {name: [twin.load(given.run / "twins" / f"{name}-{seed}.twin") for seed in seeds] for name in names}
    choice(names, twins, split)
    if given.validation_only:
        return
    ambients = [f"{ambient:g} °C" for ambient in sorted({record.ambient_degC for record in split.test})]
    print(f"\n| model | RMSE (mV) | f | {' | '.join(ambients)} | all |\n|---|---|---|{'---|' * (len(ambients) + 1)}")
    for name in names:
        tested(name, [jobs.with_bands(one, split) for one in twins[name]], split)
        if len(seeds) > 1:
            tested(f"ensemble of {len(seeds)}", [jobs.ensemble(twins[name], split)], split)


if __name__ == "__main__":
    main()
