"""What a model is to say, and what training makes of it: the voltage of a cell, or its state of charge.

Voltage is trained on the squared error of the closed-loop simulation. State of charge is trained on

    L = sqrt(e^2 + d^2) - d  +  w (log s + e'^2 / 2 s^2)        e in points of SOC, s the stated standard deviation

with e' = e held constant, so that the estimate follows the robust first term and the second teaches s alone to be
honest. A start is drawn anywhere in a record, with nothing known of the charge, and each episode has a cell and sensors
of its own: offsets of voltage, current and temperature, a gain of the current, somewhat other resistance, for one cell
is not the next; and, in some, a cell whose capacity has faded. A cell of capacity (1 - f) Q driven with (1 - f) I
passes through the same states of charge at the same voltages as the fresh one at I: that is how a faded cell is made
from a record of a fresh one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from celltwin.data.record import Record
from celltwin.interface import (
    POINT,
    Batch,
    Measurement,
    Start,
    estimate_records,
    simulate_records,
    stack,
    stack_measured,
)

MILLIVOLT = 1e3  # mV in a V


@dataclass(frozen=True)
class Voltage:
    """Voltage models: closed-loop simulation, errors in mV."""

    name = "voltage"
    unit = "mV"
    scale = 1e4  # (10 mV)^2 in 1/V^2: keeps losses and gradients near one

    def stack(self, records: Sequence[Record], multiple: int) -> Batch:
        return stack(records, multiple)

    def loss(self, output: Any, target: jax.Array, mask: jax.Array) -> jax.Array:
        """Mean over the samples of a batch of (error / 10 mV)^2."""
        error = jnp.where(mask, output.voltage - target, 0.0)
        return self.scale * (jnp.sum(error**2) / jnp.maximum(jnp.sum(mask), 1))

    def figure(self, loss: float) -> float:
        """A loss as people read it: the root mean square error in mV."""
        return MILLIVOLT * float(np.sqrt(max(loss, 0.0) / self.scale))

    def validate(self, model: Any, records: Sequence[Record]) -> float:
        """Closed-loop RMSE in mV over all measured samples; NaN without records, or where the simulation diverges."""
        if not records:
            return float("nan")
        outputs = simulate_records(model, records)
        errors = [(o.voltage - r.voltage)[np.isfinite(r.voltage)] for o, r in zip(outputs, records, strict=True)]
        return MILLIVOLT * float(np.sqrt(np.mean(np.square(np.concatenate(errors)))))

    def sensors(self, draw: np.random.Generator) -> np.ndarray:
        """A voltage model is trained on what was measured, as it is."""
        return np.zeros(0, np.float32)

    def distort(self, start: Start, inputs: Any, sensors: jax.Array) -> tuple[Start, Any]:
        return start, inputs


class Sensors(NamedTuple):
    """What is wrong with the sensors of an episode, or other about its cell, held all through it."""

    voltage: Any  # V, offset
    current: Any  # offset in C, of the reference capacity
    gain: Any  # of the current
    temperature: Any  # K, offset
    resistance: Any  # by how much more the cell drops, of TYPICAL_DROP


STARTS = (0.0, 0.25, 0.5, 0.75)  # fractions of a cycle at which an estimator is woken, knowing nothing
SOFT = 0.3  # points below which the loss of an error is quadratic
DOUBT_WEIGHT = 0.1  # w
SPREAD = Sensors(voltage=8e-3, current=0.03, gain=0.01, temperature=3.5, resistance=0.2)  # standard deviations
TYPICAL_DROP, DROP_HALVES = 0.08, 25.0  # V at 1C and 25 degC; K over which it halves
CLEAN, POOR, FADED = 0.3, 0.15, 0.15  # shares of the episodes with perfect sensors, poor ones, and with a faded cell
TIMES_WORSE = 3.0  # poor sensors than the usual
MOST_FADED = 0.25


def typical_drop(temperature: Any) -> Any:
    """What a cell at a temperature in degC usually drops at 1C, V."""
    return TYPICAL_DROP * 2.0 ** ((25.0 - temperature) / DROP_HALVES)


@dataclass(frozen=True)
class StateOfCharge:
    """Estimators: unknown start, errors in points of state of charge."""

    name = "soc"
    unit = "points"
    scale = 1.0

    def stack(self, records: Sequence[Record], multiple: int) -> Batch:
        return stack_measured(records, multiple)

    def loss(self, output: Any, target: jax.Array, mask: jax.Array) -> jax.Array:
        """Mean over the samples of a batch of L, see above."""
        error = POINT * (output.soc - target)
        doubt = POINT * output.std
        pulled = jnp.sqrt(error**2 + SOFT**2) - SOFT
        honest = jnp.log(doubt) + 0.5 * (jax.lax.stop_gradient(error) / doubt) ** 2
        each = jnp.where(mask, pulled + DOUBT_WEIGHT * honest, 0.0)
        return jnp.sum(each) / jnp.maximum(jnp.sum(mask), 1)

    def figure(self, loss: float) -> float:
        return loss

    def validate(self, model: Any, records: Sequence[Record]) -> float:
        """Mean absolute error in points, over the records and over starts at all of STARTS with nothing known."""
        if not records:
            return float("nan")
        parts = [r.between(int(share * len(r))) for r in records for share in STARTS]
        outputs = estimate_records(model, parts)
        means = [np.mean(np.abs(o.soc - r.soc)) for o, r in zip(outputs, parts, strict=True)]
        return POINT * float(np.mean(means))

    def sensors(self, draw: np.random.Generator) -> np.ndarray:
        """Sensors of an episode: many perfect, the others wrong by as much as sensors are."""
        quality, fade = draw.random(2)
        scale = 0.0 if quality < CLEAN else TIMES_WORSE if quality > 1.0 - POOR else 1.0
        spread = np.array(SPREAD) * draw.standard_normal(len(SPREAD)) * scale
        drawn = Sensors(*spread)
        if fade < FADED:
            drawn = drawn._replace(gain=drawn.gain - draw.uniform(0.0, MOST_FADED))
        return np.array(drawn, np.float32)

    def distort(self, start: Start, inputs: Measurement, sensors: jax.Array) -> tuple[Start, Measurement]:
        """Start [lanes] and measurements [lanes, time] as the sensors [lanes, 5] show them."""
        wrong = Sensors(*sensors.T)

        def seen(shown: Any, wrong: Sensors, capacity: jax.Array) -> Any:
            drop = typical_drop(shown.temperature) * shown.current / capacity
            return shown._replace(
                voltage=shown.voltage + wrong.voltage + wrong.resistance * drop,
                current=shown.current * (1.0 + wrong.gain) + wrong.current * capacity,
                temperature=shown.temperature + wrong.temperature,
            )

        wide = Sensors(*(w[:, None] for w in wrong))
        return seen(start, wrong, start.capacity), seen(inputs, wide, start.capacity[:, None])


Task = Voltage | StateOfCharge
TASKS: dict[str, Task] = {task.name: task for task in (Voltage(), StateOfCharge())}
