"""A linear circuit by separable least squares, and how many RC pairs the logs can tell apart.

With the time constants given, the overpotential V - U is linear in all resistances: R0 times the current and R_i times
the current seen through a first-order lag. So the normal equations of a whole grid of time constants are summed once,
and every choice among them is a small linear problem (variable projection; Golub and Pereyra, SIAM J. Numer. Anal. 10
(1973) 413). The result is where the refinement through the rollout begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NamedTuple

import jax
import numpy as np

from celltwin.data.record import Record
from celltwin.physics.ocv import interpolation
from celltwin.physics.recurrence import linear_recurrence

MOST_PAIRS = 4
PER_DECADE = 12  # time constants that are tried
CLOSE = 2.0  # pairs whose time constants differ by less than this factor are one
WORTHWHILE = 0.05  # a further pair must lower the error by this share, beyond what the criterion asks
NEGLIGIBLE = 5e-4  # V: errors below this are as good as none, no pair is added for their sake
BENT = 0.1  # share of the squared error that a charge transfer must explain to be included
SCALE = 0.04  # V, of the charge transfer that is tried
RESTING = 10.0  # samples that a relaxed voltage counts for: a pair must explain more than an error of the OCV does


class Excitation(NamedTuple):
    """One run as least squares sees it."""

    current: np.ndarray  # A
    dt: np.ndarray  # s
    overpotential: np.ndarray  # V, measured voltage less open-circuit voltage
    weight: np.ndarray  # [samples], 0 where nothing was measured
    charged: np.ndarray  # [samples, levels] interpolation weights over state of charge


@dataclass(frozen=True)
class Candidate:
    """A number of RC pairs and what it achieves."""

    pairs: int
    time_constants: tuple[float, ...]  # s
    which: tuple[int, ...]  # of the time constants that were tried
    rmse: float  # V
    criterion: float  # Bayesian information criterion, for the effective number of samples


def excitation(run: Record, ocv: np.ndarray, levels: np.ndarray, weight: np.ndarray) -> Excitation:
    """A run, its open-circuit voltage [samples] and the weight of its samples."""
    known = np.isfinite(run.voltage)
    over = np.where(known, run.voltage - ocv, 0.0)
    return Excitation(run.current, run.dt, over, weight * known, interpolation(run.soc, levels))


@jax.jit
def _lagged(current: jax.Array, dt: jax.Array, tau: jax.Array) -> jax.Array:
    keep = jax.numpy.exp(-dt[:, None] / tau)
    return linear_recurrence(keep, (1.0 - keep) * current[:, None], 0.0 * tau)


def lagged(run: Excitation, tau: Sequence[float], multiple: int = 1024) -> np.ndarray:
    """The current seen through lags of `tau`, [samples, pairs]."""
    size = -(-len(run.current) // multiple) * multiple
    padded = [np.pad(x, (0, size - len(run.current))).astype(np.float32) for x in (run.current, run.dt)]
    return np.asarray(_lagged(*padded, np.asarray(tau, np.float32)), float)[: len(run.current)]


class Normal(NamedTuple):
    """Normal equations of all drives at once: R0, pairs, a charge transfer and, last, an offset of the OCV."""

    matrix: np.ndarray  # [drives, levels, drives, levels]
    right: np.ndarray  # [drives, levels]
    square: float  # V^2, of the overpotential
    weight: float
    tau: tuple[float, ...]


def normal_equations(runs: Sequence[Excitation], tau: Sequence[float]) -> Normal:
    """Accumulated over runs, once for every choice among `tau`."""
    drives, levels = 3 + len(tau), runs[0].charged.shape[1]
    matrix, right = np.zeros((drives * levels,) * 2), np.zeros(drives * levels)
    loaded = np.concatenate([(r.overpotential[r.current != 0] / r.current[r.current != 0]) for r in runs])
    typical = 0.3 * float(np.median(np.abs(loaded))) if len(loaded) else 1e-3
    for run in runs:
        transfer = SCALE * np.arcsinh(typical * run.current / SCALE) / typical
        drive = np.column_stack([run.current, lagged(run, tau), transfer, np.ones(len(run.current))])
        design = (drive[:, :, None] * run.charged[:, None, :]).reshape(len(drive), -1)
        weighted = design * run.weight[:, None]
        matrix += weighted.T @ design
        right += weighted.T @ run.overpotential
    square = sum(float(np.sum(run.weight * run.overpotential**2)) for run in runs)
    weight = sum(float(np.sum(run.weight)) for run in runs)
    shape = (drives, levels)
    return Normal(matrix.reshape(*shape, *shape), right.reshape(shape), square, weight, tuple(tau))


def resistances(normal: Normal, which: Sequence[int], bent: bool = False) -> tuple[np.ndarray, float]:
    """Resistances [1 + N (+ 1), levels] in ohm with the pairs `which`, and the mean square left.

    The open-circuit voltage is free to move at each level, else a pair is made of what it is wrong by.
    """
    last = len(normal.tau) + 1
    index = [0, *(1 + i for i in which), *([last] if bent else []), last + 1]
    levels = normal.right.shape[1]
    matrix = normal.matrix[index][:, :, index].reshape(len(index) * levels, -1)
    right = normal.right[index].ravel()
    # A whisker of smoothness settles levels that no run excites.
    bend = np.diff(np.eye(levels), axis=0)
    smooth = np.kron(np.eye(len(index)), bend.T @ bend)
    damped = matrix + 1e-4 * matrix.trace() / len(matrix) * (smooth + 1e-4 * np.eye(len(matrix)))
    damped[-levels:, -levels:] = matrix[-levels:, -levels:] + RESTING * np.eye(levels)
    solution = np.linalg.solve(damped, right)
    left = normal.square - 2 * solution @ right + solution @ matrix @ solution
    return solution.reshape(len(index), levels)[:-1], max(float(left), 1e-12 * normal.square) / normal.weight


def candidates(normal: Normal, samples: float) -> list[Candidate]:
    """The best one to four among the time constants, for a number of independent samples.

    All combinations of two are tried. Beyond, pairs are added one by one, and after each any is exchanged for another
    time constant while that helps.
    """
    found: list[Candidate] = []
    best: list[int] = []

    def nearest(sets: list[list[int]]) -> tuple[float, list[int]]:
        apart = [sorted(s) for s in sets if _apart([normal.tau[i] for i in sorted(s)])]
        return min(((resistances(normal, s)[1], s) for s in apart), default=(np.inf, []))

    every = range(len(normal.tau))
    for pairs in range(1, MOST_PAIRS + 1):
        square, best = nearest(list(map(list, combinations(every, 2))) if pairs == 2 else [[*best, i] for i in every])
        if not best:  # no room for another
            break
        for _ in range(20):
            better, exchanged = nearest([[*best[:k], i, *best[k + 1 :]] for k in range(pairs) for i in every])
            if better >= square:
                break
            square, best = better, exchanged
        size = (1 + pairs) * normal.right.shape[1] + pairs
        criterion = samples * np.log(square + NEGLIGIBLE**2) + size * np.log(samples)
        tau = tuple(normal.tau[i] for i in best)
        found.append(Candidate(pairs, tau, tuple(best), float(np.sqrt(square)), float(criterion)))
    return found


def _apart(tau: Sequence[float]) -> bool:
    return all(later > CLOSE * former for former, later in pairwise(tau))


def chosen(found: Sequence[Candidate]) -> Candidate:
    """The least number of pairs after which another is not worth having."""
    best = found[0]
    for candidate in found[1:]:
        if candidate.criterion < best.criterion and candidate.rmse < (1.0 - WORTHWHILE) * best.rmse:
            best = candidate
    return best
