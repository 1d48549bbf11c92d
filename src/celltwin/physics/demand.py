"""What can be asked of a cell: constant current, power, voltage or resistance, or rest, until a limit is reached.

Every demand is one equation of the step's current I and the voltage V at its end, V (a + b I) + c + d I = 0, so that
one compiled program serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from celltwin.errors import CelltwinError

Level = float | tuple[float | None, float | None] | None

# In this order a limit is named as the reason of an end; the last one is reached by the clock.
REASONS = (
    "lower voltage",
    "upper voltage",
    "lower current",
    "upper current",
    "lower soc",
    "upper soc",
    "lower temperature",
    "upper temperature",
    "charge",
    "duration",
)


@dataclass(frozen=True)
class Limits:
    """Where an operation ends: at whichever comes first.

    A level is a number, reached in the direction in which the operation moves the cell, or a pair (lower, upper), of
    which one may be None. Discharge lowers voltage and state of charge, charge raises them; the current falls while
    a voltage is held, and rises while a power is drawn; temperature rises. Where no direction is known, give a pair.
    """

    voltage: Level = None  # V
    current: Level = None  # A, its magnitude
    soc: Level = None  # fraction
    temperature: Level = None  # degC, as the model simulates it
    duration: float | None = None  # s
    charge: float | None = None  # Ah, its magnitude


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What all demands share. `period` is the sampling in s and `temperature` what the model is given in degC, the
    ambient of a model that simulates its own; None takes those of the whole run."""

    until: Limits = field(default_factory=Limits)
    period: float | None = None
    temperature: float | None = None

    @property
    def direction(self) -> int:
        """Which way it moves voltage and charge: 1 up, -1 down, 0 where that is not known."""
        return 0

    @property
    def current_moves(self) -> int:
        """Which way it moves the magnitude of its current."""
        return 0

    @property
    def value(self) -> float:
        return 0.0

    @property
    def equation(self) -> tuple[float, float, float, float]:
        """The coefficients a, b, c, d."""
        return 0.0, 0.0, -self.value, 1.0

    @property
    def demand(self) -> str:
        """In a few words."""
        return "rest"


@dataclass(frozen=True)
class ConstantCurrent(Operation):
    current: float  # A, positive = charge

    @property
    def value(self) -> float:
        return self.current

    @property
    def direction(self) -> int:
        return int(np.sign(self.current))

    @property
    def demand(self) -> str:
        return f"{self.current:g} A"


@dataclass(frozen=True)
class ConstantPower(Operation):
    power: float  # W, positive = charge

    @property
    def value(self) -> float:
        return self.power

    @property
    def direction(self) -> int:
        return int(np.sign(self.power))

    @property
    def current_moves(self) -> int:
        return -self.direction

    @property
    def equation(self) -> tuple[float, float, float, float]:
        # Without power, an equation that is met by no current rather than by no voltage.
        return (0.0, 1.0, -self.power, 0.0) if self.power else (0.0, 0.0, 0.0, 1.0)

    @property
    def demand(self) -> str:
        return f"{self.power:g} W"


@dataclass(frozen=True)
class ConstantVoltage(Operation):
    voltage: float  # V

    @property
    def current_moves(self) -> int:
        return -1

    @property
    def value(self) -> float:
        return self.voltage

    @property
    def equation(self) -> tuple[float, float, float, float]:
        return 1.0, 0.0, -self.voltage, 0.0

    @property
    def demand(self) -> str:
        return f"{self.voltage:g} V"


@dataclass(frozen=True)
class ConstantResistance(Operation):
    resistance: float  # ohm, across the cell

    @property
    def current_moves(self) -> int:
        return -1

    @property
    def value(self) -> float:
        return self.resistance

    @property
    def direction(self) -> int:
        return -1

    @property
    def equation(self) -> tuple[float, float, float, float]:
        return 1.0, 0.0, 0.0, self.resistance

    @property
    def demand(self) -> str:
        return f"{self.resistance:g} ohm"


@dataclass(frozen=True)
class Rest(Operation):
    duration: float | None = None  # s


def duration_of(operation: Operation) -> float | None:
    """Seconds after which it ends at the latest, None where no clock ends it."""
    known = [d for d in (operation.until.duration, getattr(operation, "duration", None)) if d is not None]
    return min(known, default=None)


def levels_of(operation: Operation) -> list[float]:
    """The level of each reason but the last, infinite where there is none.

    Raises CelltwinError for a number whose direction is not known, an empty range, and an end that never comes.
    """
    positive = [x for x in (operation.period, duration_of(operation), operation.until.charge) if x is not None]
    if isinstance(operation, (ConstantVoltage, ConstantResistance)):
        positive.append(operation.value)
    if not np.isfinite(operation.value) or not all(0.0 < x < np.inf for x in positive):
        raise CelltwinError(
            f"{operation} makes no sense",
            expected="a number; voltage, resistance, period, duration and charge positive",
        )
    until, moves = operation.until, operation.direction
    directions = {"voltage": moves, "current": operation.current_moves, "soc": moves}
    directions["temperature"] = 0 if isinstance(operation, Rest) else 1
    levels: list[float] = []
    for what, direction in directions.items():
        level = getattr(until, what)
        if isinstance(level, (int, float)):
            if not direction:
                raise CelltwinError(
                    f"which way the {what} goes is not known in {operation}",
                    got=f"{what}={level:g}",
                    expected="a pair (lower, upper), one of which may be None",
                )
            level = (level, None) if direction < 0 else (None, level)
        low, high = level or (None, None)
        levels += [-np.inf if low is None else low, np.inf if high is None else high]
        if not levels[-2] < levels[-1]:
            raise CelltwinError(f"an empty range of {what} in {operation}", got=level, expected="lower < upper")
    levels.append(np.inf if until.charge is None else until.charge)
    if np.isinf(levels).all() and duration_of(operation) is None:
        raise CelltwinError(
            f"{operation} would never end", expected="a limit or a duration", fix="until=Limits(duration=3600)"
        )
    return levels
