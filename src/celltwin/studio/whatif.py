"""What if: a voltage twin under a current, a temperature and an age of one's own choosing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from celltwin.data.record import SECONDS_PER_HOUR, Cell, PackRecord, Record
from celltwin.errors import CelltwinError
from celltwin.interface import simulate_records
from celltwin.models.aged import Aged
from celltwin.models.bounds import Bounded
from celltwin.physics.operation import operate, rested
from celltwin.studio import uploads
from celltwin.twin import Twin

VERBS = ("charge", "discharge", "hold", "rest")
MOST_SAMPLES = 500_000
LONGEST = 10 * 86400.0  # s
EXAMPLE = "discharge at 1C until 3.0 V\nrest for 1 h\ncharge at C/2 until 4.15 V"


@dataclass(frozen=True)
class Profile:
    """A current over time: each holds until the next, the last ends it. Current is positive on charge."""

    time: np.ndarray  # s
    current: np.ndarray  # A


@dataclass(frozen=True)
class Case:
    """What to simulate."""

    todo: tuple[str, ...] | Profile  # phrases, one an operation, or a current over time
    soc: float = 1.0  # fraction at the start
    ambient_degC: float = 25.0
    capacity: float = 1.0  # fraction of the reference capacity that is left
    resistance: float = 1.0  # times that of the fresh cell
    period: float = 1.0  # s, of the samples


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of it."""

    record: Record  # as a measured one, with simulated voltage
    soc: np.ndarray  # fraction
    energy_wh: np.ndarray  # since the start, positive = charge
    in_domain: np.ndarray
    log: tuple[str, ...]  # how each operation, or the profile, ended

    @property
    def _steps_wh(self) -> np.ndarray:
        return np.diff(self.energy_wh, prepend=0.0)

    @property
    def tiles(self) -> list[tuple[str, str]]:
        """Its figures as name and text."""
        record, end = self.record, float(self.record.time[-1] - self.record.time[0])
        return [
            ("time to the end", f"{int(end // 3600)}:{int(end % 3600 // 60):02d} h" if end >= 120 else f"{end:.0f} s"),
            ("SOC at the end", f"{100 * self.soc[-1]:.1f} %"),
            ("lowest voltage", f"{np.min(record.voltage):.3f} V"),
            ("energy given", f"{-np.minimum(self._steps_wh, 0.0).sum():.2f} Wh"),
            ("energy taken", f"{np.maximum(self._steps_wh, 0.0).sum():.2f} Wh"),
            ("charge", f"{record.charge_ah[-1]:+.3f} Ah"),
            ("outside domain", f"{100 * np.mean(~self.in_domain):.1f} %"),
        ]


def parse(text: str) -> tuple[str, ...] | Profile:
    """Phrases, one a line, or a table of seconds and amperes. Raises CelltwinError for what is neither."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not lines:
        raise CelltwinError("nothing to do", expected="operations, one a line, or a table of seconds and amperes")
    if lines[0].split()[0].lower() in VERBS:
        return tuple(lines)
    return table(lines)


def table(lines: Sequence[str]) -> Profile:
    """Seconds and amperes of lines of text, in its first two columns; a line of headers may come first."""
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines, 1):
        cells = re.split(r"[;\t]|,\s*|\s+", line.strip())
        try:
            rows.append((float(cells[0]), float(cells[1])))
        except (ValueError, IndexError) as error:
            if number == 1 and not rows and len(cells) > 1:
                continue  # headers
            raise CelltwinError(
                f"line {number} is neither an operation nor a row of a table",
                got=line[:80],
                expected=f"a line that begins with {', '.join(VERBS)}, or seconds and amperes such as '60, -2.5'",
                fix="e.g. discharge at 1C until 3.0 V",
            ) from error
    return profile([row[0] for row in rows], [row[1] for row in rows])


def profile(time: Any, current: Any) -> Profile:
    """A profile that is checked. Raises CelltwinError for one that makes no sense."""
    time, current = np.asarray(time, float), np.asarray(current, float)
    if len(time) < 2 or not (np.isfinite(time).all() and np.isfinite(current).all()) or (np.diff(time) <= 0).any():
        raise CelltwinError(
            "the table of the current makes no sense",
            got=f"{len(time)} rows",
            expected="two or more rows of numbers, with seconds that increase",
            fix="the last row says when the profile ends",
        )
    return Profile(time - time[0], current)


def of_record(record: Record) -> Profile:
    """The current of a log. It holds over the step that ends at its sample; here, over the one that begins."""
    return profile(record.time, np.r_[record.current[1:], record.current[-1]])


def read(path: Path) -> Profile:
    """A file of seconds and amperes, or else the current of a log. Raises CelltwinError for what is neither."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        lines = []
    if lines and len(re.split(r"[,;\t]", lines[-1])) == 2:
        return table(lines)
    record = uploads.examine(path).record
    if isinstance(record, PackRecord):
        raise CelltwinError(f"{path.name} is the log of a pack", expected="the current of one cell")
    return of_record(record)


def run(one: Twin, case: Case) -> Answer:
    """Simulate a case. Raises CelltwinError for what makes no sense, or asks more than the cell can give."""
    one.refuse_unless("voltage")
    for name, value, low, high in (
        ("SOC at the start", case.soc, 0.0, 1.0),
        ("ambient temperature in °C", case.ambient_degC, -60.0, 100.0),
        ("capacity that is left", case.capacity, 0.3, 1.5),
        ("resistance", case.resistance, 0.5, 5.0),
        ("sampling in s", case.period, 0.01, 3600.0),
    ):
        if not low <= value <= high:
            raise CelltwinError(f"{name} makes no sense", got=value, expected=f"{low:g} to {high:g}")
    # Rates go by the nominal capacity, which does not age.
    cell = replace(one.cell, reference_capacity_ah=case.capacity * one.cell.reference_capacity_ah)
    model = Aged.of(Bounded.of(one.model, one.cell), resistance=case.resistance)
    if isinstance(case.todo, Profile):
        record, soc, ended = _driven(model, case.todo, case, cell)
    else:
        done = operate(
            model,
            case.todo,
            cell,
            soc=case.soc,
            temperature=case.ambient_degC,
            period=case.period,
            longest=LONGEST,
            name="what-if",
        )
        record, soc, ended = done.record, np.asarray(done.output.soc, float), tuple(str(entry) for entry in done.log)
    energy = np.cumsum(record.voltage * record.current * record.dt) / SECONDS_PER_HOUR
    return Answer(record, soc, energy, one.in_domain(record, soc), ended)


def _driven(model: Any, given: Profile, case: Case, cell: Cell) -> tuple[Record, np.ndarray, tuple[str, ...]]:
    """A profile, until it or the cell is at its end."""
    length = float(given.time[-1])
    if not length / case.period <= MOST_SAMPLES:
        raise CelltwinError(
            "the profile is too long",
            got=f"{length:g} s in steps of {case.period:g} s",
            expected=f"at most {MOST_SAMPLES:,} samples",
            fix="choose a longer sampling",
        )
    # The change of current falls on a sample; the mean over a step keeps the charge where it does not.
    time = np.append(np.arange(0.0, length - 1e-6 * case.period, case.period), length)
    passed = np.r_[0.0, np.cumsum(given.current[:-1] * np.diff(given.time))]
    charge = np.interp(time, given.time, passed)
    current = np.r_[0.0, np.diff(charge) / np.diff(time)]
    begin = rested(model, cell, case.soc, case.ambient_degC)
    record = Record(
        "what-if",
        time,
        np.full(len(time), float(begin.voltage)),
        current,
        np.full(len(time), case.ambient_degC),
        ambient_degC=case.ambient_degC,
        cell=cell,
        initial_soc=case.soc,
        source="simulated by celltwin studio",
    )
    output = simulate_records(model, [record])[0]
    voltage, soc = np.asarray(output.voltage, float), np.asarray(output.soc, float)
    low, high = cell.voltage_limits_volt
    over = ((voltage < low) & (current < 0)) | ((voltage > high) & (current > 0)) | (soc < 0.0)
    at = int(np.argmax(over)) if over.any() else len(time) - 1
    reason = "the profile ended"
    if over.any():
        limits = {f"{low:g} V was reached": voltage[at] < low, f"{high:g} V was reached": voltage[at] > high}
        reason = next((words for words, true in limits.items() if true), "the cell is empty")
    end = max(at + 1, 2)
    record = replace(
        record, time=time[:end], voltage=voltage[:end], current=current[:end], temperature=record.temperature[:end]
    )
    words = f"{reason} after {record.time[-1]:.0f} s, {record.charge_ah[-1]:+.4f} Ah; {record.voltage[-1]:.4f} V"
    return record, soc[:end], (words,)
