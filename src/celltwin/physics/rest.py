"""A cell long at rest: it wakes with the voltage that it shows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from celltwin.interface import Input, Start
from celltwin.physics.thevenin import unread

LOOKS = 20  # times that the voltage is looked for


def at_rest(model: Any, soc: Array, temperature: Array, capacity: Array, voltage: Array) -> tuple[Any, Array]:
    """State and open-circuit voltage (V) of a cell at rest; `soc`, `temperature` (degC), `capacity` (Ah) are scalars.

    What a model wakes with may depend on the voltage that it is shown: it is shown what it answers, until both are the
    same. `voltage` (V) is where that begins.
    """
    zero = 0.0 * soc

    def woken(model: Any, voltage: Array) -> Any:
        return model.init(Start(voltage, zero, temperature, soc, capacity))

    def look(model: Any, voltage: Array) -> Array:
        return model.step(woken(model, voltage), Input(zero, temperature, zero))[1].voltage

    voltage = look(unread(model), voltage)
    voltage, _ = jax.lax.scan(lambda v, _: (look(model, v), None), jnp.asarray(voltage), None, length=LOOKS)
    return woken(model, voltage), voltage
