"""Beyond drive cycles: constant-current discharges and pulse tests, simulated by twins that never saw one.

    python benchmarks/beyond.py RUN [--data $CELLTWIN_DATA/lg_18650hg2] [--models thevenin,hybrid-gru,...]

Closed loop from a full cell to the end of the discharge. The 0.5C and 2C logs, a sample a minute, are simulated second
by second and scored at their samples; the others run at their own steps, 0.1 s to a minute. RMSE in mV, mean over the
ambients and the seeds of the run; then each hybrid against its circuit, log by log.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from celltwin import twin
from celltwin.data import datasets, importers
from celltwin.data.record import Record
from celltwin.evaluation import protocol

KINDS = {"0.5C": "Dis_0p5C", "1C": "Cap_1C", "2C": "Dis_2C", "HPPC": "HPPC"}
CIRCUIT_OF = ("hybrid", "hybrid-gru", "circuit-neural")


def discharge(path: Path, cell) -> Record:
    """A log from full to its emptiest sample; one that begins under load is given the minute before, from rest."""
    record = replace(importers.load(path, cell=cell), initial_soc=1.0, net_capacity=None)
    if abs(record.current[0]) > cell.nominal_capacity_ah / 20:
        first = record.temperature[0]
        before = {"time": record.time[0] - 60.0, "current": 0.0, "voltage": np.nan, "temperature": first}
        record = replace(record, **{name: np.r_[value, getattr(record, name)] for name, value in before.items()})
    record = record.between(0, int(np.argmin(record.charge_ah)) + 1)
    return by_seconds(record) if np.median(record.dt[1:]) > 30.0 else record


def by_seconds(record: Record) -> Record:
    """The record at 1 s, its current held; a voltage only where one was measured."""
    time = np.arange(record.time[0], record.time[-1] + 0.5)
    held = np.searchsorted(record.time, time)  # the step that ends at or after each second
    voltage = np.full(len(time), np.nan)
    voltage[np.round(record.time - record.time[0]).astype(int).clip(max=len(time) - 1)] = record.voltage
    held = held.clip(max=len(record) - 1)
    temperature = np.interp(time, record.time, record.filled_temperature)
    return replace(record, time=time, voltage=voltage, current=record.current[held], temperature=temperature)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", default="")
    options = parser.parse_args()
    cell = datasets.load(options.data).cell
    paths = {kind: sorted(options.data.glob(f"native/*/{name}.parquet")) for kind, name in KINDS.items()}
    records = {kind: [discharge(path, cell) for path in logs] for kind, logs in paths.items()}
    for kind, each in records.items():
        print(f"{kind}: {len(each)} logs at {', '.join(f'{r.ambient_degC:g}' for r in each)} degC")
    files = sorted((options.run / "twins").glob("*.twin"))
    known = {file.stem.rpartition("-")[0] for file in files}
    names = [name for name in options.models.split(",") if name] or sorted(known)
    found: dict[str, dict[str, np.ndarray]] = {}
    print(f"\n{'model':<16}" + "".join(f"{kind:>9}" for kind in KINDS) + f"{'worst':>9}")
    for name in names:
        twins = [twin.load(file) for file in files if file.stem.rpartition("-")[0] == name]
        rows = {kind: [protocol.evaluate(one, each) for one in twins] for kind, each in records.items()}
        found[name] = {
            kind: np.array([[row["rmse"] for row in one] for one in each]).mean(axis=0) for kind, each in rows.items()
        }
        worst = max(row["max"] for each in rows.values() for one in each for row in one)
        means = "".join(f"{found[name][kind].mean():>9.1f}" for kind in KINDS)
        print(f"{name:<16}{means}{worst:>9.0f}", flush=True)
    if "thevenin" in found:
        print("\nRMSE over that of the circuit, mean over seeds, log by log: mean and worst")
        for name in filter(found.__contains__, CIRCUIT_OF):
            ratios = {kind: found[name][kind] / found["thevenin"][kind] for kind in KINDS}
            text = "".join(f"{kind:>8} {each.mean():.2f} {each.max():.2f}" for kind, each in ratios.items())
            print(f"{name:<16}{text}")


if __name__ == "__main__":
    main()
