"""Thermal parameters from logs with a measured surface temperature, by nonlinear least squares.

The circuit simulates each record at the measured temperature, which gives its heat, and the thermal model the surface
from that heat alone. At a constant ambient this tells three numbers of the two-state model and not four: a gain and
two time constants. Weak priors at typical values settle the rest, and the result says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from scipy.optimize import least_squares, nnls

from celltwin.data.record import Record
from celltwin.errors import CelltwinError
from celltwin.interface import Input, Start, run, stack
from celltwin.physics.tables import KELVIN
from celltwin.physics.thermal import Entropy, Temperatures, Thermal, heat_of

TYPICAL_RESISTANCE = 0.5  # between core and surface, in terms of that to the ambient
TYPICAL_CAPACITY = 0.1  # the surface's, in terms of the core's
PRIOR = 1.5  # standard deviation of the logarithm of both
ENTROPY_NODES = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
ENTROPY_PRIOR = 0.3  # mV/K, standard deviation
BLOCK = 600.0  # s: residuals further apart than this count as independent
START = 0.3  # K, standard deviation of the first measured temperature
ROWS = 100_000  # residuals are thinned to about as many
SIGNIFICANT = 9.0  # by how much a core must lower the cost, three standard deviations squared


@dataclass(frozen=True)
class ThermalFit:
    thermal: Thermal
    entropy: Entropy | None
    standard_error: dict[str, float]  # K/W and J/K by name, of residuals as correlated as they are
    ambient: dict[float, float]  # degC that the sensor would show at the records' nominal ambient
    rmse: float  # K, at the measured heat
    notes: tuple[str, ...]  # what the data could not tell, in words

    def ambient_of(self, record: Record) -> float:
        """The ambient in degC at which to simulate a record: fitted where its nominal one was seen, else nominal."""
        return self.ambient.get(_nominal(record), _nominal(record))


def _nominal(record: Record) -> float:
    """The nominal ambient in degC; the first temperature where it is not known."""
    return float(record.filled_temperature[0] if np.isnan(record.ambient_degC) else record.ambient_degC)


class _Free(NamedTuple):
    thermal: Thermal
    entropy: Entropy | None  # None where it is not to be found
    offset: Array | None  # [ambients] K beside the nominal ones, likewise
    start: Array  # [records] K beside the first measured temperature, whose noise would look like a core


class _Found(NamedTuple):
    free: _Free
    error: np.ndarray  # [records, time] K, 0 where not measured
    covariance: np.ndarray  # of the parameters, in the order of their leaves


class _Data(NamedTuple):
    """Records side by side, [records, time], the short ones padded with dt = 0."""

    heat: Array  # W, without what a fitted entropy adds
    reversible: Array  # A K, current times temperature: heat of an entropy of one V/K
    soc: Array  # fraction
    dt: Array  # s
    measured: Array  # degC
    known: Array  # 1 where measured, else 0
    start: Array  # [records] degC
    ambient: Array  # [records] degC, nominal
    chamber: Array  # [records] index into the ambients


def fit_thermal(
    records: Sequence[Record],
    circuit: Any,
    states: int | None = None,
    entropy: Entropy | Literal["fit"] | None = None,
    fit_ambient: bool = True,
) -> ThermalFit:
    """Identify a `Thermal` from records with a measured surface temperature.

    `circuit` is a voltage model with an `ocv`, trained. `states`: 2 for a core and a surface, 1 for a lump, None for as
    many as the data support. The ambient is one constant for all records of one nominal `ambient_degC`, since
    a chamber and a sensor seldom agree to a tenth of a kelvin; `fit_ambient=False` takes the nominal value as exact.
    `entropy` is dU/dT where it is known; "fit" finds it with the rest. Raises CelltwinError for records without
    temperature, with unknown ambient where it is not fitted, and without heat.
    """
    if not records:
        raise CelltwinError("no record to fit a thermal model to", expected="at least one")
    for record in records:
        what = "no measured temperature" if np.isnan(record.temperature).all() else "no ambient_degC"
        if np.isnan(record.temperature).all() or (np.isnan(record.ambient_degC) and not fit_ambient):
            raise CelltwinError(f"record '{record.label}' has {what}", fix="leave it out, or name what is missing")
    known = None if entropy == "fit" else entropy
    table = Entropy.of([0.0] * len(ENTROPY_NODES), ENTROPY_NODES) if entropy == "fit" else None
    data, ambients = _collect(records, circuit, known)
    offset, start = jnp.zeros(len(ambients)) if fit_ambient else None, jnp.zeros(len(records))

    def free(*values: float) -> _Free:
        return _Free(Thermal.of(*values), table, offset, start)

    notes: list[str] = []
    with jax.enable_x64(True):
        lump = _solve(free(5.0, 50.0), data, _weight(data, None))
        # Once more, with residuals weighed by how large and how correlated they are.
        lump = found = _solve(lump.free, data, _weight(data, lump.error))
        if states != 1:
            resistance, capacity = lump.free.thermal.values.values()
            core = free(resistance, 0.2 * capacity, TYPICAL_RESISTANCE * resistance, 0.6 * capacity)
            found = _solve(core, data, _weight(data, lump.error))
            found = _solve(found.free, data, _weight(data, found.error))
            gain = np.sum(_weight(data, found.error) ** 2 * (lump.error**2 - found.error**2))
            if states is None and gain < SIGNIFICANT:
                notes.append("the surface shows no core: one heat capacity explains it as well")
                found = lump
    return _report(found, data, known, ambients, notes)


def fit_lump(logs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, float]]) -> tuple[float, float] | None:
    """Heat capacity (J/K) and way of heat to the ambient (W/K) of cells that are a lump each, by linear least squares.

        C (T - T_0) = int P dt - K int (T - T_ambient) dt

    Each log is heat P (W) and measured temperature (degC), [time, cells], ambient (degC) [time], and the length of its
    even steps in s. None where no temperature was measured, or none rose with its heat.
    """
    rows, right = [], []
    for heat, temperature, ambient, dt in logs:
        known = np.isfinite(temperature) & np.isfinite(temperature[0])
        away = np.where(known, temperature - ambient[:, None], 0.0)
        rows.append(np.stack([(temperature - temperature[0])[known], (np.cumsum(away, axis=0) * dt)[known]], axis=1))
        right.append((np.cumsum(heat, axis=0) * dt)[known])
    if not any(map(len, right)):
        return None
    capacity, coolant = nnls(np.concatenate(rows), np.concatenate(right))[0]
    return (float(capacity), float(coolant)) if capacity > 0.0 else None


def _collect(records: Sequence[Record], circuit: Any, entropy: Entropy | None) -> tuple[_Data, list[float]]:
    batch = stack(records, dtype=np.float64)
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), (batch.start, batch.inputs))
    heat, soc = (np.asarray(a, np.float64) for a in _heat(circuit, entropy, *single))
    if not np.abs(heat).max() > 1e-6:
        raise CelltwinError("records without heat tell nothing of thermal resistance", expected="records under load")
    nominal = [_nominal(record) for record in records]
    ambients = sorted(set(nominal))
    known = [np.pad(1.0 * np.isfinite(r.temperature), (0, heat.shape[1] - len(r))) for r in records]
    degrees, chamber = batch.inputs.temperature, [ambients.index(a) for a in nominal]
    columns: list[Any] = [heat, batch.inputs.current * (degrees + KELVIN), soc, batch.inputs.dt, degrees]
    columns += [np.stack(known), batch.start.temperature, np.array(nominal), np.array(chamber)]
    return _Data(*columns), ambients


@jax.jit
def _heat(circuit: Any, entropy: Entropy | None, start: Start, inputs: Input) -> tuple[Array, Array]:
    """Heat in W and state of charge of records, the circuit in closed loop at the measured temperature."""

    def one(start: Start, inputs: Input) -> tuple[Array, Array]:
        state, output = run(circuit, circuit.init(start), inputs)
        each = jax.vmap(heat_of, (None, None, None, 0, 0, 0))
        return each(circuit, entropy, state, output, inputs.current, inputs.temperature), output.soc

    return jax.vmap(one)(start, inputs)


@jax.jit
def _simulate(free: _Free, data: _Data) -> Array:
    """Surface temperatures in degC, [records, time]."""
    heat, ambient = data.heat, data.ambient
    if free.entropy is not None:
        heat = heat + data.reversible * jax.vmap(jax.vmap(free.entropy))(data.soc)
    if free.offset is not None:
        ambient = ambient + free.offset[data.chamber]

    def one(heat: Array, dt: Array, start: Array, ambient: Array) -> Array:
        def step(now: Temperatures, x: tuple[Array, Array]) -> tuple[Temperatures, Array]:
            now = free.thermal.step(now, x[0], ambient, x[1])
            return now, now.surface

        return jax.lax.scan(step, Temperatures(start, start), (heat, dt))[1]

    return jax.vmap(one)(heat, data.dt, data.start + free.start, ambient)


def _prior(free: _Free) -> Array:
    thermal, rows = free.thermal, [free.start / START]
    if free.entropy is not None:
        rows.append(free.entropy.table / ENTROPY_PRIOR)
    if thermal.log_core_resistance is not None and thermal.log_core_capacity is not None:
        resistance = thermal.log_core_resistance - thermal.log_ambient_resistance - np.log(TYPICAL_RESISTANCE)
        capacity = thermal.log_surface_capacity - thermal.log_core_capacity - np.log(TYPICAL_CAPACITY)
        rows.append(jnp.stack([resistance, capacity]) / PRIOR)
    return jnp.concatenate(rows)


@jax.jit
def _rows(free: _Free, data: _Data, weight: Array) -> Array:
    """What least squares makes small, all in standard deviations."""
    every = 1 + data.dt.size // ROWS
    deviations = np.sqrt(every) * weight * (_simulate(free, data) - data.measured)
    return jnp.concatenate([deviations[:, ::every].ravel(), _prior(free)])


_slopes = jax.jit(jax.jacfwd(_rows))


def _solve(free: _Free, data: _Data, weight: Any) -> _Found:
    start, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, np.float64), free))

    def rows(flat: Any) -> np.ndarray:
        return np.asarray(_rows(unravel(flat), data, weight))

    def slopes(flat: Any) -> np.ndarray:
        leaves = jax.tree.leaves(_slopes(unravel(flat), data, weight))
        return np.hstack([np.asarray(leaf).reshape(len(leaf), -1) for leaf in leaves])

    result: Any = least_squares(rows, np.asarray(start), jac=slopes, x_scale="jac")  # pyright: ignore[reportArgumentType]
    error = np.asarray(data.known * (_simulate(unravel(result.x), data) - data.measured))
    return _Found(unravel(result.x), error, np.linalg.pinv(result.jac.T @ result.jac))


def _weight(data: _Data, error: np.ndarray | None) -> Any:
    """One over the standard deviation of each residual, [records, time], where error [K] is what remains.

    Residuals that stay on one side for minutes (a chamber cycles) count as one for each time over which they are
    correlated, by the variance of their block means.
    """
    seconds, dt = np.asarray(data.known * data.dt), np.asarray(data.dt)
    if error is None:
        return np.sqrt(seconds / BLOCK)
    variance = max(np.sum(seconds * error**2) / np.sum(seconds), 1e-10)
    block = (np.cumsum(dt, axis=1) // BLOCK).astype(int) + np.arange(len(error))[:, None] * len(error[0])
    summed, inside = (np.bincount(block.ravel(), x.ravel()) for x in (seconds * error, seconds))
    means = summed[inside > 0] / inside[inside > 0]
    correlated = BLOCK * np.average(means**2, weights=inside[inside > 0]) / variance
    return np.sqrt(seconds / np.clip(correlated, np.median(dt[dt > 0]), BLOCK) / variance)


def _report(
    found: _Found, data: _Data, entropy: Entropy | None, ambients: Sequence[float], notes: Sequence[str]
) -> ThermalFit:
    free: _Free = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), np.float32), found.free)
    values = free.thermal.values
    factor = dict(zip(values, np.sqrt(np.diag(found.covariance)).tolist(), strict=False))  # of the logarithms
    said = [f"{name} is known to a factor of {np.exp(d):.1f} only" for name, d in factor.items() if d > 0.3]
    if len(said) > 1:
        said.append(
            "a constant ambient does not tell the core's resistance from the capacities: they lean on typical ones"
        )
    seconds = np.asarray(data.known * data.dt)
    offset: list[float] = [] if free.offset is None else free.offset.tolist()
    return ThermalFit(
        thermal=free.thermal,
        entropy=free.entropy or entropy,
        standard_error={name: values[name] * factor[name] for name in values},
        ambient={a: a + o for a, o in zip(ambients, offset, strict=False)},
        rmse=float(np.sqrt(np.sum(seconds * found.error**2) / np.sum(seconds))),
        notes=(*notes, *said),
    )
