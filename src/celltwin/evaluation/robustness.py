"""Robustness of an estimator: every way of waking and every fault of a sensor, scored one after the other.

A condition is a start (a fraction of the cycle, with nothing known of the charge, or with a stored state of charge that
is wrong) and the faults of `protocol.FAULTS`. Offsets of current are given for a cell of 3 Ah and scale with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from celltwin.data.record import Record
from celltwin.evaluation import protocol
from celltwin.interface import POINT
from celltwin.learning.tasks import STARTS
from celltwin.twin import Twin

NEAR = 2.0  # points: a wrong start is over when the error is less, for good
PER_AMPERE_HOUR = 1 / 3.0  # faults of current below are those of a cell of 3 Ah


@dataclass(frozen=True)
class Condition:
    """One way of being put to the test."""

    name: str
    group: str
    faults: dict[str, float] = field(default_factory=dict)  # currents of a cell of 3 Ah
    start: float = 0.0

    def scaled(self, capacity: float) -> dict[str, float]:
        """The faults for a cell of `capacity` Ah."""
        scale: dict[str, float] = dict.fromkeys(("current_offset", "current_step"), capacity * PER_AMPERE_HOUR)
        return {name: value * scale.get(name, 1.0) for name, value in self.faults.items()}


def _conditions() -> tuple[Condition, ...]:
    made = [Condition(f"start at {100 * s:.0f} %", "start", {}, s) for s in STARTS]
    made += [Condition(f"stored {100 * x:+.0f} points", "stored", {"soc_offset": x}, 0.25) for x in (-0.1, -0.2, -0.5)]
    made += [
        Condition(f"current {x:+.2f} A", "sensor", {"current_offset": x}) for x in (-0.3, -0.1, -0.05, 0.05, 0.1, 0.3)
    ]
    made += [Condition(f"current {100 * x:+.0f} %", "sensor", {"current_gain": x}) for x in (-0.02, 0.02)]
    made += [
        Condition(f"voltage {1000 * x:+.0f} mV", "sensor", {"voltage_offset": x}) for x in (-0.01, -0.004, 0.004, 0.01)
    ]
    made += [Condition(f"temperature {x:+.0f} K", "sensor", {"temperature_offset": x}) for x in (-5.0, 5.0)]
    made += [
        Condition(
            f"current {i:+.1f} A and voltage {1000 * v:+.0f} mV", "both", {"current_offset": i, "voltage_offset": v}
        )
        for i in (-0.1, 0.1)
        for v in (-0.004, 0.004)
    ]
    made += [
        Condition("noise of 5 mV, C/100 and 0.1 K", "signal", {"noise": 5e-3}),
        Condition("converter of 10 mV and 0.1 A", "signal", {"voltage_step": 0.01, "current_step": 0.1}),
        Condition("voltage stuck for 60 s", "signal", {"stuck": 1.0}),
        Condition("no voltage for 60 s", "signal", {"dropout": 1.0}),
        Condition("every 0.1 s", "sampling", {"sampling": 0.1}),
        Condition("every 10 s", "sampling", {"sampling": 10.0}),
        Condition("irregular, 0.1 to 2 s", "sampling", {"irregular": 1.0}),
        Condition("capacity faded by 10 %", "ageing", {"fade": 0.1}),
        Condition("capacity faded by 20 %", "ageing", {"fade": 0.2}),
    ]
    return tuple(made)


CONDITIONS = _conditions()


def score(
    twin: Twin,
    records: Sequence[Record],
    conditions: Sequence[Condition] = CONDITIONS,
    tick: Callable[[float], None] = lambda share: None,
) -> list[dict[str, Any]]:
    """One entry a condition: `name`, `group`, `rows` (as of `protocol.evaluate`, with `return_second`) and `overall`.

    `return_second` is the time after which the error stays under 2 points to the end; NaN where it does not.
    """
    entries = []
    for done, condition in enumerate(conditions):
        parts = [protocol.from_fraction(record, condition.start) for record in records]
        capacity = twin.cell.nominal_capacity_ah
        rows = []
        for row in protocol.evaluate(twin, parts, condition.scaled(capacity)):
            rows.append(protocol.figures(row) | {"return_second": _return(row["record"], row["output"].soc)})
        entries.append(
            {"name": condition.name, "group": condition.group, "rows": rows, "overall": protocol.overall(rows)}
        )
        tick((done + 1) / len(conditions))
    return entries


def headline(entries: Sequence[dict[str, Any]]) -> float:
    """Mean absolute error in points over records and starts with nothing known: what estimators are ranked by."""
    return float(np.mean([entry["overall"]["mae"] for entry in entries if entry["group"] == "start"]))


def _return(record: Record, soc: np.ndarray) -> float:
    wrong = np.flatnonzero(POINT * np.abs(soc - record.soc) >= NEAR)
    if not wrong.size:
        return 0.0
    after = wrong[-1] + 1
    return float(record.time[after] - record.time[0]) if after < len(record) else float("nan")
