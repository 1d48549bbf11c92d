"""A model that was trained on one cell as the start for another one, of another size or chemistry.

    V(I, Q) = f(r I, r Q)      U(soc) <- a + b U(soc) + d(soc)

A model of a cell that is r times as large, under r times the current, has the same state of charge and r times every
overpotential: with r = Q_source / Q_target a current is read by its C-rate. The open-circuit voltage U is stretched so
that the one cell's voltage limits become the other's. That is where the model starts that knows nothing but the facts
of the two cells. A change c of log r and a correction d of the curve, linear between nodes, are found by least squares
from the error e of that start's closed-loop simulation of the new records,

    min  sum_k dt_k / T ((e_k - d(soc_k) - c dV_k/dlog r) / sigma)^2
         +  sum_i ((d_i+1 - d_i) / p)^2  +  sum_i (d_i / w)^2  +  (c / q)^2

so that the curve stays as it is far from where the records reach. Of these starts the one is taken that does best on
the validation records, or on the training records where there are none to validate on. Training then has a prior at
its start, of the same sigma and T: minutes move little, and what they do not tell stays. The scaling inside a model is
that which its weights were trained with, its current by the C-rate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.domain import Fixed
from celltwin.data.record import Cell, Record
from celltwin.interface import Input, Output, Start, run, simulate_records
from celltwin.learning.tasks import TASKS
from celltwin.learning.training import trainable
from celltwin.physics.ocv import Ocv, interpolation

NODES = np.linspace(0.0, 1.0, 21)  # of d
SIGMA, MEMORY = 0.010, 60.0  # V and s: the error that is left, and for how long it stays
STEEPEST, FARTHEST = 0.03, 0.1  # V, p and w: of d from node to node, and of d
RESISTANCE = 0.5  # q, of the logarithm
FREE = 0.3  # standard deviation of how far a parameter goes from its origin
SLIGHT = 0.02  # by which log r is changed to see what it does


def resized(model: Any, ratio: float) -> Any:
    """The model of a cell that shows at a current what `model` shows at `ratio` times as much, of equal C-rate."""

    def has(node: Any) -> bool:
        return hasattr(node, "resized")

    return jax.tree.map(lambda node: node.resized(ratio) if has(node) else node, model, is_leaf=has)


def read_by(model: Any, source: Cell, target: Cell) -> Any:
    """The model of the one cell as that of another, of which nothing but its facts is known."""
    low, high = zip(source.voltage_limits_volt, target.voltage_limits_volt, strict=True)
    ratio = source.nominal_capacity_ah / target.nominal_capacity_ah
    model = model if ratio == 1.0 else resized(model, ratio)
    return model if low[0] == low[1] and high[0] == high[1] else _curves(model, lambda ocv: ocv.stretched(low, high))


def _curves(model: Any, change: Callable[[Ocv], Ocv]) -> Any:
    def is_curve(node: Any) -> bool:
        return isinstance(node, Ocv)

    return jax.tree.map(lambda node: change(node) if is_curve(node) else node, model, is_leaf=is_curve)


def fitted(model: Any, records: Sequence[Record]) -> Any:
    """`model` with its resistance and open-circuit voltage moved to suit the records, by least squares."""
    before, after = (simulate_records(one, records) for one in (model, resized(model, float(np.exp(SLIGHT)))))
    size = len(NODES)
    normal, right = np.zeros((size + 1, size + 1)), np.zeros(size + 1)
    for record, one, other in zip(records, before, after, strict=True):
        known = np.isfinite(record.voltage) & np.isfinite(one.voltage) & np.isfinite(other.voltage)
        slope = (np.asarray(other.voltage, float) - one.voltage) / SLIGHT
        design = np.hstack([interpolation(record.soc, NODES), slope[:, None]])[known]
        weighted = (record.dt[known] / MEMORY / SIGMA**2)[:, None] * design
        normal += weighted.T @ design
        right += weighted.T @ (record.voltage - np.asarray(one.voltage, float))[known]
    steps = np.diff(np.eye(size), axis=0)
    normal[:size, :size] += steps.T @ steps / STEEPEST**2 + np.eye(size) / FARTHEST**2
    normal[size, size] += RESISTANCE**-2
    *volts, resistance = np.linalg.solve(normal, right)

    larger = resized(model, float(np.exp(np.clip(resistance, -1.0, 1.0))))
    return _curves(larger, lambda ocv: ocv.moved(NODES, np.array(volts)))


class Origin(Fixed):
    """The model that training began with, as it was."""

    model: Any


class Anchored(eqx.Module):
    """`model` with a prior at its origin beside its own: what the records do not tell stays as it was."""

    model: Any
    origin: Origin
    strength: float = eqx.field(static=True)  # V^2, of a parameter that moved by one

    @classmethod
    def of(cls, model: Any, records: Sequence[Record]) -> Anchored:
        """`model` tied to where it is, the looser the more seconds the records have."""
        seconds = sum(float(record.dt[np.isfinite(record.voltage)].sum()) for record in records)
        return cls(model, Origin(model), SIGMA**2 / FREE**2 * MEMORY / seconds)

    def init(self, start: Start) -> Any:
        return self.model.init(start)

    def step(self, state: Any, u: Input) -> tuple[Any, Output]:
        return self.model.step(state, u)

    def run(self, state: Any, inputs: Input) -> tuple[Any, Output]:
        """As the model does it."""
        return run(self.model, state, inputs)

    def penalty(self) -> Array:
        """The model's own prior, and how far it went (V^2)."""
        mask = trainable(self.model)
        pairs = zip(*(jax.tree.leaves(eqx.filter(m, mask)) for m in (self.model, self.origin.model)), strict=True)
        own = self.model.penalty() if hasattr(self.model, "penalty") else jnp.zeros(())
        return own + self.strength * sum((jnp.sum((now - then) ** 2) for now, then in pairs), jnp.zeros(()))


def best(starts: Mapping[str, Any], records: Sequence[Record]) -> tuple[str, dict[str, float]]:
    """The name of the model that simulates the records best, and the error of each in mV; the first of equals."""
    errors = {name: TASKS["voltage"].validate(model, records) for name, model in starts.items()}
    return min(errors, key=lambda name: (not np.isfinite(errors[name]), errors[name])), errors


def digest(model: Any) -> str:
    """Hash of all the arrays of a model."""
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()
