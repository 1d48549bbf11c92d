"""Thermal model and operations once more as plain loops over numbers, and the smallest circuit to run them on.

The circuit is written twice: as a model whose step the package runs, and as a cell in plain Python that shares no code
with it, which every test can hold it against.
"""

from math import exp
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.linalg import expm
from scipy.optimize import brentq

from celltwin.data.record import Cell
from celltwin.interface import Input, Output, Start
from celltwin.physics.charge import Charge, advance, full_of

CELL = Cell("simple", 2.0, (3.0, 4.0), 2.0)


class SimpleState(NamedTuple):
    charge: Charge
    pair: Array


class Simple(eqx.Module):
    """V = level + slope soc + r0 I + v: a straight OCV, one resistance, one RC pair."""

    level: Array
    slope: Array
    r0: Array
    r1: Array
    tau: Array

    @classmethod
    def of(cls, level: float = 3.0, slope: float = 1.0, r0: float = 0.05, r1: float = 0.03, tau: float = 60.0) -> Any:
        return cls(*(jnp.asarray(v, np.float32) for v in (level, slope, r0, r1, tau)))

    def ocv(self, soc: Array, temperature: Array) -> Array:
        return self.level + self.slope * soc

    def init(self, start: Start) -> SimpleState:
        return SimpleState(full_of(start.soc, start.capacity), 0.0 * start.soc)

    def step(self, state: SimpleState, u: Input) -> tuple[SimpleState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        keep = jnp.exp(-u.dt / self.tau)
        pair = keep * state.pair + (1.0 - keep) * self.r1 * u.current
        voltage = self.ocv(charge.soc, u.temperature) + self.r0 * u.current + pair
        return SimpleState(charge, pair), Output(voltage, charge.soc)


class PlainCell:
    """The same in plain Python, double precision."""

    def __init__(self, model: Simple, soc: float, capacity: float):
        self.level, self.slope, self.r0, self.r1, self.tau = (
            float(v) for v in (model.level, model.slope, model.r0, model.r1, model.tau)
        )
        self.soc, self.capacity, self.pair = soc, capacity, 0.0

    def after(self, current: float, dt: float) -> tuple[float, float, float]:
        """Voltage, state of charge and overpotential of the pair, were `current` held for dt."""
        soc = self.soc + current * dt / (3600.0 * self.capacity)
        pair = exp(-dt / self.tau) * self.pair + (1.0 - exp(-dt / self.tau)) * self.r1 * current
        return self.level + self.slope * soc + self.r0 * current + pair, soc, pair

    def move(self, current: float, dt: float) -> float:
        voltage, self.soc, self.pair = self.after(current, dt)
        return voltage


def thermal_loop(values: dict[str, float], start: tuple[float, float], heat: Any, ambient: Any, dt: Any) -> np.ndarray:
    """Core and surface temperature after every step, [time, 2], by a matrix exponential each."""
    ru, cs = values["ambient_resistance"], values["surface_capacity"]
    rc, cc = values["core_resistance"], values["core_capacity"]
    now, out = np.array(start, float), []
    for q, a, step in zip(heat, ambient, dt, strict=True):
        # dx/dt = A x + f with f constant: the exponential of the matrix with f as a further column.
        matrix = np.zeros((3, 3))
        matrix[0] = [-1 / (cc * rc), 1 / (cc * rc), q / cc]
        matrix[1] = [1 / (cs * rc), -1 / (cs * rc) - 1 / (cs * ru), a / (cs * ru)]
        now = (expm(matrix * step) @ [*now, 1.0])[:2]
        out.append(now)
    return np.array(out)


# --- operations ----------------------------------------------------------------------------------------------------


def meets(kind: str, value: float, voltage: float, current: float) -> float:
    """Zero where the demand is met; rises with the current."""
    return {
        "current": current - value,
        "power": voltage * current - value,
        "voltage": voltage - value,
        "resistance": voltage + value * current,
    }[kind]


def operate_loop(cell: PlainCell, demands: list[dict[str, Any]], period: float) -> list[tuple[float, ...]]:
    """Rows of time, voltage, current, state of charge and number of the demand, one a sample.

    A demand is {"current" | "power" | "voltage" | "resistance": value} and its ends: "until", a function of voltage,
    current and state of charge that turns positive, and "duration".
    """
    time, rows = 0.0, []

    def step(kind: str, value: float, dt: float) -> float:
        """The current, by bisection between ten times what any test needs and, on discharge, the largest power."""
        low, high = -40.0, 40.0
        if kind == "power":
            low = max(np.linspace(-40.0, 0.0, 4001), key=lambda i: -i * cell.after(i, dt)[0])
        return brentq(lambda i: meets(kind, value, cell.after(i, dt)[0], i), low, high, xtol=1e-14)

    for number, demand in enumerate(demands):
        kind = next(k for k in demand if k in ("current", "power", "voltage", "resistance"))
        value, until, left = demand[kind], demand.get("until", lambda v, i, s: -1.0), demand.get("duration", np.inf)

        def over(dt: float, kind: str = kind, value: float = value, until: Any = until) -> float:
            current = step(kind, value, dt)
            voltage, soc, _ = cell.after(current, dt)
            return until(voltage, current, soc)

        if over(0.0) >= 0:
            continue
        ended = False
        while not ended:
            dt = min(period, left)
            if ended := over(dt) >= 0:
                dt = brentq(over, 0.0, dt, xtol=1e-12)
            current = step(kind, value, dt)
            voltage = cell.move(current, dt)
            time, left = time + dt, left - dt
            rows.append((time, voltage, current, cell.soc, number))
            ended = ended or left < 1e-9
    return rows
