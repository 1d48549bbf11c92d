"""Circuits to exchange, and what celltwin makes of them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from celltwin.interface import Input, Start, simulate
from celltwin.physics.circuit import Circuit
from celltwin.physics.thevenin import Thevenin

TEMPERATURES = np.array([-10.0, 5.0, 25.0, 40.0])
SOC = np.array([0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])
OCV_SOC = np.linspace(-0.02, 1.02, 53)


def full(**changes: Any) -> Circuit:
    """A cell of 3 Ah with everything that a circuit can have: charge transfer, two modes of hysteresis, notes."""
    cold = np.exp(2500.0 * (1.0 / (TEMPERATURES + 273.15) - 1.0 / 298.15))
    empty = 1.0 + 0.6 * np.exp(-SOC / 0.2)[:, None]
    curve = 3.3 + 0.8 * OCV_SOC - 0.15 * np.exp(-(OCV_SOC + 0.02) / 0.08)
    tables: dict[str, Any] = {
        "name": "cell of 3 Ah",
        "capacity_ah": 3.0,
        "voltage_limits_volt": (2.5, 4.3),
        "temperatures": TEMPERATURES,
        "ocv_soc": OCV_SOC,
        "ocv": curve[:, None] + 1e-4 * (TEMPERATURES - 25.0) * (OCV_SOC[:, None] - 0.4),
        "soc": SOC,
        "r0": 0.02 * empty * cold,
        "r": np.stack([0.012 * empty * cold, 0.015 * empty * cold]),
        "tau": np.stack([5.0 * empty * cold**0.2, 60.0 * empty * cold**0.2]),
        "transfer_resistance": 0.01 * empty * cold,
        "transfer_scale": np.array([0.045, 0.048, 0.05, 0.054]),
        "hysteresis": np.stack([0.01 * empty[:, 0], np.full(len(SOC), 0.004)]),
        "hysteresis_rate": np.array([8.0, 80.0]),
        "standard_error": {"r0": np.full((7, 4), 1e-4), "hysteresis_rate": np.array([0.5, np.inf])},
        "notes": ("nothing below 5 % at -10 °C",),
        "meta": {"pulses": 12, "thermal": {"cell_joule_per_kelvin": 45.0, "cell_to_jig_watt_per_kelvin": 0.05}},
    }
    return Circuit(**tables | changes)


def drive(seed: int, seconds: int = 1800, largest: float = 6.0) -> np.ndarray:
    """Current (A, positive on charge) at 1 Hz: loads of 2 to 20 s, most of them discharge, and rests."""
    draw, levels = np.random.default_rng(seed), []
    while len(levels) < seconds:
        level = 0.0 if draw.random() < 0.15 else draw.normal(-0.35 * largest, 0.5 * largest)
        levels += [level] * int(draw.integers(2, 21))
    return np.clip(np.array(levels[:seconds]), -largest, largest)


def simulated(circuit: Circuit, current: np.ndarray, temperature: Any, soc: float, dt: float = 1.0) -> np.ndarray:
    """Voltage (V) that celltwin's step gives in double precision, from rest on the mean open-circuit voltage."""
    warm = np.broadcast_to(np.asarray(temperature, float), current.shape)
    with jax.enable_x64(True):
        model = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), float), Thevenin.of(circuit))
        at_rest = float(model.ocv(jnp.asarray(soc), jnp.asarray(warm[0])))
        start = Start(*(jnp.asarray(x) for x in (at_rest, 0.0, warm[0], soc, circuit.capacity_ah)))
        inputs = Input(*(jnp.asarray(x) for x in (current, warm, np.full(len(current), dt))))
        return np.asarray(_compiled(model, start, inputs).voltage)


_compiled = jax.jit(simulate)


def assert_same(a: Circuit, b: Circuit, *, rtol: float = 0.0, leaving_out: tuple[str, ...] = ()) -> None:
    """Every field alike: numbers within `rtol`, words exactly."""
    for name in (f.name for f in fields(Circuit) if f.name not in leaving_out):
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
            assert x is not None, name
            assert y is not None, name
            np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol, err_msg=name)
        elif name == "standard_error":
            assert isinstance(x, Mapping)
            assert x.keys() == y.keys()
            for key in x:
                np.testing.assert_allclose(x[key], y[key], rtol=rtol, atol=0.0, err_msg=f"standard error of {key}")
        else:
            assert x == y, name
