"""Polynomial NARX: an equation that can be read, its terms chosen one by one.

    e_k = sum_n w_n b_n(k) p_n(soc_k, T_k)        V_k = U(soc, T) + R(T) I + 0.1 V e_k

    b: 1, the rate i = I / capacity, a = asinh(i / 0.2), leaky memories of i, a and of the model's own past e
    p: a monomial of s = soc, c = 1000 (1/T - 1/298 K) and l = exp(-10 soc)

Forward regression with orthogonal least squares (Chen, Billings and Luo, Int. J. Control 50 (1989) 1873; Billings,
Nonlinear System Identification, 2013, ch. 3): each step adds the term that explains most of the variance that is left,
its error reduction ratio, until records left out in turn no longer gain. Terms are chosen with the measured e as past.
Then the weights are fitted again with the e that the model itself simulates, as pseudo-linear regression (Ljung, System
Identification, 1999, ch. 10.4), as long as the simulation improves. An equation with past e competes with one without;
the better simulation of the training records wins. What is fed back is clipped, so that no equation runs away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record
from celltwin.interface import CHUNK, Input, Output, Start, inputs_of, start_of
from celltwin.models.baselines import Ohmic
from celltwin.models.layers import remember
from celltwin.models.narx import UNIT
from celltwin.models.regression import Normal, pieces, sum_of
from celltwin.physics.charge import Charge, advance, full_of
from celltwin.physics.tables import KELVIN, asinh, inverse_temperature

RATES = (3.0, 30.0, 300.0, 3000.0)  # s, memories of i
BENT = (10.0, 100.0, 1000.0)  # s, memories of a
PASTS = (30.0, 300.0)  # s, memories of e
BASES = ("1", "i", "a", *(f"i~{t:g}s" for t in RATES), *(f"a~{t:g}s" for t in BENT), *(f"e~{t:g}s" for t in PASTS))
MONOMIALS = ("1", "s", "s^2", "s^3", "c", "c^2", "s c", "s^2 c", "s c^2", "l", "l c")
SMALL = 0.2  # 1/h, where a bends
LARGEST = 5.0  # of e that is fed back, in units of 0.1 V
MOST, LEAST_GAIN = 40, 0.005  # terms; share by which a term must lower the error left out
FOLDS, ROWS, RIDGE, ITERATIONS = 4, 60_000, 1e-6, 4

Term = tuple[int, int]  # places in BASES and MONOMIALS

STATES = (-0.5, 1.5)  # of charge, between which the terms follow it


class NarxPolyState(NamedTuple):
    charge: Charge
    rates: Array  # leaky memories of i
    bent: Array  # of a
    pasts: Array  # of the model's own e


class NarxPoly(eqx.Module):
    """Polynomial NARX on the overpotential beyond OCV and one ohmic resistance."""

    static: Ohmic
    weights: Array  # [terms]
    terms: tuple[Term, ...] = eqx.field(static=True)

    @classmethod
    def create(cls, records: Sequence[Record]) -> NarxPoly:
        """Learn from `records`."""
        static = Ohmic.create(records)
        runs = [[piece for record in records[i::FOLDS] for piece in (record, *pieces(record))] for i in range(FOLDS)]
        runs = [run for run in runs if run]
        stride = max(1, sum(len(piece) for run in runs for piece in run) // ROWS)
        exogenous = tuple((b, m) for b in range(len(BASES) - len(PASTS)) for m in range(len(MONOMIALS)))
        own = tuple((b, m) for b in range(len(BASES) - len(PASTS), len(BASES)) for m in range(len(MONOMIALS)))

        def normal(model: NarxPoly, measured: bool) -> list[Normal]:
            return [_normal(model, run, stride, measured) for run in runs]

        found: list[tuple[float, NarxPoly]] = []
        for candidates in (exogenous, exogenous + own):
            blank = cls(static, jnp.zeros(len(candidates), np.float32), candidates)
            chosen, weights = select(normal(blank, measured=True))
            model = cls(static, jnp.asarray(weights, np.float32), tuple(candidates[n] for n in chosen))
            for _ in range(ITERATIONS):
                seen = sum_of(normal(model, measured=False))
                found.append((seen.error(np.asarray(model.weights, float)), model))
                if found[-1][0] > min(error for error, _ in found) or not any(t in own for t in model.terms):
                    break
                again = seen.solution(range(len(model.terms)), RIDGE)
                model = cls(static, jnp.asarray(again, np.float32), model.terms)
        return min(found, key=lambda each: each[0])[1]

    def equation(self) -> str:
        """The model as text: V in volts, e in units of 0.1 V."""
        parts = []
        for weight, (base, monomial) in zip(np.asarray(self.weights), self.terms, strict=True):
            name = " ".join(part for part in (BASES[base], MONOMIALS[monomial]) if part != "1") or "1"
            parts.append(f"{weight:+.4g} {name}")
        return "V = U(soc) + R(T) I + 0.1 e\ne = " + "\n    ".join(parts)

    def init(self, start: Start) -> NarxPolyState:
        """Rest up to the start: no current has flowed, and what the voltage shows is remembered as e."""
        ohmic = self.static.voltage(start.soc, start.temperature, start.current)
        excess = jnp.clip((start.voltage - ohmic) / UNIT, -3.0, 3.0)
        zero = 0.0 * start.soc
        charge = full_of(start.soc, start.capacity)
        still = (jnp.full(len(RATES), zero), jnp.full(len(BENT), zero))
        return NarxPolyState(charge, *still, jnp.full(len(PASTS), excess))

    def step(self, state: NarxPolyState, u: Input) -> tuple[NarxPolyState, Output]:
        state, features = self._advance(state, u)
        excess = self.weights @ features
        voltage = self.static.voltage(state.charge.soc, u.temperature, u.current) + UNIT * excess
        return self._keep(state, excess, u), Output(voltage, state.charge.soc)

    def _advance(self, state: NarxPolyState, u: Input) -> tuple[NarxPolyState, Array]:
        """The state moved to the end of the step but for e, and the terms there."""
        charge = advance(state.charge, u.current, u.dt)
        rate = u.current / charge.capacity
        bent = asinh(rate / SMALL)
        rates, bents = remember(state.rates, rate, u.dt, RATES), remember(state.bent, bent, u.dt, BENT)
        bases = jnp.concatenate([jnp.stack([jnp.ones_like(rate), rate, bent]), rates, bents, state.pasts])
        # Far beyond what a cell can hold the polynomials would leave every bound.
        s, c = jnp.clip(charge.soc, *STATES), -1000.0 / (25.0 + KELVIN) - inverse_temperature(u.temperature)
        low = jnp.exp(-10.0 * s)
        monomials = jnp.stack(
            [jnp.ones_like(s), s, s * s, s * s * s, c, c * c, s * c, s * s * c, s * c * c, low, low * c]
        )
        place = np.array(self.terms, int).reshape(-1, 2)
        return NarxPolyState(charge, rates, bents, state.pasts), bases[place[:, 0]] * monomials[place[:, 1]]

    def _keep(self, state: NarxPolyState, excess: Array, u: Input) -> NarxPolyState:
        return state._replace(pasts=remember(state.pasts, jnp.clip(excess, -LARGEST, LARGEST), u.dt, PASTS))


def select(folds: Sequence[Normal]) -> tuple[list[int], np.ndarray]:
    """Terms in the order of their error reduction ratios, and their weights, from the normal equations of all terms.

    Orthogonal least squares on these: what a term adds once the chosen ones are projected out of it.
    """
    whole = sum_of(folds)
    square, right = whole.square.copy(), whole.right.copy()
    first = np.diag(square).copy()
    chosen: list[int] = []
    best, left = 0, sum(fold.power for fold in folds)
    while len(chosen) < min(MOST, len(right)):
        power = np.diag(square)
        free = power > 1e-6 * first  # the others are sums of what is chosen
        free[chosen] = False
        if not free.any():
            break
        gain = np.where(free, right**2 / np.where(free, power, 1.0), -1.0)
        n = int(np.argmax(gain))
        column, scale = square[:, n].copy(), power[n]
        right = right - column * (right[n] / scale)
        square = square - np.outer(column, column) / scale
        chosen.append(n)
        error = _left_out(folds, chosen)
        if error < (1.0 - LEAST_GAIN) * left:
            best, left = len(chosen), error
    chosen = chosen[: max(1, best)]
    return chosen, whole.solution(chosen, RIDGE)


def _left_out(folds: Sequence[Normal], chosen: Sequence[int]) -> float:
    """Squared error of a set of terms on folds left out in turn."""
    error = 0.0
    for fold in folds:
        others = [other for other in folds if other is not fold] or [fold]
        weights = np.zeros(len(fold.right))
        weights[list(chosen)] = sum_of(others).solution(chosen, RIDGE)
        error += fold.error(weights)
    return error


@jax.jit
def _terms(model: NarxPoly, start: Start, inputs: Input, past: Array, known: Array) -> tuple[Array, Array]:
    """All terms [time, terms] and the static voltage [time]; e is `past` where it is known, else the model's own."""

    def step(state: NarxPolyState, row: tuple[Input, Array, Array]) -> tuple[NarxPolyState, tuple[Array, Array]]:
        u, measured, is_known = row
        state, features = model._advance(state, u)
        static = model.static.voltage(state.charge.soc, u.temperature, u.current)
        excess = jnp.where(is_known, (measured - static) / UNIT, model.weights @ features)
        return model._keep(state, excess, u), (features, static)

    return jax.lax.scan(step, model.init(start), (inputs, past, known))[1]


def _normal(model: NarxPoly, records: Sequence[Record], stride: int, measured: bool) -> Normal:
    """Normal equations of the model's terms over records, e simulated by the model or measured."""
    total = Normal.zero(len(model.terms))
    pad: Callable[[np.ndarray], np.ndarray] = lambda a: np.pad(a, (0, -len(a) % CHUNK), mode="edge")  # noqa: E731
    for record in records:
        inputs = Input(*(pad(np.asarray(a)) for a in inputs_of(record)))  # pyright: ignore[reportArgumentType]
        known = np.isfinite(record.voltage)
        voltage = np.where(known, record.voltage, 0.0).astype(np.float32)
        seen = _terms(model, start_of(record), inputs, pad(voltage), pad(known & measured))
        features, static = (np.asarray(a, float)[: len(record)][known][::stride] for a in seen)
        total = total.plus(Normal.of(features, (record.voltage[known][::stride] - static) / UNIT))
    return total
