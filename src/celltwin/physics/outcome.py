"""What comes of running operations: a record, a log of how each ended, or an error that says why it could not go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from celltwin.data.record import SECONDS_PER_HOUR, Record
from celltwin.errors import CelltwinError
from celltwin.physics.charge import HIGHEST, LOWEST
from celltwin.physics.cycler import BEYOND, UNENDING, Progress
from celltwin.physics.demand import REASONS, ConstantPower, Operation


@dataclass(frozen=True)
class Ended:
    """How one operation went."""

    operation: Operation
    reason: str  # one of REASONS
    begin: float  # s
    duration: float  # s; 0 where its limit was met at once
    samples: slice  # of the record
    charge_ah: float  # positive = charge
    energy_wh: float  # likewise
    voltage: float  # V at its end, as all that follow
    current: float  # A
    soc: float  # fraction

    def __str__(self) -> str:
        after = f"after {self.duration:.1f} s, {self.charge_ah:+.4f} Ah" if self.duration else "at once"
        end = f"{self.voltage:.4f} V, {self.current:.4g} A, soc {self.soc:.4f}"
        return f"{self.operation.demand}: {self.reason} {after}; {end}"


@dataclass(frozen=True, eq=False)
class Operated:
    """What came of a run. The first sample is the cell before the first operation, without current."""

    record: Record
    log: tuple[Ended, ...]
    output: Any  # all that the model said, [time]
    state: Any  # of the model at the end, from which another run may go on


def log_of(todo: Sequence[Operation], record: Record, operation: np.ndarray, reasons: np.ndarray) -> tuple[Ended, ...]:
    """The log of the operations `todo`, from the index of the operation that each sample of the record belongs to."""
    charge = record.current * record.dt / SECONDS_PER_HOUR
    counts = np.bincount(operation[1:], minlength=len(todo))
    entries, stop = [], 1
    for each, count, reason in zip(todo, counts.tolist(), reasons, strict=False):
        first, stop = stop, stop + count
        part, last = slice(first, stop), stop - 1
        entries.append(
            Ended(
                each,
                REASONS[reason],
                float(record.time[first - 1]),
                float(record.time[last] - record.time[first - 1]),
                part,
                float(charge[part].sum()),
                float(charge[part] @ record.voltage[part]),
                float(record.voltage[last]),
                float(record.current[last]),
                float(record.soc[last]),
            )
        )
    return tuple(entries)


def failure_of(now: Progress, todo: Sequence[Operation], time: float, longest: float) -> CelltwinError:
    """Why a run could not go on at `time` s."""
    at, trial = todo[int(now.operation)], now.trial
    where = f"operation {int(now.operation) + 1} ({at.demand}), after {time:g} s"
    voltage, current, soc = (float(x) for x in (trial.output.voltage, trial.current, trial.output.soc))
    if int(now.status) == UNENDING:
        return CelltwinError(
            f"{where}, has not ended",
            got=f"{voltage:.4f} V, {current:.4g} A, soc {soc:.4f} and no limit after {longest:g} s",
            expected="a limit that it reaches",
            fix="add a duration, or raise `longest`",
        )
    if int(now.status) == BEYOND:
        return CelltwinError(
            f"{where}: the cell is {'over-discharged' if soc < 0 else 'overcharged'}, and no limit was met",
            got=f"{voltage:.4f} V, {current:.4g} A, soc {soc:.4f}",
            expected=f"an end within {LOWEST:g} to {HIGHEST:g} of charge, where a model knows its open-circuit voltage",
            fix="a limit that the model reaches, until=Limits(voltage=..., soc=...), or another state at the start",
        )
    if not np.isfinite(voltage):
        return CelltwinError(f"{where}: the model gives no number", got=f"{voltage} V at soc {soc:.4f}")
    most = "a demand that some current meets"
    if isinstance(at, ConstantPower) and at.power < 0:
        most = f"no more than the {-voltage * current:.4g} W that the cell can give here"
    return CelltwinError(
        f"{where}: no current meets the demand",
        got=f"{voltage:.4f} V at {current:.4g} A, soc {soc:.4f}",
        expected=most,
        fix="ask for less, or end the operation before: until=Limits(voltage=...)",
    )
