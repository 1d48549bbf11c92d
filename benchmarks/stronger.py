"""Currents that are stronger than any in training: does a twin stay a cell?

    python benchmarks/stronger.py RUN --data DATASET [--data DATASET ...] [--models thevenin,hybrid-gru,...]

Every record of the datasets, its current times 1, 1.25 and 1.5, in closed loop from the first sample; nothing was
measured at the larger ones. Over the samples between 5 and 100 % of charge, for each family and the seeds of the run:
the largest and the RMS distance from the run's circuit (mV), how far voltages go beyond the cell's window (mV; the
limit is 200), and the number of values that are not finite. A twin that diverges ends hundreds of mV from its circuit
where the current was scaled and not where it was not; one that steps back to it ends at none.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from celltwin import twin
from celltwin.data import datasets
from celltwin.data.record import Record

SCALES = (1.0, 1.25, 1.5)


def scaled(record: Record, factor: float) -> Record:
    """The record at a stronger current, its counter of charge left out."""
    return replace(record, current=factor * record.current, net_capacity=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--models", default="")
    options = parser.parse_args()
    records = [
        record for where in options.data for record in datasets.load(where).records if isinstance(record, Record)
    ]
    files = sorted((options.run / "twins").glob("*.twin"))
    names = [name for name in options.models.split(",") if name] or sorted({f.stem.rpartition("-")[0] for f in files})
    circuit = twin.load(options.run / "twins" / "thevenin-0.twin")
    low, high = circuit.cell.voltage_limits_volt
    print(
        f"{len(records)} records\n{'model':<16}{'current x':>10}{'largest':>9}{'RMS':>8}{'beyond':>8}{'not finite':>12}"
    )
    for factor in SCALES:
        logs = [scaled(record, factor) for record in records]
        simulated = [circuit.simulate(log) for log in logs]
        inside = [(out.soc >= 0.05) & (out.soc <= 1.0) for out in simulated]
        for name in names:
            apart, beyond, lost = [], 0.0, 0
            for file in (f for f in files if f.stem.rpartition("-")[0] == name):
                one = twin.load(file)
                for log, other, part in zip(logs, simulated, inside, strict=True):
                    voltage = np.asarray(one.simulate(log).voltage, float)
                    lost += int((~np.isfinite(voltage)).sum())
                    beyond = max(beyond, float(np.max(voltage) - high), float(low - np.min(voltage)))
                    apart.append((voltage - np.asarray(other.voltage, float))[part])
            distance = 1e3 * np.concatenate(apart)
            rms = np.sqrt(np.mean(distance**2))
            print(
                f"{name:<16}{factor:>10.2f}{np.abs(distance).max():>9.0f}{rms:>8.1f}{1e3 * beyond:>8.0f}{lost:>12}",
                flush=True,
            )


if __name__ == "__main__":
    main()
