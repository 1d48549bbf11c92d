"""A twin of one cell as the start for another: error against minutes of data, and against training from nothing.

    python benchmarks/transfer.py RUN --target DATASET [--models thevenin,hybrid-gru] [--minutes 10,30,60,120,all]

For each number of minutes of the target's training records, those nearest to room temperature first: RMSE in mV over
the target's test cycles, whole and in closed loop, of the run's twin as it is, of the twin adapted to these minutes
(capacity, resistance and charge at the start), of the twin fine-tuned on them, and of a model trained on them from
nothing. Only these minutes are seen: no validation record chooses a round. One seed; both trainings have the same plan,
a short one, but for the lower rate of the fine-tuning.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from celltwin import adaptation, jobs, twin
from celltwin.data import datasets
from celltwin.data.datasets import Dataset
from celltwin.data.splits import Split, shortened
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
from celltwin.learning.plan import Plan
from celltwin.twin import Twin

ROOM = 25.0  # degC
WIDE = adaptation.Doubt(capacity=0.1, resistance=0.5, soc=0.02)  # another cell, not another specimen
HEADINGS = ("as it is", "adapted", "fine-tuned", "from nothing")


def short(plan: Plan) -> Plan:
    """What is left of a family's plan: a training of seconds."""
    small = {"adam_rounds": 3, "updates": 50, "lanes": 10, "chunk": 250, "averaging": 0.95, "lbfgs_rounds": 0}
    return plan.model_copy(update=small)


def trained(name: str, dataset: Dataset, split: Split, source: Twin | None) -> Twin:
    """A twin of the split, its bases trained before it."""
    sources = jobs.bases_of(source, name) if source else [None] * len(jobs.chain(name))
    made: Twin | None = None
    for family, start in zip(jobs.chain(name), sources, strict=True):
        assert family.plan is not None
        plan = short(jobs.gentle(family.plan) if start else family.plan)
        made = jobs.train(jobs.Job(family, 0, plan), dataset, split, made, source=start)
    assert made is not None
    return made


def adapted(one: Twin, split: Split) -> Twin:
    """The twin adapted to the first training record, as far as the split shows it; its charge at the start is no fact
    of the cell, and is not kept."""
    record = split.train[0]
    seconds = float(record.time[-1] - record.time[0])
    fitted, _ = adaptation.adapt(one, record, seconds - 1e-3, WIDE)
    return replace(fitted, model=replace(fitted.model, soc=0.0 * fitted.model.soc))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--models", default="thevenin,hybrid-gru")
    parser.add_argument("--minutes", default="10,30,60,120,all")
    options = parser.parse_args()
    dataset = datasets.load(options.target)
    whole = dataset.split()
    nearest = sorted(whole.train, key=lambda r: abs(np.nan_to_num(r.ambient_degC, nan=ROOM) - ROOM))
    whole = replace(whole, train=tuple(nearest), validate=())
    print(f"{dataset.cell.name}; first {whole.train[0].label}; {len(whole.test)} test cycles")
    print(f"{'model':<12}{'minutes':>8}" + "".join(f"{heading:>14}" for heading in HEADINGS))
    for name in options.models.split(","):
        source = twin.load(options.run / "twins" / f"{name}-0.twin")

        def error(one: Twin) -> str:
            return f"{np.mean([row['rmse'] for row in protocol.evaluate(one, whole.test)]):>14.1f}"

        as_it_is = error(replace(source, cell=dataset.cell, bands=None))
        for minutes in options.minutes.split(","):
            split = whole if minutes == "all" else shortened(whole, 60.0 * float(minutes))
            row = as_it_is
            try:
                row += error(adapted(replace(source, cell=dataset.cell, bands=None), split))
            except CelltwinError:
                row += f"{'-':>14}"
            print(f"{name:<12}{minutes:>8}{row}", end="", flush=True)
            for start in (source, None):
                print(error(trained(name, dataset, split, start)), end="", flush=True)
            print(flush=True)


if __name__ == "__main__":
    main()
