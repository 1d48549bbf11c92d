"""Cells whose parameters are known, and the logs that a cycler would write of them: ground truth for identification.

Plain numpy in double precision; nothing here shares code with the package's physics.

    V = U(soc, T) + R0 I + s asinh(Rct I / s) + sum_i v_i,   v_i <- a_i v_i + (1 - a_i) R_i I,   a_i = exp(-dt / tau_i)

A cell with charge transfer has s asinh(R1 I / s) behind its first pair, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from celltwin.data.record import Cell, Record

LIMITS = (2.8, 4.2)  # V
LEVELS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # states of charge of an HPPC test
FINE = np.linspace(-0.1, 1.1, 1201)
GAS, ZERO, REFERENCE = 8.314, 273.15, 25.0


@dataclass(frozen=True, eq=False)
class Known:
    """A cell of known parameters: every one is a function of state of charge and temperature in degC."""

    name: str
    capacity_ah: float
    curve: np.ndarray  # V, at FINE and 25 degC
    entropy: float  # V/K, at mid charge
    base: np.ndarray  # [1 + N + 1] ohm at 25 degC: R0, R1 ... RN, Rct; 0 for a cell without charge transfer
    wave: np.ndarray  # [1 + N + 1, 3] of the logarithm: slope, wave and rise towards empty
    activation: np.ndarray  # [1 + N + 1] J/mol
    tau_base: np.ndarray  # [N] s
    tau_wave: np.ndarray  # [N, 3]
    tau_activation: np.ndarray  # [N] J/mol
    scale: float = 0.04  # V

    @property
    def pairs(self) -> int:
        return len(self.tau_base)

    @property
    def cell(self) -> Cell:
        return Cell(self.name, self.capacity_ah, LIMITS, self.capacity_ah)

    def ocv(self, soc, temperature):
        soc, temperature = np.broadcast_arrays(np.asarray(soc, float), np.asarray(temperature, float))
        drift = self.entropy * (temperature - REFERENCE) * np.cos(3.0 * (soc - 0.5))
        return np.interp(soc, FINE, self.curve) + drift

    def r0(self, soc, temperature):
        return _law(self.base[0], self.wave[0], self.activation[0], soc, temperature)

    def r(self, soc, temperature):
        """[N, ...] ohm."""
        some = range(1, 1 + self.pairs)
        return np.array([_law(self.base[i], self.wave[i], self.activation[i], soc, temperature) for i in some])

    def tau(self, soc, temperature):
        """[N, ...] s."""
        parts = zip(self.tau_base, self.tau_wave, self.tau_activation, strict=True)
        return np.array([_law(*part, soc, temperature) for part in parts])

    def transfer(self, soc, temperature):
        """Charge-transfer resistance in ohm."""
        return _law(self.base[-1], self.wave[-1], self.activation[-1], soc, temperature)

    def simulate(self, time, current, soc, temperature):
        """Voltage without noise, from rest, and state of charge, for one temperature."""
        dt = np.diff(time, prepend=time[0])
        soc = soc + np.cumsum(current * dt) / (3600.0 * self.capacity_ah)
        voltage = self.ocv(soc, temperature) + self.r0(soc, temperature) * current
        voltage += self.scale * np.arcsinh(self.transfer(soc, temperature) * current / self.scale)
        for i, (resistance, tau) in enumerate(zip(self.r(soc, temperature), self.tau(soc, temperature), strict=True)):
            keep, driven = np.exp(-dt / tau), resistance * current
            if i == 0 and self.base[-1] > 0.0:
                driven = self.scale * np.arcsinh(driven / self.scale)
            drive = (1.0 - keep) * driven
            over, pair = np.empty(len(time)), 0.0
            for k, (a, b) in enumerate(zip(keep.tolist(), drive.tolist(), strict=True)):
                pair = a * pair + b
                over[k] = pair
            voltage += over
        return voltage, soc


def _law(base, wave, activation, soc, temperature):
    """Smooth in state of charge, Arrhenius in temperature."""
    soc = np.asarray(soc, float)
    shape = wave[0] * (soc - 0.5) + wave[1] * np.sin(4.0 * soc) + wave[2] * np.exp(-np.maximum(soc, -0.05) / 0.15)
    cold = activation / GAS * (1.0 / (np.asarray(temperature, float) + ZERO) - 1.0 / (REFERENCE + ZERO))
    return base * np.exp(shape + cold)


def random_cell(seed: int, pairs: int = 2, transfer: bool = False) -> Known:
    """A cell of 1 to 5 Ah drawn at random, its time constants a factor of 5 or more apart."""
    draw = np.random.default_rng([20, seed])
    capacity = draw.uniform(1.0, 5.0)
    slope = np.ones(len(FINE)) + draw.uniform(8.0, 20.0) * np.exp(-np.maximum(FINE, 0.0) / draw.uniform(0.03, 0.06))
    for _ in range(3):
        slope += draw.uniform(0.3, 2.0) * np.exp(
            -0.5 * ((FINE - draw.uniform(0.1, 0.95)) / draw.uniform(0.05, 0.12)) ** 2
        )
    slope += 60.0 / (1.0 + np.exp(FINE / 0.004))  # empty is empty
    curve = np.cumsum(slope) * (FINE[1] - FINE[0])
    empty, full = np.interp([0.0, 1.0], FINE, curve)
    low, high = draw.uniform(3.0, 3.2), draw.uniform(4.15, 4.19)
    curve = low + (high - low) * (curve - empty) / (full - empty)
    total = draw.uniform(0.06, 0.12) / capacity  # V at 1 C, split over the elements
    share = np.r_[draw.uniform(0.3, 0.5), draw.uniform(0.15, 0.4, pairs)]
    share = np.r_[share / share.sum(), draw.uniform(0.2, 0.4) if transfer else 0.0]
    size = len(share)

    def waves(count):
        spread = draw.normal(size=(count, 3)) * (0.15, 0.08, 0.1)
        return spread + np.array([0.0, 0.0, 0.2])

    longest = {1: (20.0, 120.0), 2: (3.0, 15.0), 3: (1.0, 3.0)}[pairs]
    tau = [draw.uniform(*longest)]
    for _ in range(pairs - 1):
        tau.append(tau[-1] * draw.uniform(6.0, 20.0 if pairs == 2 else 10.0))
    # What keeps them apart at every state of charge and temperature: they vary alike but for a little.
    tau_wave = 0.5 * waves(1) + 0.2 * draw.normal(size=(pairs, 3)) * (0.15, 0.08, 0.1)
    return Known(
        f"cell {seed}",
        capacity,
        curve,
        draw.uniform(-2e-4, 2e-4),
        total * share,
        waves(size),
        draw.uniform(15e3, 35e3, size),
        np.array(tau),
        tau_wave,
        np.full(pairs, draw.uniform(0.0, 8e3)),
    )


# --- what a cycler does ----------------------------------------------------------------------------------------------


def phase(duration: float, period: float) -> np.ndarray:
    """Times of the samples of a phase: fast after its start, then ever slower, the last at its end."""
    if duration <= 60.0:
        return np.linspace(0.0, duration, 1 + round(duration / period))[1:]
    parts = [(20.0, period), (60.0, max(period, 1.0)), (600.0, max(period, 10.0)), (np.inf, max(period, 60.0))]
    times, begin = [], 0.0
    for until, every in parts:
        until = min(until, duration)
        if until > begin:
            times.append(np.linspace(begin, until, 1 + max(1, round((until - begin) / every)))[1:])
            begin = until
    return np.concatenate(times)


def log(
    known: Known,
    name: str,
    phases: Iterable[tuple[float, float]],
    ambient: float = 25.0,
    *,
    noise: float = 1e-3,
    seed: int = 0,
    period: float = 0.1,
    soc: float = 1.0,
) -> Record:
    """A log of phases (current in A, duration in s); the lower voltage limit ends the test with an hour's rest."""
    time, current = [np.zeros(1)], [np.zeros(1)]
    for ampere, duration in phases:
        some = phase(duration, period)
        time.append(time[-1][-1] + some)
        current.append(np.full(len(some), ampere))
    time, current = np.concatenate(time), np.concatenate(current)
    voltage, _ = known.simulate(time, current, soc, ambient)
    empty = np.flatnonzero((voltage < LIMITS[0]) & (current < 0))
    if len(empty):
        stop = int(empty[0]) + 1
        rest = phase(3600.0, period)
        time = np.r_[time[:stop], time[stop - 1] + rest]
        current = np.r_[current[:stop], np.zeros(len(rest))]
        voltage, _ = known.simulate(time, current, soc, ambient)
    draw = np.random.default_rng([21, seed])
    voltage = voltage + noise * draw.normal(size=len(time))
    return Record(name, time, voltage, current, np.full(len(time), float(ambient)), ambient_degC=float(ambient))


def hppc(
    known: Known,
    ambient: float = 25.0,
    *,
    noise: float = 1e-3,
    seed: int = 0,
    period: float = 0.1,
    levels: Iterable[float] = LEVELS,
) -> Record:
    """Pulses at states of charge from full to nearly empty, C/3 and an hour's rest between them."""
    one, phases, soc = known.capacity_ah, [(0.0, 600.0)], 1.0
    for level in levels:
        if soc - level > 0.003:
            seconds = 3.0 * 3600.0 * (soc - level)
            phases += [(-one / 3.0, seconds), (0.0, 3600.0)]
            soc = level
        phases += [(-one, 10.0), (0.0, 40.0), (-2.0 * one, 10.0), (0.0, 40.0)]
        soc -= 30.0 / 3600.0
        if level < 0.95:  # a full cell is not charged
            phases.append((one, 10.0))
            soc += 10.0 / 3600.0
        phases.append((0.0, 600.0))
    return log(known, "HPPC", phases, ambient, noise=noise, seed=seed, period=period)


def slow_discharge(
    known: Known, ambient: float = 25.0, *, rate: float = 1.0 / 20.0, noise: float = 1e-3, seed: int = 0
) -> Record:
    """From full to the lower voltage limit, and an hour's rest."""
    phases = [(0.0, 600.0), (-rate * known.capacity_ah, 1.1 * 3600.0 / rate)]
    return log(known, "C20", phases, ambient, noise=noise, seed=seed + 1000, period=10.0)
