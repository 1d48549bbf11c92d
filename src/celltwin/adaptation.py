"""One cell is not the next, and none stays as it is: a twin fitted to the cell in front of it.

From the first minutes of a log, and never from more, three numbers are found: the capacity q and the resistance r of
this cell, as multiples of the twin's, and a correction s of the state of charge at the start:

    theta = (log q, log r, s)      min  sum_k dt_k / T ((V_k(theta) - y_k) / sigma)^2  +  sum_i (theta_i / p_i)^2

V is the closed-loop simulation. The twin's error is slow, so that samples are worth one reading of sigma in each T
seconds, not each its own; p is how far cells of a kind, and counters of charge, are known to differ. Minimised by
Gauss and Newton with steps that are halved until they help; the standard deviations are those of the curvature at
the minimum. What minutes cannot tell stays where the prior has it: capacity, mostly, whose doubt shrinks with the
charge that has passed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from celltwin.data.record import Record
from celltwin.errors import CelltwinError
from celltwin.interface import CHUNK, Input, Start, inputs_of, run, start_of
from celltwin.models.aged import Aged
from celltwin.models.bounds import Bounded
from celltwin.twin import Twin, probe

SECONDS = 1200.0  # of a log that are used
SIGMA, MEMORY = 0.010, 60.0  # V and s: the twin's own error, and for how long it stays
STEPS, HALVINGS = 8, 6
NEAR = 0.01  # fraction of charge, to either side of the start: where the slope of its voltage is taken
NEGLIGIBLE = 1e-3  # of a prior's width: a step that is not worth another


@dataclass(frozen=True)
class Doubt:
    """Standard deviations, before or after a log was seen."""

    capacity: float = 0.02  # relative
    resistance: float = 0.05  # relative
    soc: float = 0.01  # fraction, at the start


@dataclass(frozen=True)
class Condition:
    """What was found of a cell."""

    capacity: float  # of the twin's, likewise
    resistance: float
    soc: float  # fraction, added at the start
    doubt: Doubt
    seconds: float  # of the log that were used

    def __str__(self) -> str:
        return (
            f"from {self.seconds / 60:.0f} min: "
            f"capacity {100 * self.capacity:.1f} ± {100 * self.doubt.capacity:.1f} %, "
            f"resistance {100 * self.resistance:.1f} ± {100 * self.doubt.resistance:.1f} %, "
            f"state of charge at the start {100 * self.soc:+.2f} ± {100 * self.doubt.soc:.2f} points"
        )


def adapt(one: Twin, record: Record, seconds: float = SECONDS, prior: Doubt | None = None) -> tuple[Twin, Condition]:
    """The twin of the cell that a log begins with, and what was found; of the log, `seconds` from its start are seen.

    `prior` says how far this cell may be from the twin's: wide for one that has aged. The twin's doubts shrink from
    there. Raises CelltwinError for a twin of the state of charge, for a log of fewer seconds, and for one whose
    voltage was not measured there.
    """
    one.refuse_unless("voltage")
    prior = prior or Doubt()
    record = one.with_facts(record)
    length = float(record.time[-1] - record.time[0])
    if not 0.0 < seconds < length:
        raise CelltwinError(
            f"{record.label} is too short to adapt to",
            got=f"{length:.0f} s",
            expected=f"more than the {seconds:.0f} s that are looked at",
            fix="take a longer log, or fewer minutes",
        )
    seen = record.between(0, int(np.searchsorted(record.time, record.time[0] + seconds, side="right")))
    known = np.isfinite(seen.voltage)
    if not known[1:].any():
        raise CelltwinError(f"{record.label} shows no voltage in its first {seconds:.0f} s", fix="take another log")
    weight = np.where(known, seen.dt / MEMORY, 0.0) / SIGMA**2
    target = np.nan_to_num(seen.voltage)
    width = np.array([prior.capacity, prior.resistance, prior.soc])
    start, inputs = start_of(seen), _padded(inputs_of(seen), -len(seen) % CHUNK)
    near = np.clip(float(start.soc) + np.array([-NEAR, NEAR]), 0.0, 1.0)
    steep = float(np.diff(probe(one.model, near, float(start.temperature), one.cell)[0])[0] / np.diff(near)[0])

    def look(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Cost, its slope and its curvature."""
        voltage, slopes = _simulated(one.model, one.cell, steep, jnp.asarray(theta, jnp.float32), start, inputs)
        error = np.asarray(voltage, float)[: len(seen)] - target
        j = np.asarray(slopes, float)[: len(seen)]
        cost = 0.5 * float(weight @ error**2 + np.sum((theta / width) ** 2))
        return cost, j.T @ (weight * error) + theta / width**2, (j.T * weight) @ j + np.diag(width**-2.0)

    theta = np.zeros(3)
    cost, slope, curvature = look(theta)
    for _ in range(STEPS):
        step = -np.linalg.solve(curvature, slope)
        for _ in range(HALVINGS):
            trial = look(theta + step)
            if trial[0] <= cost:
                break
            step = 0.5 * step
        else:
            break
        theta, (cost, slope, curvature) = theta + step, trial
        if np.max(np.abs(step) / width) < NEGLIGIBLE:
            break
    spread = np.sqrt(np.diag(np.linalg.inv(curvature)))
    capacity, resistance = np.exp(theta[:2])
    doubt = Doubt(float(capacity * spread[0]), float(resistance * spread[1]), float(spread[2]))
    found = Condition(float(capacity), float(resistance), float(theta[2]), doubt, seconds)
    card = one.card | {"adapted": f"{record.label}, {found}"}
    return replace(one, model=Aged.of(one.model, capacity, resistance, theta[2], steep * theta[2]), card=card), found


def rest_of(record: Record, seconds: float = SECONDS) -> Record:
    """The record with its first `seconds` unmeasured but for the first sample: what an adapted twin is judged on."""
    passed = record.time - record.time[0]
    return replace(record, voltage=np.where((passed > 0.0) & (passed <= seconds), np.nan, record.voltage))


@jax.jit(static_argnames="cell")
def _simulated(
    model: Any, cell: Any, steep: Any, theta: jax.Array, start: Start, inputs: Input
) -> tuple[jax.Array, jax.Array]:
    """Voltage [time] and its derivatives [time, 3]."""

    def simulate(theta: jax.Array) -> jax.Array:
        aged = Bounded.of(Aged(model, jnp.exp(theta[0]), jnp.exp(theta[1]), theta[2], steep * theta[2]), cell)
        return run(aged, aged.init(start), inputs)[1].voltage

    return simulate(theta), jax.jacfwd(simulate)(theta)


def _padded(inputs: Input, more: int) -> Input:
    """Inputs with steps of no length behind, so that records of other lengths reuse the same program."""
    return Input(*(np.pad(column, (0, more), mode="constant" if i == 2 else "edge") for i, column in enumerate(inputs)))  # pyright: ignore[reportArgumentType]
