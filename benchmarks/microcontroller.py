"""What every twin of a run costs on a microcontroller, and what whole-number weights cost in accuracy.

    celltwin benchmark --task soc --data DATASET --out runs/soc
    python benchmarks/microcontroller.py runs/soc/twins --data DATASET [--cpu cortex-m7] [--markdown]

Each twin's C is cross-compiled and replayed in an emulator (flash, RAM, stack, instructions a step), and compiled for
this machine and replayed over the whole test cycles (its error: of voltage in mV, closed loop; of state of charge in
points, mean absolute, over starts at 0, 25, 50 and 75 % of a cycle). Time is an estimate: instructions times an
assumed number of cycles at 160 MHz. Named in the end: the most accurate estimator that fits into 32 kB of flash.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from celltwin import twin
from celltwin.data import datasets
from celltwin.deploy import c, cost
from celltwin.deploy.native import Native
from celltwin.twin import Twin

SAMPLES = 60  # that the emulator replays
STARTS = (0.0, 0.25, 0.5, 0.75)
FLASH, RAM = 32 * 1024, 1024


def error(compiled: Native, one: Twin, records) -> float:
    """Of the compiled C over whole records: RMSE in mV, or mean absolute error in points."""
    errors = []
    for record in records:
        for share in STARTS if one.task == "soc" else (0.0,):
            part = record.between(int(share * len(record)))
            start, inputs = one.fed(part)
            label = part.soc if one.task == "soc" else part.voltage
            apart = compiled.run(compiled.begin(start), inputs)[:, 0] - label
            known = apart[np.isfinite(apart)]
            errors.append(1e2 * np.abs(known).mean() if one.task == "soc" else 1e3 * np.sqrt((known**2).mean()))
    return float(np.mean(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("twins", type=Path, nargs="+", help="twin files, or folders of them")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--cpu", default="cortex-m4", choices=cost.BOARDS)
    parser.add_argument("--markdown", action="store_true", help="for the documentation")
    options = parser.parse_args()

    dataset = datasets.load(options.data)
    tests = dataset.split().test
    paths = [p for given in options.twins for p in (sorted(given.glob("*-0.twin")) if given.is_dir() else [given])]
    rows = []
    for path in track(paths, "twins", console=Console(stderr=True)):
        one = twin.load(path)
        start, inputs = one.fed(tests[0])
        for weights in c.WEIGHTS:
            source = c.emit(one, weights=weights)
            if weights != "real" and f"{weights}_t" not in source.source:
                continue  # has no matrix that is worth it
            spent = cost.measure(source, start, inputs[:SAMPLES], options.cpu)
            rows.append((one.task, one.name, weights, error(Native(source), one, tests), spent))
    rows.sort(key=lambda row: (row[0] == "soc", row[3]))

    heads = (
        "Twin",
        "Weights",
        "Error",
        "Flash kB",
        "RAM B",
        "Stack B",
        "Instructions",
        f"ms ({options.cpu}, estimate)",
    )
    lines = [
        (name, weights, f"{wrong:.1f} mV" if task == "voltage" else f"{wrong:.2f} points", f"{s.flash / 1024:.1f}",
         str(s.ram), str(s.stack), f"{s.instructions:,.0f}", f"{s.microseconds / 1000:.3f}")
        for task, name, weights, wrong, s in rows
    ]  # fmt: skip
    if options.markdown:
        print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
        for line in lines:
            print("| " + " | ".join(line) + " |")
    else:
        table = Table(title=f"{options.data}: emitted C on a {options.cpu}", box=None)
        for number, head in enumerate(heads):
            table.add_column(head, justify="left" if number < 2 else "right")
        for line in lines:
            table.add_row(*line)
        Console(width=130).print(table)
    for what, fits in (
        ("32 kB of flash and 1 kB of RAM beside the stack", lambda s: s.flash <= FLASH and s.ram <= RAM),
        ("32 kB of flash and 1 kB of RAM with the stack", lambda s: s.flash <= FLASH and s.ram + s.stack <= RAM),
    ):
        best = next((row for row in rows if row[0] == "soc" and fits(row[4])), None)
        found = f"{best[1]} (weights {best[2]}), {best[3]:.2f} points" if best else "none of these"
        print(f"most accurate estimator within {what}: {found}")


if __name__ == "__main__":
    main()
