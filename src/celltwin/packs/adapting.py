"""A pack while it drives: capacity, resistance and rest voltage of each group, from what was heard of it so far.

What a BMS was told of its cells is old, and wrong by a percent or more; which group of many is empty first is decided
by less. From the voltages heard so far, today or on a day before, and never from later ones, each group's

    theta = (log q, log r, u)      min  sum_k dt / T ((V_k(theta) - y_k) / sigma)^2  +  sum_i (theta_i / p_i)^2

with V the closed-loop simulation of the pack, q and r factors on what was told of its cells' capacity and resistance
and u a correction of their voltage at rest: as `celltwin.adaptation` does for one cell. Groups in series hardly feel
each other, so one simulation with the cells of all groups moved gives each group's own slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from celltwin.errors import CelltwinError
from celltwin.learning.pack_training import predict
from celltwin.packs.log import PackLog
from celltwin.packs.score import MILLIVOLT, end_of, score
from celltwin.packs.sensing import of_groups

SIGMA, MEMORY = 0.005, 60.0  # V and s: a pack model's own error, and for how long it stays
DOUBT = np.array([0.02, 0.06, 0.003])  # p: of capacity and resistance, relative, and of a voltage at rest, V
LASTING = np.array([1.0, 1.0, 0.0])  # what of theta is still true on another day
SLIGHT = np.array([0.01, 0.05, 0.002])  # for slopes
STEPS = 2
SHARES = (0.25, 0.5, 0.75)
NOTHING, EARLIER = "nothing yet", "an earlier discharge"  # what was heard


def adapted(model: Any, logs: Sequence[PackLog], samples: Sequence[int]) -> list[PackLog]:
    """The logs, what is known of their cells corrected by the first so many samples of each.

    Raises CelltwinError where fewer than two samples of a log are to be heard.
    """
    found = _found(model, logs, samples)
    return [_moved(log, by) for log, by in zip(logs, found, strict=True)]


def remembered(model: Any, logs: Sequence[PackLog], earlier: Sequence[PackLog]) -> list[PackLog]:
    """The logs, what is known of their cells corrected by one earlier log of the same pack each.

    Capacity and resistance are taken along; what was found of the voltage at rest was of that day.
    """
    found = _found(model, earlier, [len(log) for log in earlier])
    return [_moved(log, by * LASTING) for log, by in zip(logs, found, strict=True)]


def _found(model: Any, logs: Sequence[PackLog], samples: Sequence[int]) -> list[np.ndarray]:
    """theta [groups, 3] of each log."""
    for log, count in zip(logs, samples, strict=True):
        if count < 2:
            raise CelltwinError(f"pack log '{log.name}' is to be adapted to {count} samples", expected="2 or more")
    heard = [log.until(count) for log, count in zip(logs, samples, strict=True)]
    theta = [np.zeros((log.topology.group.max() + 1, len(DOUBT))) for log in logs]

    def voltages(moved: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs = predict(model, [_moved(log, by) for log, by in zip(heard, moved, strict=True)])
        return [of_groups(log, np.asarray(out.voltage, float)) for log, out in zip(heard, outputs, strict=True)]

    for _ in range(STEPS):
        now = voltages(theta)
        ahead = [voltages([t + SLIGHT * one for t in theta]) for one in np.eye(len(DOUBT))]
        for n, log in enumerate(heard):
            slopes = np.stack([(each[n] - now[n]) / slight for each, slight in zip(ahead, SLIGHT, strict=True)], axis=2)
            theta[n] = theta[n] + _step(log, of_groups(log, log.voltage) - now[n], slopes, theta[n])
    return theta


def forecasts(
    model: Any, logs: Sequence[PackLog], cut_off: float, earlier: Sequence[PackLog] = ()
) -> list[dict[str, Any]]:
    """What is known of the end before anything of a log was heard, and when each of SHARES of its discharge was.

    With earlier logs of the same packs, also what is known from them alone. RMSE (mV) over what was not heard, now and
    as told; the share of packs whose weakest group was named, and that of those ended whose end was foretold within
    1 % of its time.
    """
    ends = [end_of(log, log.truth.get("voltage", log.voltage), cut_off).sample for log in logs]
    until = [end if end > 1 else len(log) for end, log in zip(ends, logs, strict=True)]
    nothing = [0] * len(logs)
    ways = [(NOTHING, nothing, list(logs))]
    if earlier:
        ways.append((EARLIER, nothing, remembered(model, logs, earlier)))
    for share in SHARES:
        samples = [max(2, int(share * last)) for last in until]
        ways.append((f"{100 * share:.0f} %", samples, adapted(model, logs, samples)))

    def error(outputs: Sequence[Any], samples: Sequence[int]) -> float:
        parts = zip(logs, outputs, samples, until, strict=True)
        rest = [(np.asarray(out.voltage, float) - log.voltage)[count:last] for log, out, count, last in parts]
        return MILLIVOLT * float(np.mean([np.sqrt(np.nanmean(each**2)) for each in rest]))

    found, as_told = [], predict(model, logs)
    for heard, samples, told in ways:
        outputs = as_told if heard == NOTHING else predict(model, told)
        rows = [score(log, out, cut_off) for log, out in zip(logs, outputs, strict=True)]
        known = [row["end_error"] <= 0.01 for row in rows if row["end_error"] is not None]
        found.append(
            {
                "heard": heard,
                "packs": len(rows),
                "rmse": error(outputs, samples),
                "rmse_as_told": error(as_told, samples),
                "weakest_right": float(np.mean([row["weakest_right"] for row in rows])),
                "end_within_1_percent": float(np.mean(known)) if known else None,
            }
        )
    return found


def _step(log: PackLog, error: np.ndarray, slopes: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Gauss and Newton's step [groups, 3] from errors [time, groups] and slopes [time, groups, 3]."""
    weight = log.dt / MEMORY / SIGMA**2
    known = np.isfinite(error)[:, :, None]
    slopes, error = np.where(known, slopes, 0.0), np.where(known[:, :, 0], error, 0.0)
    prior = np.diag(DOUBT**-2.0)
    normal = weight * np.einsum("tgi,tgj->gij", slopes, slopes) + prior
    right = weight * np.einsum("tgi,tg->gi", slopes, error) - theta @ prior
    return np.linalg.solve(normal, right[:, :, None])[:, :, 0]


def _moved(log: PackLog, theta: np.ndarray) -> PackLog:
    """The log of a BMS that was told so much else of each group, [groups, 3]."""
    capacity, resistance, volts = theta[log.topology.group].T
    old = log.known
    told = [np.where(np.isfinite(x), x, 1.0) for x in (old.capacity, old.resistance)]
    known = old._replace(
        voltage=old.voltage + volts, capacity=told[0] * np.exp(capacity), resistance=told[1] * np.exp(resistance)
    )
    return replace(log, known=known)
