"""Thermal model and operations once more as plain loops over numbers, and the smallest circuit to run them on.

Nothing here shares code with the package but the interface. The circuit is written twice: as a model whose step the
package runs, and as a cell in plain Python that every test can hold it against.
"""

from math import exp
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.linalg import expm

from celltwin.data.record import Cell
from celltwin.interface import Input, Output, Start

CELL = Cell("simple", 2.0, (3.0, 4.0), 2.0)


class SimpleState(NamedTuple):
    soc: Array
    capacity: Array
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
        return SimpleState(start.soc, start.capacity, 0.0 * start.soc)

    def step(self, state: SimpleState, u: Input) -> tuple[SimpleState, Output]:
        soc = state.soc + u.current * u.dt / (3600.0 * state.capacity)
        keep = jnp.exp(-u.dt / self.tau)
        pair = keep * state.pair + (1.0 - keep) * self.r1 * u.current
        return SimpleState(soc, state.capacity, pair), Output(self.ocv(soc, soc) + self.r0 * u.current + pair, soc)


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
