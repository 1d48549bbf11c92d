"""The parts of a JSON document of parameters, each checked as it is taken out: sections, numbers and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from celltwin.errors import CelltwinError
from celltwin.exchange.lookup import bilinear, celsius

# Names that ECM-PS and BPX share.
CAPACITY, REFERENCE = "Nominal cell capacity [A.h]", "Reference temperature [K]"
LOW, HIGH = "Lower voltage cut-off [V]", "Upper voltage cut-off [V]"
ROOM = 25.0  # degC, where a document names no reference temperature
SPREAD = np.array([-45.0, -30.0, -15.0, 0.0, 15.0, 30.0])  # K about it, where only entropy depends on temperature


def section(holder: Any, key: str, source: str) -> Mapping[str, Any]:
    """A named part of a document. Raises CelltwinError where there is none."""
    if not isinstance(holder, Mapping) or not isinstance(holder.get(key), Mapping):
        found = ", ".join(map(str, holder)) if isinstance(holder, Mapping) else type(holder).__name__
        raise CelltwinError(
            f"{source} has no section '{key}'",
            got=found or "nothing",
            expected="a JSON document of parameters with it",
            fix="check that it is the right file",
        )
    return holder[key]


def number(holder: Mapping[str, Any], key: str, source: str, positive: bool = False) -> float:
    """A finite number. Raises CelltwinError for anything else."""
    value = holder.get(key)
    if _finite(value) and (value > 0 or not positive):
        return float(value)
    expected = "a positive number" if positive else "a finite number"
    raise CelltwinError(f"'{key}' of {source}", got=value, expected=expected, fix="correct it")


def _finite(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a number and not true, NaN, infinite or too large for one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


class Table(NamedTuple):
    """A value over state of charge and temperature; an axis that it does not depend on is empty."""

    soc: np.ndarray
    temperatures: np.ndarray  # degC
    values: np.ndarray  # [soc or 1, temperatures or 1]

    def on(self, soc: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
        """[soc, temperatures], on other nodes."""
        x, y = (axis if len(axis) else np.zeros(1) for axis in (self.soc, self.temperatures))
        return bilinear(x, y, self.values)(soc[:, None], temperatures[None, :])


def table(name: str, value: Any, source: str) -> Table:
    """A number, {"x", "y"} over state of charge, or {"x", "y", "z"} with rows of temperature in kelvin."""
    what, none = f"'{name}' of {source}", np.zeros(0)
    if not isinstance(value, Mapping):
        return Table(none, none, np.full((1, 1), number({name: value}, name, source)))
    if not {"x", "y"} <= set(value) <= {"x", "y", "z"}:
        raise CelltwinError(
            what, got=f"keys {sorted(map(str, value))}", expected="a number, or a table of x, y (and z)"
        )
    soc = _axis(what, "x", value["x"])
    if soc[0] < -1.0 or soc[-1] > 2.0:
        raise CelltwinError(what, got=f"x from {soc[0]:g} to {soc[-1]:g}", expected="state of charge as a fraction")
    if "z" not in value:
        y = _numbers(what, "y", value["y"], 1)
        if len(soc) != len(y):
            raise CelltwinError(
                what,
                got=f"{len(soc)} x and {len(y)} y",
                expected="as many values as states of charge",
                fix="align them",
            )
        return Table(soc, none, y[:, None])
    temperatures, z = _axis(what, "y", value["y"]), _numbers(what, "z", value["z"], 2)
    if z.shape != (len(temperatures), len(soc)):
        raise CelltwinError(
            what,
            got=f"{z.shape[0]} rows of {z.shape[1]}",
            expected=f"a row for each of {len(temperatures)} temperatures, of {len(soc)} states of charge",
            fix="transpose or complete z",
        )
    if temperatures[0] < 150.0 or temperatures[-1] > 500.0:
        raise CelltwinError(what, got=f"temperatures {temperatures[0]:g} to {temperatures[-1]:g}", expected="kelvin")
    return Table(soc, celsius(temperatures), z.T)


def _axis(what: str, key: str, value: Any) -> np.ndarray:
    axis = _numbers(what, key, value, 1)
    if len(axis) < 2 or (np.diff(axis) <= 0).any():
        raise CelltwinError(f"axis {key} of {what}", got=value, expected="two or more increasing values", fix="sort it")
    return axis


def _numbers(what: str, key: str, value: Any, dimensions: int) -> np.ndarray:
    """An array of finite numbers. Raises CelltwinError for anything else, rows of unequal lengths among it."""
    flat: list[Any] = value if isinstance(value, list) else [None]
    if dimensions == 2 and all(isinstance(row, list) for row in flat):
        lengths = {len(row) for row in flat}
        if len(lengths) > 1:
            raise CelltwinError(f"{key} of {what}", got=f"rows of {sorted(lengths)}", expected="rows of one length")
        flat = [x for row in flat for x in row]
    wrong = [x for x in flat if not _finite(x)]
    if wrong or not flat:
        raise CelltwinError(
            f"{key} of {what}",
            got=repr(wrong[0])[:60] if wrong else "nothing",
            expected="finite numbers",
            fix="fill the gap, or leave its node out",
        )
    return np.array(value, np.float64)
