"""Bounded answers: whatever a model or estimator is fed, it says what the cell could have.

    u -> u, as far as it is finite and possible; else the last one that was, or the nearest possible
    V -> V inside the cell's window and SLACK beyond; from there b + MORE tanh((V - b) / MORE), b its nearer end
    soc -> soc between -STRAYED and 1 + STRAYED

One wrapper serves every family, because all of them are finite for finite inputs of a bounded size: currents up to
100C, -80 to 150 degC, steps from none to weeks. A sensor that fails for a few samples is bridged by its last value, and
none of it stays in the state. Within these limits the wrapped model is the model: nothing is rounded and nothing moved.
Estimators bridge silent sensors themselves: a value that is not finite, or beyond these limits, they see as silence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from celltwin.data.record import Cell
from celltwin.interface import Estimate, Input, Measurement, Output, Start, measured, run

SLACK, MORE = 0.1, 0.09  # V beyond the cell's window: followed without change, and approached from there
LARGEST_RATE = 100.0  # 1/h, current over capacity
COLDEST, HOTTEST, ROOM = -80.0, 150.0, 25.0  # degC; the last one where a temperature was never measured
LONGEST = 1e6  # s, of a step
STRAYED = 0.2  # of state of charge, below 0 and above 1, where a twin may wake, and that it may say
CAPACITIES = (0.1, 10.0)  # least and largest capacity, of the cell's reference


class BoundedState(NamedTuple):
    inner: Any  # the model's
    current: Array  # A, the last finite one
    temperature: Array  # degC, likewise


class Bounded(eqx.Module):
    """A model that is shown possible inputs alone and answers within the cell's window."""

    model: Any
    window: tuple[float, float] = eqx.field(static=True)  # V
    capacity: float = eqx.field(static=True)  # Ah, the reference

    @classmethod
    def of(cls, model: Any, cell: Cell) -> Bounded:
        """`model` within the limits of `cell`."""
        return cls(model, cell.voltage_limits_volt, cell.reference_capacity_ah)

    def init(self, start: Start) -> BoundedState:
        """Wakes the model; what the start does not know is a rested, half full cell at room temperature."""
        start = _possible_start(start, self.window, self.capacity)
        return BoundedState(self.model.init(start), start.current, start.temperature)

    def step(self, state: BoundedState, u: Input) -> tuple[BoundedState, Output]:
        u = self._possible(u, _known(u.current, state.current), _known(u.temperature, state.temperature))
        inner, output = self.model.step(state.inner, u)
        return BoundedState(inner, u.current, u.temperature), self._limited(output)

    def run(self, state: BoundedState, inputs: Input) -> tuple[BoundedState, Output]:
        """What scanning `step` over inputs [time] gives, by the model's own way of running a record."""
        u = self._possible(
            inputs, _bridged(inputs.current, state.current), _bridged(inputs.temperature, state.temperature)
        )
        inner, output = run(self.model, state.inner, u)
        return BoundedState(inner, u.current[-1], u.temperature[-1]), self._limited(output)

    def _possible(self, u: Input, current: Array, temperature: Array) -> Input:
        return Input(_possible_current(current, self.capacity), jnp.clip(temperature, COLDEST, HOTTEST), _step(u.dt))

    def _limited(self, output: Output) -> Output:
        low, high = self.window
        inside = jnp.clip(output.voltage, low - SLACK, high + SLACK)
        soc = jnp.clip(output.soc, -STRAYED, 1.0 + STRAYED)
        return Output(inside + MORE * jnp.tanh((output.voltage - inside) / MORE), soc)


class BoundedEstimator(eqx.Module):
    """An estimator that is shown possible measurements alone and answers with a possible state of charge."""

    model: Any
    window: tuple[float, float] = eqx.field(static=True)  # V
    capacity: float = eqx.field(static=True)  # Ah, the reference

    @classmethod
    def of(cls, model: Any, cell: Cell) -> BoundedEstimator:
        """`model` within the limits of `cell`."""
        return cls(model, cell.voltage_limits_volt, cell.reference_capacity_ah)

    def init(self, start: Start) -> Any:
        """Wakes the estimator; a state of charge that is not known stays unknown."""
        possible = _possible_start(start, self.window, self.capacity)
        return self.model.init(possible._replace(soc=jnp.where(jnp.isfinite(start.soc), possible.soc, jnp.nan)))

    def step(self, state: Any, y: Measurement) -> tuple[Any, Estimate]:
        state, estimate = self.model.step(state, self._possible(y))
        return state, self._limited(estimate)

    def run(self, state: Any, inputs: Measurement) -> tuple[Any, Estimate]:
        """What scanning `step` over inputs [time] gives, by the estimator's own way of running a record."""
        state, estimates = run(self.model, state, self._possible(inputs))
        return state, self._limited(estimates)

    def _possible(self, y: Measurement) -> Measurement:
        largest = LARGEST_RATE * self.capacity
        current, temperature = (
            jnp.where((value >= low) & (value <= high), value, jnp.nan)
            for value, low, high in ((y.current, -largest, largest), (y.temperature, COLDEST, HOTTEST))
        )
        return Measurement(jnp.where(measured(y.voltage), y.voltage, jnp.nan), current, temperature, _step(y.dt))

    def _limited(self, estimate: Estimate) -> Estimate:
        return Estimate(jnp.clip(estimate.soc, -STRAYED, 1.0 + STRAYED), jnp.minimum(estimate.std, 1.0))


def _possible_start(start: Start, window: tuple[float, float], capacity: float) -> Start:
    """A start as far as it is possible; what it does not know is a rested, half full cell at room temperature."""
    low, high = window
    voltage = jnp.clip(_known(start.voltage, 0.5 * (low + high)), low - SLACK, high + SLACK)
    current = _possible_current(_known(start.current, 0.0), capacity)
    temperature = jnp.clip(_known(start.temperature, ROOM), COLDEST, HOTTEST)
    soc = jnp.clip(_known(start.soc, 0.5), -STRAYED, 1.0 + STRAYED)
    least, largest = (share * capacity for share in CAPACITIES)
    return Start(voltage, current, temperature, soc, jnp.clip(_known(start.capacity, capacity), least, largest))


def _possible_current(current: Array, capacity: float) -> Array:
    return jnp.clip(current, -LARGEST_RATE * capacity, LARGEST_RATE * capacity)


def _step(dt: Array) -> Array:
    """The length of a step, as far as it is possible."""
    return jnp.clip(jnp.where(jnp.isnan(dt), 0.0, dt), 0.0, LONGEST)


def _known(value: Array, otherwise: Any) -> Array:
    """The value where it is finite."""
    return jnp.where(jnp.isfinite(value), value, otherwise)


def _bridged(values: Array, before: Array) -> Array:
    """Values [time], those that are not finite replaced by the last finite one, or by `before`."""
    place = jnp.where(jnp.isfinite(values), jnp.arange(1, len(values) + 1), 0)
    return jnp.concatenate([before[None], values])[jax.lax.cummax(place)]
