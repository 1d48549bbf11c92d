"""One refinement of all tables through the closed-loop rollout, and what it leaves in doubt.

Levenberg and Marquardt's method on every run simulated from its first sample to its last. The columns of a temperature
are moved by the runs of that temperature (their derivatives by the other columns, which interpolation brings in, are
left out of the step, not out of the simulation). The prior is smoothness: small bends of the logarithms over state of
charge and Arrhenius' law over temperature, weighed by the square of the error that the circuit itself makes. A cell
that is the circuit is so left as it is measured; a real one, which no circuit fits to the noise, gets smooth tables.

Standard errors follow from the Jacobian at the end, for the variance that is left and the number of samples over
which errors are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from celltwin.data.record import Record
from celltwin.interface import Input, Start, inputs_of, start_of
from celltwin.physics.circuit import Circuit
from celltwin.physics.ocv import UNIT as OCV_UNIT
from celltwin.physics.ocv import interpolation
from celltwin.physics.tables import inverse_temperature
from celltwin.physics.thevenin import Thevenin

ROUNDS = 12
CHUNK = 1024  # samples that runs are padded to a multiple of
WIDTH = 32  # directions that one compiled call differentiates by
SMOOTH = 10.0  # weight of the prior against the circuit's own error
STRIDE = 1.0  # largest change of a logarithm in a step


@dataclass(frozen=True, eq=False)
class Problem:
    """What is fitted: runs by temperature, and the circuit where the fit begins."""

    runs: Sequence[Record]
    column: Sequence[int]  # of each run: the temperature it belongs to
    weight: Sequence[np.ndarray]  # of each run's samples; 0 where nothing was measured
    circuit: Circuit  # its temperatures and levels are the nodes
    trust: np.ndarray  # [levels, temperatures] V, standard deviation of the relaxed voltages


class Layout(NamedTuple):
    """Where the parameters of one temperature lie in its vector."""

    pairs: int
    levels: int
    bent: bool

    @property
    def tables(self) -> int:
        """Resistances and time constants, one table each."""
        return 1 + self.pairs + int(self.bent) + self.pairs

    @property
    def size(self) -> int:
        return (self.tables + 1) * self.levels + int(self.bent)


@dataclass(frozen=True, eq=False)
class Refined:
    """The refined circuit and what is known about it."""

    circuit: Circuit
    simulated: list[np.ndarray]  # V, of each run
    rmse: float  # V, over all weighted samples
    correlation: float  # samples over which errors are alike
    noise: float  # V, standard deviation of what was measured, from neighbouring samples at rest
    confused: list[str]  # parameters that the data cannot tell apart


def refine(problem: Problem, tick: Callable[[float], None] = lambda share: None) -> Refined:
    """Fit all tables through the rollout and give each its standard error."""
    circuit = problem.circuit
    layout = Layout(circuit.pairs, len(circuit.soc), circuit.transfer_scale is not None)
    parts = [
        _Part(run, column, weight, circuit)
        for run, column, weight in zip(problem.runs, problem.column, problem.weight, strict=True)
    ]
    x = _pack(circuit, layout)
    begin = x.copy()
    noise = measured_noise(problem.runs)
    damping = 1e-2
    residuals = [part.residual(x, layout) for part in parts]
    for turn in range(ROUNDS):
        tick(turn / ROUNDS)
        misfit = _misfit(residuals, parts, noise)
        total = _total(residuals, parts, x, begin, layout, problem, misfit)
        hessian, gradient = _normal(parts, x, layout, residuals)
        moved, after = False, total
        for _ in range(5):
            step = _step(hessian, gradient, x, begin, layout, problem, misfit, damping)
            trial = x + np.clip(step, -STRIDE, STRIDE)
            new = [part.residual(trial, layout) for part in parts]
            after = _total(new, parts, trial, begin, layout, problem, misfit)
            if after < total:
                x, residuals, moved = trial, new, True
                damping = max(damping / 5.0, 1e-6)
                break
            damping *= 5.0
        if not moved or (turn > 2 and total - after < 1e-3 * total):
            break
    tick(1.0)
    return _refined(problem, layout, parts, x, begin, residuals, noise)


class _Seen(NamedTuple):
    """What a compiled function sees of a run."""

    start: Start
    inputs: Input
    lift: jax.Array  # [OCV nodes, levels], from offsets in V to the units of the OCV's tables


class _Part:
    """One run, ready to be simulated and differentiated."""

    def __init__(self, run: Record, column: int, weight: np.ndarray, circuit: Circuit):
        self.run, self.column, self.weight = run, column, weight * np.isfinite(run.voltage)
        pad = -(-len(run) // CHUNK) * CHUNK - len(run)
        u = inputs_of(run)
        inputs = Input(
            jnp.pad(u.current, (0, pad)), jnp.pad(u.temperature, (0, pad), mode="edge"), jnp.pad(u.dt, (0, pad))
        )
        lift = jnp.asarray(interpolation(circuit.ocv_soc, circuit.soc) / OCV_UNIT, jnp.float32)
        self.seen = _Seen(start_of(run), inputs, lift)
        inverse = inverse_temperature(run.filled_temperature)
        warm = interpolation(inverse, inverse_temperature(np.asarray(circuit.temperatures)))
        # Derivatives to the offsets of the open-circuit voltage.
        self.own = interpolation(run.soc, circuit.soc) * warm[:, [column]]
        self.model = Thevenin.of(circuit)

    def residual(self, x: np.ndarray, layout: Layout) -> np.ndarray:
        """Simulated less measured voltage in V, 0 where nothing was measured."""
        single = jnp.asarray(x, jnp.float32)
        simulated = np.asarray(_simulated(self.model, single, self.seen, layout), float)[: len(self.run)]
        return np.where(self.weight > 0, simulated - np.nan_to_num(self.run.voltage), 0.0)

    def jacobian(self, x: np.ndarray, layout: Layout) -> np.ndarray:
        """Derivatives [parameters of its temperature, samples] in V."""
        tables = layout.tables * layout.levels + int(layout.bent)
        single = jnp.asarray(x, jnp.float32)
        rows = []
        for first in range(0, tables, WIDTH):
            basis = np.zeros((WIDTH, *x.shape), np.float32)
            some = np.arange(first, min(first + WIDTH, tables))
            basis[np.arange(len(some)), self.column, some] = 1.0
            pushed = _pushed(self.model, single, self.seen, jnp.asarray(basis), layout)
            rows.append(np.asarray(pushed, float)[: len(some), : len(self.run)])
        return np.concatenate([*rows, self.own.T]) * (self.weight > 0)


def _with(model: Thevenin, x: jax.Array, lift: jax.Array, layout: Layout) -> Thevenin:
    """The circuit with tables from the parameters x [temperatures, parameters]."""
    count, pairs = layout.tables * layout.levels, layout.pairs
    tables = jnp.moveaxis(x[:, :count].reshape(x.shape[0], layout.tables, layout.levels), 0, -1)
    model = eqx.tree_at(lambda m: m.log_resistance, model, tables[: layout.tables - pairs])
    model = eqx.tree_at(lambda m: m.ocv.drift, model, model.ocv.drift + lift @ x[:, layout.size - layout.levels :].T)
    if pairs:
        model = eqx.tree_at(lambda m: m.log_tau, model, tables[layout.tables - pairs :])
    if layout.bent:
        model = eqx.tree_at(lambda m: m.log_scale, model, x[:, count])
    return model


@eqx.filter_jit
def _simulated(model: Thevenin, x: jax.Array, part: _Seen, layout: Layout) -> jax.Array:
    model = _with(model, x, part.lift, layout)
    return model.run(model.init(part.start), part.inputs)[1].voltage


@eqx.filter_jit
def _pushed(model: Thevenin, x: jax.Array, part: _Seen, basis: jax.Array, layout: Layout) -> jax.Array:
    """Derivatives of the simulated voltage in each direction of the basis, [directions, samples]."""
    _, push = jax.linearize(lambda y: _simulated(model, y, part, layout), x)
    return jax.vmap(push)(basis)


def _pack(circuit: Circuit, layout: Layout) -> np.ndarray:
    """Parameters [temperatures, parameters]: logarithms of R0, R_i, Rct, tau_i, of s, and offsets of the OCV in V."""
    tables = [circuit.r0[None], circuit.r]
    if circuit.transfer_resistance is not None:
        tables.append(circuit.transfer_resistance[None])
    tables.append(circuit.tau)
    logs = np.log(np.moveaxis(np.concatenate(tables), -1, 0)).reshape(len(circuit.temperatures), -1)
    scale = [] if circuit.transfer_scale is None else [np.log(circuit.transfer_scale)[:, None]]
    return np.concatenate([logs, *scale, np.zeros((len(logs), layout.levels))], axis=1)


def _offsets(x: np.ndarray, layout: Layout) -> np.ndarray:
    return x[:, layout.size - layout.levels :]


def _unpack(circuit: Circuit, x: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """The tables of a Circuit, and its OCV moved by the offsets."""
    count, rest = layout.tables * layout.levels, layout.tables - layout.pairs
    tables = np.moveaxis(x[:, :count].reshape(len(x), layout.tables, layout.levels), 0, -1)
    offset = interpolation(circuit.ocv_soc, circuit.soc) @ _offsets(x, layout).T
    found = {
        "r0": np.exp(tables[0]),
        "r": np.exp(tables[1 : 1 + layout.pairs]),
        "tau": np.exp(tables[rest:]),
        "ocv": circuit.ocv + offset,
    }
    if layout.bent:
        found |= {"transfer_resistance": np.exp(tables[rest - 1]), "transfer_scale": np.exp(x[:, count])}
    return found


# --- the prior -------------------------------------------------------------------------------------------------------


def _prior(layout: Layout, problem: Problem, misfit: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the prior's root, [rows, parameters of all temperatures], and whether each pulls to the beginning."""
    temperatures = len(problem.circuit.temperatures)
    size = temperatures * layout.size
    eye = np.eye(size).reshape(size, temperatures, layout.size)
    tables = eye[:, :, : layout.tables * layout.levels].reshape(size, temperatures, layout.tables, layout.levels)
    samples = float(sum(np.count_nonzero(w) for w in problem.weight))
    unit = np.sqrt(SMOOTH * misfit * samples / max(temperatures * layout.levels, 1)) * 0.1
    rows, home = [], []

    def add(block: np.ndarray, weight: float, pulls: bool) -> None:
        flat = block.reshape(size, -1).T
        if flat.size:
            rows.append(weight * flat)
            home.append(np.full(len(flat), pulls))

    time_constants = tables[:, :, layout.tables - layout.pairs :]
    add(np.diff(tables, 2, axis=3), unit, False)
    add(0.3 * np.diff(tables, axis=3), unit, False)
    add(np.diff(time_constants, axis=3), 3.0 * unit, False)
    add(np.diff(tables, 2, axis=1), unit, False)
    add(np.diff(time_constants, axis=1), unit, False)
    add(time_constants, 2.0 * unit, True)
    # What no run excites stays where it began.
    add(eye[:, :, : layout.size - layout.levels], 0.03 * unit + 1e-6, True)
    if layout.bent:
        scale = eye[:, :, layout.tables * layout.levels]
        add(np.diff(scale, axis=1), unit, False)
        add(scale, unit, True)
    offsets = eye[:, :, layout.size - layout.levels :]
    sigma = problem.trust.T[None]
    add(offsets / sigma, np.sqrt(max(misfit, 1e-8)), True)
    return np.concatenate(rows), np.concatenate(home)


def _pulls(
    layout: Layout, problem: Problem, misfit: float, x: np.ndarray, begin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The prior's root and its residual at x, in V."""
    root, home = _prior(layout, problem, misfit)
    return root, root @ x.ravel() - np.where(home, root @ begin.ravel(), 0.0)


def _total(residuals, parts, x, begin, layout, problem, misfit) -> float:
    _, pull = _pulls(layout, problem, misfit, x, begin)
    total = float(sum(np.sum(p.weight * e * e) for p, e in zip(parts, residuals, strict=True)) + pull @ pull)
    return total if np.isfinite(total) else np.inf


def _normal(parts, x, layout, residuals) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Newton matrix and gradient of each temperature's columns, [temperatures, n, n] and [temperatures, n]."""
    hessian = np.zeros((len(x), layout.size, layout.size))
    gradient = np.zeros((len(x), layout.size))
    for part, residual in zip(parts, residuals, strict=True):
        jacobian = part.jacobian(x, layout)
        hessian[part.column] += (jacobian * part.weight) @ jacobian.T
        gradient[part.column] += (jacobian * part.weight) @ residual
    return hessian, gradient


def _assembled(hessian: np.ndarray) -> np.ndarray:
    count, size, _ = hessian.shape
    full = np.zeros((count, size, count, size))
    full[np.arange(count), :, np.arange(count), :] = hessian
    return full.reshape(count * size, count * size)


def _step(hessian, gradient, x, begin, layout, problem, misfit, damping) -> np.ndarray:
    root, pull = _pulls(layout, problem, misfit, x, begin)
    matrix = _assembled(hessian) + root.T @ root
    matrix += damping * np.diag(np.diag(matrix))
    return -np.linalg.solve(matrix, gradient.ravel() + root.T @ pull).reshape(x.shape)


# --- what is left -----------------------------------------------------------------------------------------------------


def measured_noise(runs: Sequence[Record]) -> float:
    """Standard deviation in V of single voltages, from second differences of neighbours at constant current."""
    found = []
    for run in runs:
        calm = np.abs(np.diff(run.current, 2)) < 1e-3 * max(np.abs(run.current).max(), 1e-12)
        bend = np.diff(run.voltage, 2)[calm]
        bend = bend[np.isfinite(bend)]
        if len(bend) > 20:
            found.append(1.4826 * np.median(np.abs(bend - np.median(bend))) / np.sqrt(6.0))
    return float(np.median(found)) if found else 0.0


def _mean_square(residuals, parts) -> float:
    """In V^2, over the samples that count."""
    square = sum(float(np.sum(p.weight * e * e)) for p, e in zip(parts, residuals, strict=True))
    return square / max(sum(float(np.sum(p.weight)) for p in parts), 1e-12)


def _misfit(residuals, parts, noise: float) -> float:
    """Mean square in V^2 of the error that is the circuit's own, beyond the noise."""
    return max(_mean_square(residuals, parts) - 1.2 * noise**2, 1e-4 * noise**2, 1e-12)


def correlation(residuals: Sequence[np.ndarray], weights: Sequence[np.ndarray], most: int = 60) -> float:
    """Number of samples over which errors are alike: one plus twice the sum of the autocorrelations while positive."""
    scale = sum(float(np.sum(w * e * e)) for e, w in zip(residuals, weights, strict=True))
    total = 1.0
    for lag in range(1, most):
        alike = sum(float(np.sum((w * e)[lag:] * (w * e)[:-lag])) for e, w in zip(residuals, weights, strict=True))
        if alike <= 0.05 * scale:
            break
        total += 2.0 * alike / scale
    return total


def _refined(problem, layout, parts, x, begin, residuals, noise) -> Refined:
    circuit = problem.circuit
    misfit = _misfit(residuals, parts, noise)
    square = _mean_square(residuals, parts)
    alike = correlation(residuals, [p.weight for p in parts])
    hessian, scatter = _scatter(parts, x, layout, residuals, circuit)
    root, _ = _pulls(layout, problem, misfit, x, begin)
    prior = root.T @ root
    inverse = np.linalg.inv(hessian + prior)
    covariance = inverse @ (alike * scatter[0] + scatter[1] + square * alike * prior) @ inverse
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0)).reshape(x.shape)
    x, residuals, square = _as_published(x, deviation, residuals, parts, layout, np.asarray(circuit.soc))
    tables = _unpack(circuit, x, layout)
    logs = _unpack_deviation(deviation, layout)
    errors = {name: tables[name] * logs[name] for name in logs if name != "ocv"}
    errors["ocv"] = interpolation(circuit.ocv_soc, circuit.soc) @ logs["ocv"]
    simulated = [
        np.where(np.isfinite(p.run.voltage), p.run.voltage, np.nan) + e for p, e in zip(parts, residuals, strict=True)
    ]
    return Refined(
        replace(circuit, **tables, standard_error=errors),
        simulated,
        float(np.sqrt(square)),
        alike,
        noise,
        _confused(covariance, layout, circuit),
    )


def _scatter(parts, x, layout, residuals, circuit) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Gauss-Newton matrix of all parameters, and the covariance of the gradient: from the errors of single samples, and
    from those of the open-circuit voltage between the levels.

    Samples that stand for a longer time are averages of more, so errors are sized by the length of the step.
    """
    groups = [np.digitize(p.run.dt, STEPS) for p in parts]
    sums = np.zeros((2, len(STEPS) + 1))
    for part, residual, group in zip(parts, residuals, groups, strict=True):
        sums[0] += np.bincount(group, part.weight * residual**2, len(STEPS) + 1)
        sums[1] += np.bincount(group, part.weight, len(STEPS) + 1)
    variance = sums[0] / np.maximum(sums[1], 1.0)
    each = np.zeros((2, len(x), layout.size, layout.size))
    curve = np.zeros((len(x), layout.size, len(circuit.ocv_soc)))
    for part, group in zip(parts, groups, strict=True):
        jacobian = part.jacobian(x, layout)
        weighted = jacobian * part.weight
        each[0, part.column] += weighted @ jacobian.T
        each[1, part.column] += (weighted * part.weight * variance[group]) @ jacobian.T
        curve[part.column] += weighted @ interpolation(part.run.soc, circuit.ocv_soc)
    rough = curve.reshape(x.size, -1) * _roughness(circuit)
    return _assembled(each[0]), (_assembled(each[1]), rough @ rough.T)


def _roughness(circuit: Circuit) -> np.ndarray:
    """By how many volts the open-circuit voltage strays from straight lines between its nodes, from their bends."""
    gap = np.diff(circuit.ocv_soc)
    bend = np.abs(np.diff(np.diff(circuit.ocv, axis=0) / gap[:, None], axis=0)).mean(axis=1)
    return np.pad(bend * np.maximum(gap[1:], gap[:-1]) / 8.0, 1)


def _as_published(
    x: np.ndarray, deviation: np.ndarray, residuals: list, parts: Sequence[_Part], layout: Layout, levels: np.ndarray
) -> tuple[np.ndarray, list, float]:
    """Parameters as they are published, what is left of the voltages and its mean square in V^2.

    What is not known is taken from where it is, a table at a time, and only where the logs do not mind.
    """
    square = _mean_square(residuals, parts)
    most = MINDED * square
    target = _held(x, deviation, layout, levels)
    columns = [slice(table * layout.levels, (table + 1) * layout.levels) for table in range(layout.tables)]
    moved = [(t, c) for t in range(len(x)) for c in columns if not np.array_equal(target[t, c], x[t, c])]
    if not moved:
        return x, residuals, square
    for group in [moved, *([each] for each in moved)]:  # all at once, else one after the other
        trial = x.copy()
        for at in group:
            trial[at] = target[at]
        left = [part.residual(trial, layout) for part in parts]
        after = _mean_square(left, parts)
        if after <= most:
            x, residuals, square = trial, left, after
            if group is moved:
                break
    return x, residuals, square


def _held(x: np.ndarray, deviation: np.ndarray, layout: Layout, levels: np.ndarray) -> np.ndarray:
    """Tables whose values are not known at a level take them from the nearest levels where they are.

    A resistance that is nothing beside R0, and surely so, is known, however little its logarithm is.
    """
    x = x.copy()
    count = layout.tables * layout.levels
    tables = np.ascontiguousarray(x[:, :count]).reshape(len(x), layout.tables, layout.levels)
    doubt = deviation[:, :count].reshape(tables.shape)
    known = doubt < NOTHING
    ohms = slice(0, layout.tables - layout.pairs)
    most = np.exp(tables[:, ohms]) * (1.0 + 2.0 * doubt[:, ohms])
    r0 = np.array([np.median(row[k]) if k.any() else -np.inf for row, k in zip(tables[:, 0], known[:, 0], strict=True)])
    known[:, ohms] |= most < NEGLIGIBLE * np.exp(r0)[:, None, None]
    for row, sure in zip(tables.reshape(-1, layout.levels), known.reshape(-1, layout.levels), strict=True):
        if sure.any() and not sure.all():
            row[~sure] = np.interp(levels[~sure], levels[sure], row[sure])
    x[:, :count] = tables.reshape(len(x), count)
    return x


def _unpack_deviation(deviation: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    count, rest = layout.tables * layout.levels, layout.tables - layout.pairs
    tables = np.moveaxis(deviation[:, :count].reshape(len(deviation), layout.tables, layout.levels), 0, -1)
    found = {
        "r0": tables[0],
        "r": tables[1 : 1 + layout.pairs],
        "tau": tables[rest:],
        "ocv": _offsets(deviation, layout).T,
    }
    if layout.bent:
        found |= {"transfer_resistance": tables[rest - 1], "transfer_scale": deviation[:, count]}
    return found


STEPS = (0.15, 1.0, 5.0, 20.0)  # s, of the samples' steps: errors are sized apart between them
ALIKE = 0.95  # correlation beyond which two parameters are said to be confused
NEGLIGIBLE = 0.1  # of R0: a resistance that is surely less is known to be small
NOTHING = 1.0  # standard error of a logarithm beyond which its value says nothing
MINDED = 1.05  # growth of the mean square beyond which the logs contradict a value taken from other levels
UNKNOWN = 0.5  # relative standard error beyond which a parameter is said to be unknown


def _confused(covariance: np.ndarray, layout: Layout, circuit: Circuit) -> list[str]:
    """In words, what the data cannot tell: pairs of parameters that trade against each other, and unknown ones."""
    names = ["R0", *(f"R{i}" for i in range(1, layout.pairs + 1))]
    names += ["Rct"] if layout.bent else []
    names += [f"tau{i}" for i in range(1, layout.pairs + 1)]
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-300)).reshape(len(circuit.temperatures), layout.size)
    matrix = covariance.reshape(len(circuit.temperatures), layout.size, len(circuit.temperatures), layout.size)
    alike: dict[str, list[str]] = {}
    for t, temperature in enumerate(circuit.temperatures):
        for level, soc in enumerate(circuit.soc):
            index = np.arange(layout.tables) * layout.levels + level
            block = matrix[t, index][:, t, index] / np.outer(spread[t, index], spread[t, index])
            where = f"{100 * soc:.0f} % at {temperature:g} degC"
            for a in range(layout.tables):
                if spread[t, index[a]] > UNKNOWN:
                    alike.setdefault(f"{names[a]} is hardly known (standard error over 50 %)", []).append(where)
                for b in range(a):
                    if abs(block[a, b]) > ALIKE and max(spread[t, index[a]], spread[t, index[b]]) > 0.1:
                        text = f"{names[b]} and {names[a]} cannot be told apart (correlation {block[a, b]:+.2f})"
                        alike.setdefault(text.split(" (")[0], []).append(where)
    return [f"{what}: at {_some(where)}" for what, where in alike.items()]


def _some(where: list[str], most: int = 4) -> str:
    return ", ".join(where[:most]) + (f" and {len(where) - most} more" if len(where) > most else "")
