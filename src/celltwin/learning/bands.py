"""Bands: how far the measured voltage strays from a simulated one, by state of charge and temperature.

    half-width(soc, T) = f q(soc, T)

q is the 90 % quantile of |error| over the *training* cycles in bins of state of charge and temperature, linear between
the bins' middles; a bin of few seconds gives way to its temperature, that one to all samples. The training cycles are
many and tell where a model is weak, but flatter it. So f comes from the *validation* cycles alone: the
ceil((n + 1) level)-th smallest of their n scores |error| / q. This is split-conformal prediction with a scale (Lei et
al., JASA 113, 2018; Papadopoulos et al., ECML 2002). All errors are those of whole closed-loop simulations from a known
start.

What this promises, of bands from validation cycles. If samples were exchangeable, a new one would lie in the band with
at least the stated probability. They are not: errors are slow, and the samples of a cycle rise and fall together. At
best whole cycles are exchangeable; then the band holds about the stated share of the samples of *many* new cycles,
while a single cycle may lie well below or above; to promise 90 % of it, whatever the distribution, takes nine
validation cycles and more. Nothing is promised for another cell, an aged one, another kind of driving, or outside the
training domain. Where the validation cycles are harder than those to come, bands are too wide; where they are easier,
too narrow. They also chose the best round of training, which flatters f a little.

With folds there are more cycles that no model saw. Each training cycle is simulated by a model that was trained
without it; these errors give q, and f together with those of the validation cycles, in the manner of cross-conformal
prediction (Vovk, Annals of Mathematics and AI 74, 2015) by drive cycle. Without its guarantee: q and f are from the
same errors, and the band lies about another model, which saw all cycles. The models of the folds saw less, which widens
bands. What these hold is looked at by leaving out one cycle at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from celltwin.data.record import Record
from celltwin.interface import simulate_records

LEVEL = 0.9  # share of samples that a band is to hold
SOC_BINS = 10
KELVIN = 15.0  # width of a bin of temperature
SETTLING = 1000.0  # s: a bin of this much time counts half, what stands in for it the other half
LEAST = 1e-4  # V, the least quantile: beyond it a tester does not measure


@dataclass(frozen=True)
class Bands:
    """Half-widths in V over the middles of the bins, constant beyond the outermost."""

    temperature_degC: tuple[float, ...]
    half_width_volt: tuple[tuple[float, ...], ...]  # [temperature][state of charge]
    level: float = LEVEL
    inflation: float = 1.0  # f: how much larger errors are on cycles that were not seen than where q is from
    cycles: int = 0  # cycles, not seen in training, that f was measured on

    @classmethod
    def of(cls, described: dict[str, Any]) -> Bands:
        """From JSON. Raises KeyError, TypeError or ValueError where it describes no bands."""
        middles, width = (np.asarray(described[k], np.float64) for k in ("temperature_degC", "half_width_volt"))
        if width.shape[:1] != middles.shape or width.ndim != 2 or not (width.size and np.all(width > 0)):
            raise ValueError("its bands are no table of half-widths")
        return cls(**described | {"temperature_degC": tuple(middles.tolist()), "half_width_volt": _tuples(width)})

    def half_width(self, soc: Any, temperature: Any) -> np.ndarray:
        """Half-width (V) at each sample, for states of charge (fractions) and temperatures (degC): [time]."""
        width = np.asarray(self.half_width_volt)
        middles = (np.arange(width.shape[1]) + 0.5) / width.shape[1]
        return np.einsum("ti,ij,tj->t", _hats(temperature, self.temperature_degC), width, _hats(soc, middles))


def _tuples(table: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, table.tolist()))


def _hats(x: Any, nodes: Any) -> np.ndarray:
    """Weights of linear interpolation between nodes, [len(x), nodes]."""
    return np.stack([np.interp(x, nodes, one) for one in np.eye(len(nodes))], axis=1)


@dataclass(frozen=True, eq=False)
class Errors:
    """Absolute errors (V) of one simulated record where its voltage was measured, and where they occurred."""

    size: np.ndarray
    soc: np.ndarray  # fraction, as the model counts it
    temperature: np.ndarray  # degC, as measured
    seconds: float  # a sample


def errors_of(model: Any, records: Sequence[Record]) -> list[Errors]:
    """Errors of the closed-loop simulations of whole records, one a record."""
    made = []
    for record, output in zip(records, simulate_records(model, records) if records else (), strict=True):
        known = np.isfinite(record.voltage)
        size = np.abs(np.asarray(output.voltage, np.float64) - record.voltage)[known]
        soc, temperature = np.asarray(output.soc, np.float64)[known], record.filled_temperature[known]
        made.append(Errors(size, soc, temperature, float(np.median(record.dt[1:])) if len(record) > 1 else 0.0))
    return made


def rmse(errors: Sequence[Errors]) -> float:
    """Mean over records, in mV, as `evaluation.protocol` has it."""
    return 1e3 * float(np.mean([np.sqrt(np.mean(one.size**2)) for one in errors]))


def conformal_quantile(scores: np.ndarray, level: float = LEVEL) -> float:
    """The ceil((n + 1) level)-th smallest of n scores; infinite where n is too small for the level."""
    rank = ceil((len(scores) + 1) * level)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else float("inf")


def calibrate(trained: Sequence[Errors], held: Sequence[Errors], level: float = LEVEL) -> Bands | None:
    """Bands of the shape of the errors `trained` and the size of those that were `held` back; None without enough."""
    if not held or not any(len(one.size) for one in trained):
        return None
    shape = _shape(trained, level)
    scores = np.concatenate([one.size / shape.half_width(one.soc, one.temperature) for one in held])
    factor = conformal_quantile(scores, level)
    if not np.isfinite(factor):
        return None
    widened = _tuples(factor * np.asarray(shape.half_width_volt))
    return replace(shape, half_width_volt=widened, inflation=factor, cycles=len(held))


def _shape(errors: Sequence[Errors], level: float) -> Bands:
    """The quantile of errors per bin."""
    size, soc, temperature = (np.concatenate([getattr(e, k) for e in errors]) for k in ("size", "soc", "temperature"))
    seconds = np.concatenate([np.full(len(e.size), e.seconds) for e in errors])
    column = np.clip(soc * SOC_BINS, 0, SOC_BINS - 1).astype(int)
    row = np.floor(temperature / KELVIN).astype(int)
    rows = np.arange(row.min(), row.max() + 1)

    def quantile(here: np.ndarray, otherwise: float) -> float:
        time = float(seconds[here].sum())
        if not time:
            return otherwise
        return (time * float(np.quantile(size[here], level)) + SETTLING * otherwise) / (time + SETTLING)

    pooled = max(float(np.quantile(size, level)), LEAST)
    width = []
    for r in rows:
        of_temperature = quantile(row == r, pooled)
        bins = [quantile((row == r) & (column == c), of_temperature) for c in range(SOC_BINS)]
        width.append(tuple(max(value, LEAST) for value in bins))
    return Bands(tuple(((rows + 0.5) * KELVIN).tolist()), tuple(width), level)
