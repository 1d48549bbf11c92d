"""Physics in training: what a cell cannot do is made dear to a model, on what it answers through its own step.

    monotone OCV      mean of max(0, U(soc_i) - U(soc_i+1))^2                over neighbours soc_i < soc_i+1
    passivity         mean of max(0, -(V - U) sign I)^2                      for a minute of 1C, charge and discharge
    step consistency  mean of (V after a step of dt - V after two of dt / 2)^2     after that minute, at the same load

all in V^2, over a grid of state of charge and temperature that reaches as far as the training records do. No sample is
measured there: the penalties say what holds between the drive cycles, too. A model needs no part of its own for them,
and one that holds them by construction pays nothing. Weights are those of a `Plan`, none by default.

Physics as a soft term of the loss: Raissi, Perdikaris and Karniadakis, "Physics-informed neural networks", J. Comput.
Phys. 378 (2019) 686.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record
from celltwin.errors import CelltwinError
from celltwin.interface import Input, run
from celltwin.learning.plan import Plan
from celltwin.physics.rest import at_rest
from celltwin.physics.tables import temperature_nodes

CHARGES = 11  # nodes of the grid over state of charge
LOADED = 20  # steps of a minute under load
PERIOD = 3.0  # s
SPLIT = 10.0  # s, the step that is cut in two


class Violations(NamedTuple):
    """Mean squares in V^2 of what a cell cannot do."""

    monotone_ocv: Array
    passivity: Array
    step_consistency: Array


class Grid(NamedTuple):
    """Where a model is asked."""

    soc: Array  # [CHARGES] increasing
    temperature: Array  # [temperatures] degC
    voltage: Array  # scalar, V: what the search for the open-circuit voltage starts from
    current: Array  # scalar, A: of 1C
    capacity: Array  # scalar, Ah


def grid_of(records: Sequence[Record]) -> Grid:
    """The grid of the training records of one cell."""
    cell = records[0].cell
    assert cell is not None
    soc = np.concatenate([record.soc for record in records])
    low, high = max(0.0, float(np.nanmin(soc))), min(1.0, float(np.nanmax(soc)))
    arrays = (
        np.linspace(low, high, CHARGES),
        np.asarray(temperature_nodes(records)),
        np.mean(cell.voltage_limits_volt),
        cell.nominal_capacity_ah,
        cell.reference_capacity_ah,
    )
    return Grid(*(jnp.asarray(a, np.float32) for a in arrays))


def violations(model: Any, grid: Grid) -> Violations:
    """By how much a model does what a cell cannot, over the grid."""

    def held(state: Any, current: Array, temperature: Array, dt: float, steps: int) -> tuple[Any, Array]:
        u = Input(*(jnp.full(steps, value) for value in (current, temperature, jnp.full_like(current, dt))))
        state, output = run(model, state, u)
        return state, output.voltage

    def at(soc: Array, temperature: Array) -> tuple[Array, Array, Array]:
        state, ocv = at_rest(model, soc, temperature, grid.capacity, grid.voltage)

        def loaded(sign: Array) -> tuple[Array, Array]:
            current = sign * grid.current
            after, voltage = held(state, current, temperature, PERIOD, LOADED)
            once, twice = (held(after, current, temperature, SPLIT / n, n)[1][-1] for n in (1, 2))
            return jnp.mean(jnp.maximum(-(voltage - ocv) * sign, 0.0) ** 2), (once - twice) ** 2

        negative, apart = jax.vmap(loaded)(jnp.asarray([-1.0, 1.0], soc.dtype))
        return ocv, jnp.mean(negative), jnp.mean(apart)

    ocv, negative, apart = jax.vmap(jax.vmap(at, (0, None)), (None, 0))(grid.soc, grid.temperature)
    return Violations(jnp.mean(jnp.maximum(-jnp.diff(ocv), 0.0) ** 2), jnp.mean(negative), jnp.mean(apart))


class Physics:
    """The penalty of a plan on a model, in V^2."""

    def __init__(self, records: Sequence[Record], plan: Plan, task: str):
        self.weights = {name: weight for name in Violations._fields if (weight := getattr(plan, name))}
        if self.weights and task != "voltage":
            raise CelltwinError(
                "physics penalties are of what a voltage model answers",
                got=f"{', '.join(self.weights)} for a model of {task}",
                fix="leave them out of the plan",
            )
        self.grid = grid_of(records) if self.weights else None

    def __call__(self, model: Any) -> Array:
        if self.grid is None:
            return jnp.zeros(())
        found = violations(model, self.grid)
        return sum((weight * getattr(found, name) for name, weight in self.weights.items()), jnp.zeros(()))
