"""EDMD with control: the cell is linear in a dictionary of functions, and one least-squares solution says how.

    psi = (1, I, asinh(I / s), leaky memories of both and of I^2, what the start showed and how it fades)
    phi_j = normalised exp(-|((soc, 1/T) - c_j) / d|^2 / 2)
    psi_k = A(dt) psi_(k-1) + B(dt) f(I_k),   A(dt) = diag(exp(-dt / tau))
    V_k = U(soc, T) + R(T) I + sum_jm W_jm phi_j(soc_k, T_k) psi_m,k

Williams, Kevrekidis and Rowley, "A data-driven approximation of the Koopman operator", J. Nonlinear Sci. 25 (2015)
1307; with inputs: Proctor, Brunton and Kutz, "Dynamic mode decomposition with control", SIAM J. Appl. Dyn. Syst. 15
(2016) 142; Korda and Mezic, "Linear predictors for nonlinear dynamical systems", Automatica 93 (2018) 149.

Leaky memories take the place of delays, and a dictionary of them is closed: the next memories are linear in the present
ones and the lifted input, without residual. So the regression of the dynamics is exact at the tau that are given, its
eigenvalues exp(-dt / tau) lie inside the unit circle at any dt, and what is left to learn is the readout W. Its
regressors hold no measured voltage after the start, so that the least squares minimise the error of the
simulation itself and not of one step ahead. Ridge regression keeps W small and, a hundred times as much, alike on
neighbouring radial functions; how much of both is chosen on training records that are left out in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import linalg

from celltwin.data.record import Record
from celltwin.interface import CHUNK, Input, Output, Start, inputs_of, start_of
from celltwin.models.baselines import Ohmic
from celltwin.models.features import UNIT
from celltwin.models.layers import remember
from celltwin.models.regression import FLOOR, Normal, pieces, sum_of
from celltwin.physics.charge import Charge, advance, count, full_of
from celltwin.physics.recurrence import from_blocks, in_blocks, linear_recurrence
from celltwin.physics.tables import asinh, inverse_temperature

MEMORIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # s, of current and of its asinh
WARMTHS = (300.0, 1000.0)  # s, of current squared
FADING = (30.0, 300.0)  # s, of what the start showed
SOC_CENTRES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
SMALL = 0.2  # of the capacity per hour, where the asinh bends
TIMES = 2 * MEMORIES + WARMTHS + FADING
RIDGES = (1e-3, 1e-2, 1e-1)  # on differences, beside observables of mean square one
SMALLNESS = 0.01  # of that on W itself
FOLDS = 4
ROWS = 60_000  # of the regression, roughly: more samples than these are thinned after they are simulated
WIDTH = 0.7  # of the radial functions, in distances between their centres


class EdmdState(NamedTuple):
    charge: Charge
    memories: Array  # [len(TIMES)]


class Edmd(eqx.Module):
    """Leaky memories of current, read out by radial functions of state of charge and temperature."""

    static: Ohmic
    readout: Array  # [radial functions, observables] in UNIT
    temperatures: tuple[float, ...] = eqx.field(static=True)  # degC
    soc_centres: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def create(cls, records: Sequence[Record]) -> Edmd:
        """Learn from `records`: least squares over their simulated observables."""
        static = Ohmic.create(records)
        size = (len(SOC_CENTRES) * len(static.temperatures), 3 + len(TIMES))
        model = cls(static, jnp.zeros(size, np.float32), static.temperatures, SOC_CENTRES)
        folds = [model._normal_equations(records[i::FOLDS]) for i in range(min(FOLDS, len(records)))]
        weights = _ridge(folds, (len(SOC_CENTRES), len(static.temperatures), size[1]))
        return eqx.tree_at(lambda m: m.readout, model, jnp.asarray(weights.reshape(size), np.float32))

    def init(self, start: Start) -> EdmdState:
        """No current has flowed; the voltage beyond OCV and ohmic drop is remembered, for a while."""
        ohmic = self.static.voltage(start.soc, start.temperature, start.current)
        excess = jnp.clip((start.voltage - ohmic) / UNIT, -3.0, 3.0)
        still = jnp.zeros(len(TIMES) - len(FADING), excess.dtype)
        memories = jnp.concatenate([still, jnp.full(len(FADING), excess)])
        return EdmdState(full_of(start.soc, start.capacity), memories)

    def step(self, state: EdmdState, u: Input) -> tuple[EdmdState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        memories = remember(state.memories, self._lifted(u, charge.capacity), u.dt, TIMES)
        voltage = self._voltage(charge.soc, memories, u, charge.capacity)
        return EdmdState(charge, memories), Output(voltage, charge.soc)

    def run(self, state: EdmdState, inputs: Input) -> tuple[EdmdState, Output]:
        """What scanning `step` over inputs [time] gives, all samples at once."""
        charge, soc, memories = self._observed(state, inputs)
        voltage = jax.vmap(self._voltage, (0, 0, 0, None))(soc, memories, inputs, charge.capacity)
        return EdmdState(charge, memories[-1]), Output(voltage, soc)

    def _observed(self, state: EdmdState, inputs: Input) -> tuple[Charge, Array, Array]:
        """The counter at the end, states of charge [time] and memories [time, len(TIMES)]."""
        charge, soc, _ = count(state.charge, Input(*(in_blocks(a) for a in inputs)))
        keep = jnp.exp(-inputs.dt[:, None] / jnp.asarray(TIMES, inputs.dt.dtype))
        driven = (1.0 - keep) * jax.vmap(self._lifted, (0, None))(inputs, charge.capacity)
        return charge, from_blocks(soc, len(inputs.dt)), linear_recurrence(keep, driven, state.memories)

    def _lifted(self, u: Input, capacity: Array) -> Array:
        """The input of every memory, [len(TIMES)]."""
        rate = u.current / capacity
        each = (rate, asinh(rate / SMALL), rate * rate, jnp.zeros_like(rate))
        sizes = (len(MEMORIES), len(MEMORIES), len(WARMTHS), len(FADING))
        return jnp.concatenate([jnp.full(n, value) for n, value in zip(sizes, each, strict=True)])

    def _observables(self, memories: Array, u: Input, capacity: Array) -> Array:
        """All psi, [observables]."""
        rate = u.current / capacity
        return jnp.concatenate([jnp.stack([jnp.ones_like(rate), rate, asinh(rate / SMALL)]), memories])

    def _radial(self, soc: Array, temperature: Array) -> Array:
        """All phi_j, [radial functions]: they sum to one, and outside of the centres the nearest ones stay."""
        warm = inverse_temperature(np.asarray(self.temperatures, float))
        return jnp.outer(
            _bells(soc, np.asarray(self.soc_centres)), _bells(inverse_temperature(temperature), warm)
        ).ravel()

    def _voltage(self, soc: Array, memories: Array, u: Input, capacity: Array) -> Array:
        correction = self._radial(soc, u.temperature) @ self.readout @ self._observables(memories, u, capacity)
        return self.static.voltage(soc, u.temperature, u.current) + UNIT * correction

    def _normal_equations(self, records: Sequence[Record]) -> Normal:
        """Those of the ridge regression over the records and over pieces of them that start inside, at any load."""
        runs = [run for record in records for run in (record, *pieces(record))]
        stride = max(1, sum(len(run) for run in runs) * FOLDS // ROWS)
        total = Normal.zero(self.readout.size)
        for run in runs:
            soc, observed, radial, static = (np.asarray(a, float)[::stride] for a in _regressors(self, run))
            known = np.isfinite(run.voltage[::stride])
            left = (run.voltage[::stride] - static)[known] / UNIT
            design = (radial[:, :, None] * observed[:, None, :]).reshape(len(soc), -1)[known]
            total = total.plus(Normal.of(design, left))
        return total


def _ridge(folds: Sequence[Normal], shape: tuple[int, int, int]) -> np.ndarray:
    """Ridge regression of W [SOC centres, temperatures, observables], as strong as serves folds left out in turn."""
    whole = sum_of(folds)
    size = np.diag(whole.square).reshape(-1, shape[-1]).sum(axis=0) / whole.rows + FLOOR
    differences = [np.diff(np.eye(n), axis=0) for n in shape[:2]]
    along_soc, along_temperature = (d.T @ d for d in differences)
    rough = np.kron(along_soc, np.eye(shape[1])) + np.kron(np.eye(shape[0]), along_temperature)
    prior = np.kron(rough + SMALLNESS * np.eye(len(rough)), np.diag(size)) / len(rough)

    def solve(normal: Normal, ridge: float) -> np.ndarray:
        return linalg.solve(normal.square + ridge * normal.rows * prior, normal.right, assume_a="pos")

    def left_out(ridge: float) -> float:
        rest = [sum_of([f for f in folds if f is not fold]) for fold in folds]
        return sum(fold.error(solve(other, ridge)) for fold, other in zip(folds, rest, strict=True))

    return solve(whole, min(RIDGES, key=left_out) if len(folds) > 1 else RIDGES[len(RIDGES) // 2])


@jax.jit
def _regress(model: Edmd, start: Start, inputs: Input) -> tuple[Array, ...]:
    charge, soc, memories = model._observed(model.init(start), inputs)
    observed = jax.vmap(model._observables, (0, 0, None))(memories, inputs, charge.capacity)
    radial = jax.vmap(model._radial)(soc, inputs.temperature)
    return soc, observed, radial, jax.vmap(model.static.voltage)(soc, inputs.temperature, inputs.current)


def _regressors(model: Edmd, record: Record) -> list[np.ndarray]:
    """States of charge, observables, radial functions and static voltage over a record."""
    samples = len(record)
    padded = [np.pad(a, (0, -samples % CHUNK), mode="edge") for a in inputs_of(record)]
    seen = _regress(model, start_of(record), Input(*padded))  # pyright: ignore[reportArgumentType]
    return [np.asarray(a)[:samples] for a in seen]


def _bells(x: Array, centres: np.ndarray) -> Array:
    """Gaussian bells around increasing centres, as wide as these lie apart, scaled to sum to one; they saturate."""
    if len(centres) == 1:
        return jnp.ones_like(x)[None]
    width = WIDTH * np.gradient(centres)
    at = jnp.clip(x, float(centres[0]), float(centres[-1]))
    return jax.nn.softmax(-0.5 * ((at - jnp.asarray(centres, x.dtype)) / jnp.asarray(width, x.dtype)) ** 2)
