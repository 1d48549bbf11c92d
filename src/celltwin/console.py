"""What commands have in common: results to stdout, what is said about them to stderr, and options."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from celltwin.data.record import Record
from celltwin.data.sheets import count
from celltwin.errors import CelltwinError
from celltwin.learning.tasks import typical_drop

# A pipe or a log file has no width of its own; tables need about this.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)


def escape(text: str) -> str:
    """Text in which nothing is markup."""
    return text.replace("[", r"\[")


def note(text: str) -> None:
    """Something the user should know, on stderr."""
    err.print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


def note_doubts(records: Iterable[Record]) -> None:
    """Say what of these records is taken for granted: a full cell at the start, the current through a gap, a
    temperature nobody measured."""
    records = list(records)
    for record in records:
        if _hardly_full(record):
            note(
                f"{record.label} is taken as full at its first sample, which shows {record.voltage[0]:.3f} V: "
                "its state of charge there belongs into [records] initial_soc"
            )
    unmeasured = [record for record in records if not np.isfinite(record.temperature).any()]
    for known, stands_in in ((True, "the ambient stands in for it"), (False, "25 °C is assumed")):
        some = [record.label for record in unmeasured if np.isfinite(record.ambient_degC) == known]
        if some:
            which = some[0] if len(some) == 1 else f"{len(some)} records, {some[0]} the first,"
            how = "--column temperature=HEADER, or [records] columns of a dataset, names a column"
            how += "" if known else "; a folder such as 25degC, or [records] ambient_degC, the ambient"
            note(f"no temperature in {which}: {stands_in} ({how})")
    for record in records:
        if len(record.gaps):
            longest = float(record.dt[record.gaps].max())
            note(
                f"{record.label} has {count(len(record.gaps), 'gap')} of up to {longest:.0f} s: "
                "its charge is uncertain after them"
            )


def refuse_not_finite(who: object, record: Record, said: Any) -> None:
    """Raises CelltwinError where not all answers about a record are numbers: the twin is damaged, or never learned."""
    lost = np.count_nonzero(~np.isfinite(said))
    if lost:
        raise CelltwinError(
            f"{who} says nothing that is finite of {record.name}",
            got=f"{lost} of {len(said)} answers that are not",
            fix="take a whole copy of the twin, or train it again",
        )


EMPTIER = 0.7  # of a cell's window from below: what a full cell is hardly under, once its load is allowed for


def _hardly_full(record: Record) -> bool:
    """Is a record said to begin full whose first voltage is far from that?"""
    if record.cell is None or not record.initial_soc > 0.99 or not np.isfinite(record.voltage[0]):
        return False
    low, high = record.cell.voltage_limits_volt
    load = -float(record.current[0]) / record.cell.reference_capacity_ah
    drop = 2.0 * typical_drop(float(record.filled_temperature[0])) * max(load, 0.0)  # twice, as cells differ
    return float(record.voltage[0]) + drop < low + EMPTIER * (high - low)


# --- which records, and which of them train ---------------------------------------------------------

Data = Annotated[
    str, typer.Argument(metavar="DATASET", help="Folder with a dataset.toml, its path, or a registered name.")
]
SplitName = Annotated[str | None, typer.Option("--split", help="A further split of the dataset: \\[splits.NAME].")]
Folds = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Train this often again, each time without a part of the training cycles: errors on these set the bands.",
    ),
]

# --- how logs are read --------------------------------------------------------------------------------

CurrentSign = Annotated[
    str | None,
    typer.Option(help="What is logged as positive current: charge or discharge. Default: as found and checked."),
]
ColumnNames = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=HEADER",
        help="A column that is not recognised, e.g. voltage='Vbat \\[mV]'; repeat for several. ROLE: time, "
        "voltage, current, temperature, ambient, net_charge, charged, discharged.",
    ),
]


def sign_of(current_sign: str | None) -> float:
    """-1 where positive current is discharge. Raises CelltwinError where the option is wrong."""
    if current_sign not in (None, "charge", "discharge"):
        raise CelltwinError("--current-sign is wrong", got=current_sign, expected="charge or discharge")
    return -1.0 if current_sign == "discharge" else 1.0


def columns_of(given: Sequence[str] | None) -> dict[str, list[str]]:
    """Headers by role, of which a file may have any. Raises CelltwinError where an option is wrong."""
    pairs = [item.partition("=") for item in given or ()]
    if wrong := ["".join(pair) for pair in pairs if not (pair[0].strip() and pair[2].strip())]:
        raise CelltwinError(
            "--column is wrong", got=wrong[0], expected="ROLE=HEADER", fix="e.g. --column voltage='Vbat [mV]'"
        )
    named: dict[str, list[str]] = {}
    for role, _, header in pairs:
        named.setdefault(role.strip(), []).append(header.strip())
    return named


def reading(current_sign: str | None, columns: Sequence[str] | None) -> dict[str, Any]:
    """These two options as `importers.load` takes them."""
    sign_of(current_sign)
    return {"current_sign": current_sign, "columns": columns_of(columns)}
