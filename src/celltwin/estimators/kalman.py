"""Kalman filters around any voltage model: extended, unscented and cubature, in square-root form.

    x = (soc, v_1 .. v_N, b, e, rho, kappa)
    soc, v_i  of the model: its charge and, of a circuit, or the one in a hybrid, its RC pairs; the rest follows along
    b         offset of the current sensor, in C           e      slow error of the model, V: a Gauss-Markov process
    rho       log of the cell's resistance over the model's    kappa  log of its capacity over the reference

    y = U + exp(rho) (V - U) + m e + r      V, U: voltage and open-circuit voltage of model.step, driven by
                                            (I - b Q) exp(-kappa): a faded cell is a smaller cell
    m = sqrt(1 + (U' / s)^2)                a curve is wrong sideways too: most where it is steep
    r ~ N(0, r_T^2 + (q (V - U))^2)         and a model is the more wrong the more the cell is loaded

Noise w ~ N(0, Q dt) is added to x before the step, so that one call of `step` gives the new state and the voltage
together, for a circuit and for a network alike. With A A^T = P + Q dt, and F, G the derivatives of new state and
voltage (or, of the sigma points, their deviations), one triangularisation does the whole of the update:

    [ G A   sqrt r ]          [ sqrt S     0  ]
    [ F A     0    ]  =  L Z, L = [ K sqrt S   P'^1/2 ],   Z Z^T = 1

so a covariance is never subtracted from and cannot lose its sign. A voltage that is implausible (beyond GATE standard
deviations) counts for as much less. All noises are parameters, learned through the filter.

Sources: T. Kailath, A. H. Sayed, B. Hassibi, Linear Estimation (2000), ch. 12, for the array form; S. J. Julier,
J. K. Uhlmann, Proc. IEEE 92 (2004) 401; I. Arasaratnam, S. Haykin, IEEE Trans. Autom. Control 54 (2009)
1254; for cells G. L. Plett, J. Power Sources 134 (2004) 277.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.domain import Fixed
from celltwin.data.record import SECONDS_PER_HOUR
from celltwin.interface import Estimate, Input, Measurement, Start, measured
from celltwin.physics.charge import Charge
from celltwin.physics.tables import hat
from celltwin.physics.thevenin import Thevenin, TheveninState

UNITS = {"soc": 0.01, "pair": 0.01, "offset": 0.01, "error": 0.01, "resistance": 0.1, "capacity": 0.05}
LIMITS = {
    "soc": (-0.05, 1.05),
    "offset": (-0.3, 0.3),
    "error": (-0.3, 0.3),
    "resistance": (-1.0, 1.5),
    "capacity": (-0.5, 0.3),
}
THETA = ("offset", "error", "resistance", "capacity")
GATE = 4.0
SURPRISE, HIGHEST_RATE, WEATHER = 1.0, 50.0, (-60.0, 120.0)  # V, 1/h, degC: beyond these a sensor is not believed
STORED = 0.1  # doubt of a stored state of charge
SENSED = 60.0  # s: longer steps are pauses, of which a sensor's offset is in the counter no longer than this
SPAN = 0.015  # of charge: to either side, for the slope of the curve
GRID = tuple(np.linspace(0.0, 1.0, 41).tolist())


class FixedModel(Fixed):
    """A trained voltage model that the training of the filter's noises leaves as it is."""

    model: Any


class Noise(eqx.Module):
    """Logarithms of standard deviations, in UNITS."""

    reading: Array  # [2]: at -20 and 40 degC and on the line between, of the voltage in units of 10 mV
    loaded: Array  # the share q of the overpotential
    error: Array  # [2] likewise, of e
    error_second: Array  # s, time constant of e
    walk: Array  # [4] per root hour: soc, pairs, offset, and resistance with capacity
    steep: Array  # V, the slope s of the OCV curve at which it is as wrong sideways as upwards
    start: Array  # [4]: offset, resistance, capacity; and of the RC pairs, in ohmic drops of 1C


def assumed_noise() -> Noise:
    """Where training starts, or what is used without: about what training found for an NMC cell of 3 Ah."""
    return Noise(
        reading=jnp.log(jnp.asarray([6.0, 2.0])),
        loaded=jnp.log(jnp.asarray(0.45)),
        error=jnp.log(jnp.asarray([1.6, 0.45])),
        error_second=jnp.log(jnp.asarray(160.0)),
        walk=jnp.log(jnp.asarray([1.4, 1.4, 0.25, 0.55])),
        steep=jnp.log(jnp.asarray(1.8)),
        start=jnp.log(jnp.asarray([1.5, 1.0, 0.55, 1.0])),
    )


class KalmanState(NamedTuple):
    model: Any  # of the voltage model, at the estimate
    theta: Array  # [4] in UNITS: offset, error, resistance, capacity
    root: Array  # [n, n] lower triangular, P = root root^T in UNITS
    held: Array  # [2] last known current (A) and temperature (degC)


class Kalman(eqx.Module):
    """A filter of one kind, `ekf`, `ukf` or `ckf`, around a voltage model."""

    base: FixedModel
    noise: Noise
    kind: str = eqx.field(static=True)
    gate: float = eqx.field(static=True)

    @classmethod
    def create(cls, model: Any, kind: str = "ekf", gate: float = GATE) -> Kalman:
        return cls(FixedModel(model), assumed_noise(), kind, gate)

    @property
    def pairs(self) -> int:
        """RC pairs in the filter's state: all of a circuit, be it the model or within it; else none."""
        circuit = _circuit(self.base.model)
        return circuit.pairs if circuit is not None else 0

    @property
    def units(self) -> Array:
        return jnp.asarray([UNITS["soc"], *[UNITS["pair"]] * self.pairs, *(UNITS[name] for name in THETA)], np.float32)

    def init(self, start: Start) -> KalmanState:
        """What the first voltage tells: for each state of charge, how far the model must be off to show it."""
        model, dtype = self.base.model, start.voltage.dtype
        grid = jnp.asarray(GRID, dtype)
        still = Input(start.current, start.temperature, jnp.zeros_like(start.current))

        def shown(soc: Array) -> tuple[Array, Array, Array]:
            begun = _unshifted(model.init(start._replace(soc=soc)))
            loaded = model.step(begun, still)[1].voltage
            pulled = model.step(begun, still._replace(current=start.current - start.capacity))[1].voltage
            return loaded, loaded - pulled, self._sideways(self._slope(soc, start.temperature))

        # One after the other: a microcontroller has no stack for all of them at once.
        voltage, drop, sideways = jax.lax.map(shown, grid)
        theta_std, _, error_std = self._levels(start.temperature)
        wandered = jnp.maximum(jnp.mean(drop), 1e-4) * jnp.exp(self.noise.start[3])  # V, of relaxing pairs
        blur = jnp.sqrt(wandered**2 + (sideways * error_std) ** 2 + 1e-6)
        likely = -0.5 * ((start.voltage - voltage) / blur) ** 2 - jnp.log(blur)
        stored = jnp.where(jnp.isfinite(start.soc), start.soc, 0.5)
        likely += jnp.where(jnp.isfinite(start.soc), -0.5 * ((grid - stored) / STORED) ** 2, 0.0)
        weight = jax.nn.softmax(likely)
        soc = weight @ grid
        spread = jnp.sqrt(weight @ (grid - soc) ** 2 + (0.5 * (GRID[1] - GRID[0])) ** 2)
        # Of differences, or the sum of dozens of large terms rounds.
        slope = (hat(soc + 0.02, grid) - hat(soc - 0.02, grid)) @ (voltage - voltage[0]) / 0.04

        # The voltage is given: a state of charge that is too high goes with pairs, or an error, that are too low.
        each = jnp.concatenate([jnp.full(self.pairs, wandered / np.sqrt(max(self.pairs, 1))), error_std[None]])
        share = each**2 / jnp.sum(each**2)
        left = each * jnp.sqrt(jnp.maximum(1.0 - share, 0.05))
        n = len(self.units)
        root = jnp.zeros((n, n), dtype).at[0, 0].set(spread)
        explainers = np.r_[1 : 1 + self.pairs, 1 + self.pairs + THETA.index("error")]
        root = root.at[explainers, 0].set(-share * slope * spread).at[explainers, explainers].set(left)
        for name in ("offset", "resistance", "capacity"):
            at = 1 + self.pairs + THETA.index(name)
            root = root.at[at, at].set(theta_std[THETA.index(name)])
        begun = _unshifted(model.init(start._replace(soc=soc)))
        held = jnp.stack([start.current, start.temperature])
        return KalmanState(begun, jnp.zeros(len(THETA), dtype), root / self.units[:, None], held)

    def step(self, state: KalmanState, y: Measurement) -> tuple[KalmanState, Estimate]:
        return self.surprised(state, y)[:2]

    def surprised(self, state: KalmanState, y: Measurement) -> tuple[KalmanState, Estimate, Array, Array]:
        """The step, and besides the voltage's innovation (V) and the variance (V^2) that the filter expected of it."""
        known = measured(y.voltage)
        capacity = _charge(state.model).capacity
        current = jnp.where(jnp.isfinite(y.current), y.current, state.held[0])
        current = jnp.clip(current, -HIGHEST_RATE * capacity, HIGHEST_RATE * capacity)
        temperature = jnp.clip(jnp.where(jnp.isfinite(y.temperature), y.temperature, state.held[1]), *WEATHER)
        u = Input(current, temperature, y.dt)
        _, reading, error_std = self._levels(temperature)
        fade = jnp.exp(-y.dt / jnp.exp(self.noise.error_second))
        hours = y.dt / SECONDS_PER_HOUR
        walk = jnp.exp(self.noise.walk) * jnp.sqrt(hours + 1e-12)
        wander = jnp.concatenate(
            [
                walk[:1],
                jnp.full(self.pairs, walk[1]),
                walk[2:3],
                (error_std / UNITS["error"] * jnp.sqrt(1.0 - fade**2 + 1e-12))[None],
                walk[3:4],
                walk[3:4],
            ]
        )

        def respond(delta: Array) -> tuple[Array, Array]:
            """New state in UNITS, of which only differences count, and voltage, for a deviation from the estimate."""
            after, theta, voltage, _ = self._drive(state, delta, u, fade)
            return self._vector(after, theta), voltage

        after, theta, voltage, drop = self._drive(state, jnp.zeros_like(wander), u, fade)
        reading = jnp.sqrt(reading**2 + (jnp.exp(self.noise.loaded) * drop) ** 2)
        if self.kind == "ekf":
            f, g = jax.jacfwd(respond)(jnp.zeros_like(wander))
            noisy = jnp.concatenate([state.root, jnp.diag(wander)], axis=1)
            moved, seen, shift, mean = f @ noisy, g @ noisy, jnp.zeros_like(wander), voltage
        else:
            moved, seen, shift, mean = self._sigma(respond, state.root, wander, self._vector(after, theta))

        innovation = jnp.clip(jnp.where(known, y.voltage, mean) - mean, -SURPRISE, SURPRISE)
        expected = jnp.sum(seen**2) + reading**2
        doubtful = jnp.maximum(innovation**2 / (self.gate**2 * expected) - 1.0, 0.0)
        blur = jnp.sqrt(reading**2 + doubtful * expected)
        # Volts to units of 10 mV, so that rows are of one size; a voltage that was not measured tells nothing.
        top = jnp.concatenate([jnp.where(known, seen, 0.0), blur[None]]) / UNITS["error"]
        below = jnp.concatenate([moved, jnp.zeros((len(wander), 1), moved.dtype)], axis=1)
        root = triangular(jnp.concatenate([top[None], below]))
        gain = root[1:, 0] / root[0, 0]
        correction = shift + gain * (innovation / UNITS["error"])
        after, theta = self._moved(after, theta, correction)
        soc, std = _charge(after).soc, UNITS["soc"] * jnp.sqrt(jnp.sum(root[1, 1:] ** 2))
        state = KalmanState(after, theta, root[1:, 1:], jnp.stack([current, temperature]))
        return state, Estimate(soc, std), innovation, expected

    def _levels(self, temperature: Array) -> tuple[Array, Array, Array]:
        """Standard deviations: of theta at the start [4], of a reading (V) and of e (V) at a temperature."""
        warm = jnp.clip((temperature + 20.0) / 60.0, 0.0, 1.0)
        reading, error = (
            UNITS["error"] * jnp.exp(each[0] + (each[1] - each[0]) * warm)
            for each in (self.noise.reading, self.noise.error)
        )
        start = jnp.exp(self.noise.start)
        units = [UNITS[name] for name in THETA]
        theta = jnp.stack([start[0] * units[0], error, start[1] * units[2], start[2] * units[3]])
        return theta, reading, error

    def _drive(self, state: KalmanState, delta: Array, u: Input, fade: Array) -> tuple[Any, Array, Array, Array]:
        """Model state, theta, voltage and overpotential after the step, from a deviation (in UNITS) before it."""
        before, theta = self._moved(state.model, state.theta, delta, limited=False)
        offset, error, resistance, capacity = (theta[i] * UNITS[name] for i, name in enumerate(THETA))
        reference = _charge(before).capacity
        sensed = SENSED / jnp.maximum(u.dt, SENSED)
        current = (u.current - offset * reference * sensed) * jnp.exp(-capacity)
        after, output = self.base.model.step(before, Input(current, u.temperature, u.dt))
        soc, slope, curve = output.soc, self._slope(output.soc, u.temperature), _curve(self.base.model)
        at_rest = output.voltage if curve is None else curve(soc, u.temperature)
        drop = jnp.exp(resistance) * (output.voltage - at_rest)
        if curve is not None:
            # Its derivative jumps at each node, and with it the filter; the slope over a span does not.
            at_rest = jax.lax.stop_gradient(at_rest) + slope * (soc - jax.lax.stop_gradient(soc))
        kept = jnp.ones_like(theta).at[THETA.index("error")].set(fade)
        return after, theta * kept, at_rest + (drop + self._sideways(slope) * fade * error), drop

    def _slope(self, soc: Array, temperature: Array) -> Array:
        """Slope of the open-circuit voltage around a state of charge, in V; 0 of a model without a curve."""
        curve = _curve(self.base.model)
        if curve is None:
            return 0.0 * soc
        rise = curve(soc + SPAN, temperature) - curve(soc - SPAN, temperature)
        return jax.lax.stop_gradient(rise / (2 * SPAN))

    def _sideways(self, slope: Array) -> Array:
        """The factor m where the curve is as steep as that."""
        return jnp.sqrt(1.0 + (slope / jnp.exp(self.noise.steep)) ** 2)

    def _vector(self, model_state: Any, theta: Array) -> Array:
        soc = _charge(model_state).soc[None] / UNITS["soc"]
        pairs = _node(model_state, TheveninState).pairs / UNITS["pair"] if self.pairs else soc[:0]
        return jnp.concatenate([soc, pairs, theta])

    def _moved(self, model_state: Any, theta: Array, delta: Array, limited: bool = True) -> tuple[Any, Array]:
        """The state moved by `delta` in UNITS, and kept within LIMITS."""
        charge = _charge(model_state)
        soc, theta = charge.soc + UNITS["soc"] * delta[0], theta + delta[1 + self.pairs :]
        if limited:
            soc = jnp.clip(soc, *LIMITS["soc"])
            low, high = (jnp.asarray([LIMITS[n][i] / UNITS[n] for n in THETA], theta.dtype) for i in range(2))
            theta = jnp.clip(theta, low, high)
        model_state = _changed(model_state, Charge, lambda counter: counter._replace(soc=soc))
        if self.pairs:
            pairs = UNITS["pair"] * delta[1 : 1 + self.pairs]
            model_state = _changed(
                model_state, TheveninState, lambda circuit: circuit._replace(pairs=circuit.pairs + pairs)
            )
        return model_state, theta

    def _sigma(self, respond: Any, root: Array, wander: Array, center: Array) -> tuple[Array, Array, Array, Array]:
        """Weighted deviations of the sigma points: of the state, of the voltage; shift of the mean, mean voltage."""
        n = len(wander)
        spread = triangular(jnp.concatenate([root, jnp.diag(wander)], axis=1))
        middle = 1.0 / (n + 1.0) if self.kind == "ukf" else 0.0  # weight of the estimate itself; cubature has none
        reach = float(np.sqrt(n / (1.0 - middle)))
        points = jnp.concatenate([reach * spread.T, -reach * spread.T, jnp.zeros((1, n), root.dtype)])
        states, voltages = jax.vmap(respond)(points)
        weights = jnp.asarray([(1.0 - middle) / (2 * n)] * (2 * n) + [middle], root.dtype)
        states = states - center
        shift, mean = weights @ states, weights @ voltages
        scale = jnp.sqrt(weights)
        return (scale[:, None] * (states - shift)).T, scale * (voltages - mean), shift, mean


class Innovation(NamedTuple):
    """Beside an estimate's `soc`: the innovation of its voltage over the deviation that the filter expected of it,
    squared; NaN where no voltage was measured. Its mean is 1 where the filter is honest (NIS).
    """

    soc: Array
    squared: Array


class Innovations(eqx.Module):
    """A filter that says its innovations in place of its doubt: to judge it, not to use it."""

    filter: Kalman

    def init(self, start: Start) -> KalmanState:
        return self.filter.init(start)

    def step(self, state: KalmanState, y: Measurement) -> tuple[KalmanState, Innovation]:
        state, estimate, innovation, expected = self.filter.surprised(state, y)
        return state, Innovation(estimate.soc, jnp.where(measured(y.voltage), innovation**2 / expected, jnp.nan))


def triangular(m: Array) -> Array:
    """Lower triangular L with L L^T = M M^T, for M [n, at least n]; modified Gram-Schmidt over the rows."""
    columns = []
    n = m.shape[0]
    for i in range(n):
        length = jnp.sqrt(jnp.sum(m[i] ** 2) + 1e-20)
        unit = m[i] / length
        below = m @ unit
        columns.append(jnp.where(np.arange(n) > i, below, jnp.where(np.arange(n) == i, length, 0.0)))
        m = m - jnp.where(np.arange(n)[:, None] > i, below[:, None] * unit, 0.0)
    return jnp.stack(columns, axis=1)


def _node(state: Any, kind: type) -> Any:
    """The one node of its kind in a model's state."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    return next(node for node in nodes if isinstance(node, kind))


def _changed(state: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """A model's state with its nodes of a kind as `change` makes them."""

    def each(node: Any) -> Any:
        return change(node) if isinstance(node, kind) else node

    return jax.tree.map(each, state, is_leaf=lambda node: isinstance(node, kind))


def _charge(state: Any) -> Charge:
    """The one counter in a model's state."""
    return _node(state, Charge)


def _unshifted(state: Any) -> Any:
    """The state without what a circuit reads from its first voltage: that voltage is the filter's first measurement."""
    return _changed(state, TheveninState, lambda circuit: circuit._replace(shift=0.0 * circuit.shift))


def _circuit(model: Any) -> Thevenin | None:
    """The circuit that a model is, or that it corrects."""
    inner = getattr(getattr(model, "base", None), "circuit", None)
    return next((each for each in (model, inner) if isinstance(each, Thevenin)), None)


def _curve(model: Any) -> Any | None:
    """The curve of open-circuit voltage that a model holds, if it holds one."""
    for part in (_circuit(model), model, getattr(model, "static", None)):
        curve = getattr(part, "ocv", None)
        if curve is not None:
            return curve
    return None
