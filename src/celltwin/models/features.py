"""What learned models are shown: of the start, of a sample, and of what went before.

Currents and temperatures come in standard deviations of the training domain, state of charge as hats over nodes that
stand closer where the voltage bends, the past as leaky memories, seven of each signal.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from celltwin.data.domain import Domain
from celltwin.interface import Input, Start
from celltwin.models.baselines import Ohmic
from celltwin.physics.tables import hat

VOLTAGE_MEMORIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # s
CURRENT_MEMORIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # s
SOC_FEATURES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
SAMPLE = 2 + len(SOC_FEATURES)  # numbers that `of_sample` gives
UNIT = 0.1  # V, the scale of what a network adds


def of_start(start: Start, static: Ohmic, domain: Domain) -> Array:
    """What a network wakes from, [4]: the voltage beyond OCV and ohmic drop, current, temperature and SOC, scaled."""
    ohmic = static.voltage(start.soc, start.temperature, start.current)
    return jnp.stack(
        [
            jnp.clip((start.voltage - ohmic) / UNIT, -3.0, 3.0),
            domain.scale("current", start.current),
            domain.scale("temperature", start.temperature),
            domain.scale("soc", start.soc),
        ]
    )


def of_sample(u: Input, soc: Array, domain: Domain) -> Array:
    """Current, temperature and state of charge of a sample, [SAMPLE]."""
    scaled = jnp.stack([domain.scale("current", u.current), domain.scale("temperature", u.temperature)])
    return jnp.concatenate([scaled, soc_hats(soc)])


def soc_hats(soc: Array) -> Array:
    """Weights of SOC_FEATURES at a state of charge."""
    return hat(soc, jnp.asarray(SOC_FEATURES, soc.dtype))
