"""What it buys to fit a voltage twin to the cell in front of it, from the first minutes of each test cycle.

    python benchmarks/adaptation.py RUN [--data DATASET] [--models hybrid-gru,...] [--minutes 10,20] [--split test]

For every seed of a run: RMSE in mV, per ambient, on the samples after the minutes that were looked at, of the twin as
it was and of the adapted one; mean over seeds. Both are scored on the same samples.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from celltwin import twin
from celltwin.data import datasets
from celltwin.evaluation import protocol


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="lg_18650hg2")
    parser.add_argument("--models", default="thevenin,hybrid,hybrid-gru,koopman")
    parser.add_argument("--minutes", default="10,20")
    parser.add_argument("--split", default="test", choices=["test", "validate"])
    options = parser.parse_args()
    records = getattr(datasets.load(options.data).split(), options.split)
    ambients = sorted({record.ambient_degC for record in records})
    print(f"{'model':<12}{'minutes':>8}{'':>9}" + "".join(f"{ambient:>7g}" for ambient in ambients) + f"{'all':>14}")
    for name in options.models.split(","):
        paths = sorted((options.run / "twins").glob(f"{name}-[0-9]*.twin"))
        twins = [twin.load(path) for path in paths]
        for minutes in map(float, options.minutes.split(",")):
            figures = {"as it was": defaultdict(list), "adapted": defaultdict(list)}
            for seed, one in enumerate(twins):
                for row in protocol.evaluate_adapted(one, records, 60.0 * minutes):
                    figures["as it was"][row["ambient_degC"], seed].append(row["rmse_before"])
                    figures["adapted"][row["ambient_degC"], seed].append(row["rmse"])
            for what, found in figures.items():
                means = np.array([[np.mean(found[at, seed]) for at in ambients] for seed in range(len(twins))])
                over = np.array([np.mean(np.concatenate([found[at, s] for at in ambients])) for s in range(len(twins))])
                spread = f" ±{over.std(ddof=1):.1f}" if len(twins) > 1 else ""
                print(
                    f"{name:<12}{minutes:>8g}{what:>10}"
                    + "".join(f"{value:>7.1f}" for value in means.mean(axis=0))
                    + f"{over.mean():>8.2f}{spread}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
