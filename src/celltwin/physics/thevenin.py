"""Thevenin circuit: open-circuit voltage, hysteresis, ohmic and charge-transfer overpotential, N RC pairs.

    V = U(soc + shift, T) + sum_m h_m + R0 I + s asinh(Rct I / s) + sum_i v_i
    v_i <- a_i v_i + (1 - a_i) E_i(I),   a_i = exp(-dt / tau_i),   E_1 = s asinh(R1 I / s),  E_i = R_i I

All resistances and time constants are tables over state of charge and temperature, positive by construction (their
logarithms are the parameters) and piecewise Arrhenius in temperature. The asinh is the inverse of a symmetric
Butler-Volmer law (Plett, Battery Management Systems I, 2015, ch. 3), at once and behind the double layer of the
first pair: nothing at room temperature, the largest single gain in the cold. Without a scale s the circuit is linear
and has no Rct. The discretisation of the pairs is exact for a current held over the step, of any length.

Tables are read at the temperature of the cell's core, T + theta: what is measured is the surface, and in the cold a
core a few kelvin warmer has a tenth less resistance. g is the rise that a steady ampere squared makes.

    theta <- a theta + (1 - a) g(T) I^2,   a = exp(-dt / tau_core)

The shift is what the start tells: a cell that wakes at rest a few mV above the curve was charged a little further, or
holds a little less, than its counter says. It moves the curve, not the counter, by at most 3 % of SOC. A circuit whose
training records all begin under load has none: it never saw the curve where they start. Nor has one whose curve is so
flat there, as that of LFP, that a counter's usual error shows less than a rested voltage is sure of.

Nothing here feeds a voltage back: charge, core, pairs and hysteresis are linear recurrences one after the other, and
`run` advances each over the whole record at once. It gives what a scan of `step` gives, sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record
from celltwin.interface import Input, Output, Start, start_of
from celltwin.physics.charge import Charge, advance, count, full_of
from celltwin.physics.circuit import Circuit
from celltwin.physics.hysteresis import Hysteresis
from celltwin.physics.ocv import OCV_NODES, Ocv, fit_ohmic, interpolation
from celltwin.physics.recurrence import from_blocks, in_blocks, side_by_side
from celltwin.physics.tables import (
    COLD_REACH,
    asinh,
    hat,
    inverse_temperature,
    lookup,
    reaching,
    temperature_nodes,
    warmth,
)

SOC_NODES = (0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TIME_CONSTANTS = (4.0, 40.0, 400.0, 3000.0)  # s, where training starts
CORE_RESISTANCE = 0.5  # K/W between core and surface, where training starts
CORE_TIME = 150.0  # s, likewise
WARMEST_CORE = 30.0  # K above the surface
RESTED_RATE = 20.0  # 1/h: a start under C/20 is half trusted to be at rest
LARGEST_SHIFT = 0.03
COUNTED = 0.005  # fraction of charge by which a counter is usually wrong
UNRESTED_RATE = 0.01  # 1/h: what is left at rest of an overpotential is that of C/100
WAKE_UNIT = 0.1  # V
SPAN = 0.03  # fraction of charge below the start: where the slope of the curve is taken
MOST = 0.8  # share of an excess that a shift may explain
FLATTEST = 0.1  # V, the least slope that a curve is taken to have
LEGIBLE = 0.003  # V that a usual error of a counter must show at the top of a curve to be read there
THERMAL_SCALE = 0.04  # V, where the scale s of the charge transfer starts: about 2RT/F


class TheveninState(NamedTuple):
    charge: Charge
    pairs: Array  # [N] V, overpotential of each RC pair
    hysteresis: Array  # [modes] V
    core: Array  # K, by which the core is warmer than the surface
    shift: Array  # fraction, by which the OCV curve is read beside the counter


class Core(eqx.Module):
    """How far the core is warmer than the surface."""

    log_rise: Array  # [temperatures] of K/A^2
    log_time: Array  # scalar, of s


class Wake(eqx.Module):
    """What the first voltage tells about how far the charge is misaligned.

    Few records, or records that all begin alike, say little of the gain. It is then what the curve's slope U' says,
    weighed as a Kalman filter does: K = U' p^2 / ((U' p)^2 + (R i)^2), where p is how far counters of charge are
    known to be wrong, and R i what is left of an overpotential at rest, which in the cold is most of the excess.
    """

    gain: Array  # [temperatures] 1/V
    offset: Array  # [temperatures] in WAKE_UNIT: the excess that is usual after a charge
    usual: tuple[float, ...] = eqx.field(static=True, default=())  # 1/V, the gain before records told

    @classmethod
    def of(cls, slope: float, resistance: np.ndarray, capacity: float) -> Wake:
        """Before training: slope of the curve (V), resistances [temperatures] (ohm), capacity (Ah)."""
        usual = slope * COUNTED**2 / ((slope * COUNTED) ** 2 + (resistance * UNRESTED_RATE * capacity) ** 2)
        return cls(jnp.asarray(usual, np.float32), jnp.zeros(len(usual), np.float32), tuple(usual.tolist()))

    def penalty(self) -> Array:
        """Prior in V^2: a gain that is the usual one, and no offset."""
        usual = jnp.asarray(self.usual or 1.0, self.gain.dtype)
        return 1e-5 * (_square(self.gain / usual - 1.0) + _square(self.offset))

    def shift(self, excess: Array, slope: Array, warm: Array) -> Array:
        """By how much (fraction) the curve is read beside at a start at rest, `excess` (V) above it.

        Between the curve and what is usual after a charge, an excess is what has yet to relax, and tells nothing; what
        is beyond is charge, but never more than most of what the slope (V) of the curve explains. So a cell that wakes
        on its curve stays on it.
        """
        gain, offset = self.gain @ warm, WAKE_UNIT * (self.offset @ warm)
        if not self.usual:  # a twin of before, as it was
            return gain * (excess - offset)
        beyond = excess - jnp.clip(excess, jnp.minimum(offset, 0.0), jnp.maximum(offset, 0.0))
        return jnp.minimum(gain, MOST / jnp.maximum(slope, FLATTEST)) * beyond


def unread(model: Any) -> Any:
    """A model whose circuits read no charge from the first voltage: for a rest, whose voltage is what is looked for."""
    return jax.tree.map(
        lambda part: replace(part, gain=0.0 * part.gain) if isinstance(part, Wake) else part,
        model,
        is_leaf=lambda part: isinstance(part, Wake),
    )


class Adjustment(NamedTuple):
    """What another model makes of a circuit's tables: factors, positive or nothing is left of their meaning."""

    resistance: Array  # [1 + N (+ 1)] factors, in the order of log_resistance
    tau: Array  # [N] factors
    shift: Array  # scalar, fraction by which the OCV curve is read beside


class Thevenin(eqx.Module):
    """OCV + hysteresis + R0 + charge transfer + N RC pairs over SOC and temperature; what is None is left out."""

    ocv: Ocv
    log_resistance: Array  # [1 + N (+ 1), soc nodes, temperatures] of ohm: R0, R1 ... RN and, with log_scale, Rct
    log_tau: Array  # [N, soc nodes or 1, temperatures] of s
    log_scale: Array | None  # [temperatures] of V
    hysteresis: Hysteresis | None
    core: Core | None
    wake: Wake | None
    temperatures: tuple[float, ...] = eqx.field(static=True)  # degC
    soc_nodes: tuple[float, ...] = eqx.field(static=True)
    initial_tau: tuple[float, ...] = eqx.field(static=True)  # s
    # K below the coldest node to which the tables go on by Arrhenius' law, as between the two coldest
    cold_reach: float = eqx.field(static=True, default=0.0)

    @classmethod
    def create(cls, records: Sequence[Record], time_constants: Sequence[float] = TIME_CONSTANTS) -> Thevenin:
        """A circuit to be trained, that starts from the least-squares OCV and resistance of the records."""
        temperatures = temperature_nodes(records)
        voltage, resistance = fit_ohmic(records, temperatures)
        wake, slope = None, _slope_at_top(voltage, records)
        if slope * COUNTED > LEGIBLE and any(_begins_at_rest(record) for record in records):
            wake = Wake.of(slope, resistance, float(start_of(records[0]).capacity))
        pairs = len(time_constants)
        share = np.array([0.35] + [0.4 / pairs] * pairs + [0.25])[:, None, None]
        tables = np.log(share * resistance[None, None, :]) + np.zeros((1, len(SOC_NODES), 1))
        single, each = np.float32, np.zeros(len(temperatures))
        return cls(
            ocv=Ocv.of(voltage, temperatures),
            log_resistance=jnp.asarray(tables, single),
            log_tau=jnp.asarray(np.log(time_constants)[:, None, None] + each[None, None, :], single),
            log_scale=jnp.asarray(np.log(THERMAL_SCALE) + each, single),
            hysteresis=None,
            core=Core(
                jnp.asarray(np.log(CORE_RESISTANCE * resistance), single), jnp.asarray(np.log(CORE_TIME), single)
            ),
            wake=wake,
            temperatures=temperatures,
            soc_nodes=SOC_NODES,
            initial_tau=tuple(float(t) for t in time_constants),
            cold_reach=COLD_REACH,
        )

    @classmethod
    def of(cls, circuit: Circuit) -> Thevenin:
        """The step of a circuit given by its tables."""
        temperatures, nodes = (tuple(float(x) for x in axis) for axis in (circuit.temperatures, circuit.soc))
        tables = [circuit.r0[None], circuit.r]
        if circuit.transfer_resistance is not None:
            tables.append(circuit.transfer_resistance[None])
        hysteresis = None
        if circuit.hysteresis is not None and circuit.hysteresis_rate is not None:
            hysteresis = Hysteresis.of(circuit.hysteresis, circuit.hysteresis_rate.tolist(), nodes)
        core = None
        if circuit.core_kelvin_per_watt > 0.0:
            rise, time = np.log(circuit.core_rise), np.log(circuit.core_second)
            core = Core(jnp.asarray(rise, np.float32), jnp.asarray(time, np.float32))
        return cls(
            ocv=Ocv.of_curves(circuit.ocv, circuit.ocv_soc.tolist(), temperatures),
            log_resistance=jnp.asarray(np.log(np.concatenate(tables)), np.float32),
            log_tau=jnp.asarray(np.log(circuit.tau), np.float32),
            log_scale=None if circuit.transfer_scale is None else jnp.asarray(np.log(circuit.transfer_scale), "f4"),
            hysteresis=hysteresis,
            core=core,
            wake=None,
            temperatures=temperatures,
            soc_nodes=nodes,
            initial_tau=tuple(float(t) for t in np.exp(np.log(circuit.tau).mean(axis=(1, 2)))),
        )

    @property
    def pairs(self) -> int:
        """Number of RC pairs."""
        return self.log_tau.shape[0]

    def parameters_at(self, soc: Array, temperature: Array) -> tuple[Array, Array, Array | None]:
        """Resistances [1 + N (+ 1)] in ohm, time constants [N] in s and charge-transfer scale in V for scalars."""
        dtype = self.log_tau.dtype
        warm, charged = self._warm(temperature), hat(soc, jnp.asarray(self.soc_nodes, dtype))
        weights = jnp.outer(charged, warm).ravel()
        resistance = jnp.exp(self.log_resistance.reshape(-1, weights.size) @ weights)
        at = warm if self.log_tau.shape[1] == 1 else weights
        tau = jnp.exp(self.log_tau.reshape(-1, at.size) @ at)
        return resistance, tau, None if self.log_scale is None else jnp.exp(self.log_scale @ warm)

    def _warm(self, temperature: Array) -> Array:
        """Weights [temperatures] of the tables at a temperature in degC."""
        return warmth(temperature, self.temperatures, self.log_tau.dtype, self.cold_reach)

    def resized(self, ratio: Array | float) -> Thevenin:
        """The circuit of a cell of `ratio` times the resistance and, at equal C-rate, equal heat."""
        core = self.core and replace(self.core, log_rise=self.core.log_rise + 2.0 * jnp.log(ratio))
        return replace(self, log_resistance=self.log_resistance + jnp.log(ratio), core=core)

    def init(self, start: Start) -> TheveninState:
        """At rest, no RC pair charged; the voltage beyond the curve says on which side of it the cell wakes."""
        resistance, _, _ = self.parameters_at(start.soc, start.temperature)
        excess = start.voltage - self.ocv(start.soc, start.temperature) - resistance[0] * start.current
        # Under load, the voltage tells of resistance and not of charge.
        rested = 1.0 / (1.0 + (RESTED_RATE * start.current / start.capacity) ** 2)
        zero = 0.0 * start.soc
        shift = zero
        if self.wake is not None:
            warm = warmth(start.temperature, self.temperatures, zero.dtype)
            rise = self.ocv(start.soc, start.temperature) - self.ocv(start.soc - SPAN, start.temperature)
            shift = jnp.clip(rested * self.wake.shift(excess, rise / SPAN, warm), -LARGEST_SHIFT, LARGEST_SHIFT)
        side = jnp.zeros(0, start.soc.dtype)
        if self.hysteresis is not None:
            side = self.hysteresis.init(start.soc, rested * excess)
        pairs = jnp.full(self.pairs, zero)
        return TheveninState(full_of(start.soc, start.capacity), pairs, side, zero, shift)

    def step(self, state: TheveninState, u: Input, adjust: Adjustment | None = None) -> tuple[TheveninState, Output]:
        """One sample on; an adjustment of the tables, where there is one, is for this step."""
        charge, core, side, shift = advance(state.charge, u.current, u.dt), state.core, state.hysteresis, state.shift
        if self.core is not None:
            cool, warmed = self._core_recurrence(self.core.log_rise @ self._warm(u.temperature), u)
            core = cool * core + warmed
        resistance, tau, scale = self.parameters_at(charge.soc, u.temperature + core)
        if adjust is not None:
            resistance, tau, shift = resistance * adjust.resistance, tau * adjust.tau, shift + adjust.shift
        keep = jnp.exp(-u.dt / tau)
        at_once, drive = resistance[0] * u.current, resistance[1 : 1 + self.pairs] * u.current
        if scale is not None:
            at_once += scale * asinh(resistance[-1] * u.current / scale)
            drive = jnp.concatenate([scale * asinh(drive[:1] / scale), drive[1:]])
        pairs = keep * state.pairs + (1.0 - keep) * drive
        if self.hysteresis is not None:
            kept, added = self.hysteresis.recurrence(charge.soc, u.current, u.dt, charge.capacity)
            side = kept * side + added
        voltage = self.ocv(charge.soc + shift, u.temperature) + (jnp.sum(side) + at_once + jnp.sum(pairs))
        return TheveninState(charge, pairs, side, core, state.shift), Output(voltage, charge.soc)

    def run(
        self, state: TheveninState, inputs: Input, adjust: Adjustment | None = None
    ) -> tuple[TheveninState, Output]:
        """What scanning `step` over inputs and adjustments [time] gives: the final state and outputs [time].

        The same cascade, each stage over the whole record before the next, on arrays [samples] in the order of blocks.
        """
        time = inputs.dt.shape[0]
        # Padded with steps of no length, which leave every state as it is.
        u = Input(in_blocks(inputs.current), in_blocks(inputs.temperature, edge=True), in_blocks(inputs.dt))
        charge, soc, u = count(state.charge, u)
        shape, soc, u = soc.shape, soc.ravel(), Input(*(a.ravel() for a in u))

        def advanced(keep: list[Array], drive: list[Array], initial: Array) -> list[Array]:
            keep, drive = ([a.reshape(shape) for a in each] for each in (keep, drive))
            return [x.ravel() for x in side_by_side(keep, drive, list(initial))]

        core = jnp.zeros_like(soc)
        if self.core is not None:
            log_rise = self._over(self.core.log_rise[None, None], soc, u.temperature)
            cool, warmed = self._core_recurrence(log_rise[0], u)
            (core,) = advanced([cool], [warmed], state.core[None])

        inside = u.temperature + core
        r0, *resistance = (jnp.exp(x) for x in self._over(self.log_resistance, soc, inside))
        taus = [jnp.exp(x) for x in self._over(self.log_tau, soc, inside)]
        shift = state.shift
        if adjust is not None:
            on_resistance, on_tau = (in_blocks(f, edge=True).reshape(-1, f.shape[1]).T for f in adjust[:2])
            shift = shift + in_blocks(adjust.shift, edge=True).ravel()
            r0, *resistance = (x * f for x, f in zip([r0, *resistance], on_resistance, strict=True))
            taus = [x * f for x, f in zip(taus, on_tau, strict=True)]
        keep = [jnp.exp(-u.dt / tau) for tau in taus]
        at_once, drive = r0 * u.current, [r * u.current for r in resistance]
        if self.log_scale is not None:
            scale = jnp.exp(self._over(self.log_scale[None, None], soc, inside)[0])
            at_once += scale * asinh(drive.pop() / scale)
            drive[:1] = [scale * asinh(first / scale) for first in drive[:1]]
        slow = advanced(keep, [(1.0 - a) * e for a, e in zip(keep, drive, strict=True)], state.pairs)

        modes: list[Array] = []
        if self.hysteresis is not None:
            each = jax.vmap(self.hysteresis.recurrence, (0, 0, 0, None), 1)
            kept, added = each(soc, u.current, u.dt, state.charge.capacity)
            modes = advanced(list(kept), list(added), state.hysteresis)
        voltage = sum([*modes, *slow], self.ocv.over(soc + shift, u.temperature) + at_once)
        pairs, side = (jnp.stack([x[-1] for x in each]) if each else jnp.zeros(0, soc.dtype) for each in (slow, modes))
        after = TheveninState(charge, pairs, side, core[-1], state.shift)
        return after, Output(*(from_blocks(x.reshape(shape), time) for x in (voltage, soc)))

    def _core_recurrence(self, log_rise: Array, u: Input) -> tuple[Array, Array]:
        """Factor and addition (K) of the core's step, from the logarithm of g."""
        assert self.core is not None
        cool = jnp.exp(-u.dt / jnp.exp(self.core.log_time))
        return cool, (1.0 - cool) * jnp.minimum(jnp.exp(log_rise) * u.current**2, WARMEST_CORE)

    def _over(self, tables: Array, soc: Array, temperature: Array) -> list[Array]:
        """Tables [any, soc nodes or 1, temperatures] over a record: states of charge and temperatures [samples]."""
        axis, onto = reaching(self.temperatures, self.cold_reach)
        if onto is not None:
            tables = tables @ jnp.asarray(onto, tables.dtype)
        return lookup(list(tables), self.soc_nodes, tuple(axis.tolist()), soc, inverse_temperature(temperature))

    def penalty(self) -> Array:
        """Prior of smooth tables: bends over SOC, departures from Arrhenius' law, drift of the time constants (V^2)."""
        table, tau = self.log_resistance, self.log_tau
        start = jnp.log(jnp.asarray(self.initial_tau, tau.dtype))[:, None, None]
        curved = _square(jnp.diff(table, 2, axis=1)) + 0.1 * _square(jnp.diff(table, axis=1))
        arrhenius = _square(jnp.diff(table, 2, axis=2)) + _square(jnp.diff(tau, axis=2))
        home = 0.1 * _square(tau - start)
        if self.log_scale is not None:
            arrhenius += _square(jnp.diff(self.log_scale))
            home += _square(self.log_scale - float(np.log(THERMAL_SCALE)))
        total = self.ocv.penalty() + 3e-5 * (curved + arrhenius + home)
        if self.core is not None:
            typical = jnp.log(CORE_RESISTANCE) + jax.nn.logsumexp(jnp.mean(table, axis=1), axis=0)
            total += 1e-6 * (_square(self.core.log_time - jnp.log(CORE_TIME)) + _square(self.core.log_rise - typical))
        if self.wake is not None:
            total += self.wake.penalty()
        if self.hysteresis is not None:
            total += self.hysteresis.penalty()
        return total


def _begins_at_rest(record: Record) -> bool:
    """Is the current of its first sample below C/20?"""
    start = start_of(record)
    return RESTED_RATE * abs(float(start.current)) < float(start.capacity)


def _slope_at_top(voltage: np.ndarray, records: Sequence[Record]) -> float:
    """Mean slope (V) of a curve at OCV_NODES over the last twentieth of the charge that records reach."""
    top = max(float(np.max(record.soc)) for record in records)
    high, low = interpolation(np.array([top, top - 0.05]), OCV_NODES) @ voltage
    return max(20.0 * float(high - low), FLATTEST)


def _square(x: Array) -> Array:
    """Mean square, 0 of an empty array (one node has no neighbour)."""
    return jnp.mean(x**2) if x.size else jnp.zeros((), x.dtype)
