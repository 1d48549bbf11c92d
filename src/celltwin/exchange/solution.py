"""Solutions of PyBaMM as records to learn from, and twins' simulations as solutions that PyBaMM's tools can read.

PyBaMM counts discharge as positive current and names variables with their units, "Voltage [V]"; at the end of a step
of an experiment it tells the time twice, with the current before and after. Nothing of PyBaMM is imported here: a
solution is whatever answers `solution["Time [s]"].entries`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from celltwin.data.record import SECONDS_PER_HOUR, Cell, Record
from celltwin.errors import CelltwinError
from celltwin.interface import Output
from celltwin.physics.tables import KELVIN

# Names by which PyBaMM's models tell a cell's temperature, the most usual first; those in kelvin are turned.
TEMPERATURES = (
    "Volume-averaged cell temperature [C]",
    "Volume-averaged cell temperature [K]",
    "Cell temperature [degC]",
    "Cell temperature [K]",
    "X-averaged cell temperature [K]",
)
VOLTAGES = ("Voltage [V]", "Terminal voltage [V]")


def record_of(solution: Any, *, cell: Cell | None = None, initial_soc: float = float("nan"), name: str = "") -> Record:
    """The log that a solution of PyBaMM would have left on a cycler: current positive on charge, seconds, degC.

    `cell` and `initial_soc` (fraction) are the facts that a record needs before its state of charge is known. Of
    samples at one time the first is kept, whose current flowed before it. Raises CelltwinError where the solution
    lacks time, voltage or current.
    """
    time, voltage, current = (_entries(solution, names) for names in (("Time [s]",), VOLTAGES, ("Current [A]",)))
    temperature = np.full(len(time), np.nan)
    for title in TEMPERATURES:
        found = _entries(solution, (title,), needed=False)
        if len(found):
            temperature = found - KELVIN if title.endswith("[K]") else found
            break
    first = np.r_[True, np.diff(time) > 0]
    return Record(
        name=name or str(getattr(solution, "name", "")) or "solution",
        time=time[first],
        voltage=voltage[first],
        current=-current[first],
        temperature=temperature[first],
        cell=cell,
        initial_soc=initial_soc,
        source="PyBaMM",
    )


def _entries(solution: Any, names: tuple[str, ...], needed: bool = True) -> np.ndarray:
    for name in names:
        try:
            entries = np.asarray(solution[name].entries, float)
        except (KeyError, TypeError, AttributeError):
            continue
        return entries if entries.ndim == 1 else entries.reshape(-1, entries.shape[-1]).mean(axis=0)
    if not needed:
        return np.empty(0)
    raise CelltwinError(
        f"the solution has no {names[0]}",
        got=type(solution).__name__,
        expected="a solution of PyBaMM, or what answers as one",
    )


@dataclass(frozen=True)
class Variable:
    """One variable over time, as PyBaMM's processed variables answer: `.entries`, `.data`, and a call for any time."""

    name: str
    t: np.ndarray  # s
    entries: np.ndarray

    @property
    def data(self) -> np.ndarray:
        return self.entries

    def __call__(self, t: Any = None) -> np.ndarray:
        """Values at times in s, linear between samples."""
        return self.entries if t is None else np.interp(t, self.t, self.entries)


@dataclass(frozen=True)
class Solution(Mapping[str, Variable]):
    """A twin's simulation of a record under PyBaMM's names and sign: positive current discharges."""

    record: Record
    output: Output

    @property
    def t(self) -> np.ndarray:
        """Time in s."""
        return self.record.time

    @cached_property
    def _variables(self) -> dict[str, Callable[[], np.ndarray]]:
        record = self.record
        voltage, soc = (np.asarray(value, float) for value in self.output[:2])
        discharged = record.charge_ah[0] - record.charge_ah
        degrees = record.filled_temperature
        return {
            "Time [s]": lambda: record.time,
            "Time [min]": lambda: record.time / 60.0,
            "Time [h]": lambda: record.time / SECONDS_PER_HOUR,
            "Current [A]": lambda: -record.current,
            "Voltage [V]": lambda: voltage,
            "Terminal voltage [V]": lambda: voltage,
            "Battery voltage [V]": lambda: voltage,
            "Power [W]": lambda: -record.current * voltage,
            "Discharge capacity [A.h]": lambda: discharged,
            "Discharge energy [W.h]": lambda: np.cumsum(-record.current * voltage * record.dt) / SECONDS_PER_HOUR,
            "SoC": lambda: soc,
            "Cell temperature [degC]": lambda: degrees,
            "Cell temperature [K]": lambda: degrees + KELVIN,
            "Volume-averaged cell temperature [C]": lambda: degrees,
            "Volume-averaged cell temperature [K]": lambda: degrees + KELVIN,
        }

    def __getitem__(self, name: str) -> Variable:
        if name not in self._variables:
            near = difflib.get_close_matches(name, self._variables, 3)
            raise KeyError(f"'{name}' is not known; best matches are {near or list(self._variables)}")
        return Variable(name, self.t, self._variables[name]())

    def __iter__(self) -> Any:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)
