"""Fewer sensors: every group's voltage from a pack model and the voltages of a few groups.

A model's errors e in the groups of a pack go together: what it does not know of the current, the ambient and the cell
at large is wrong in all of them, and the more alike the nearer two groups of a string stand. Measured on other packs,

    C_ij = common + near decay^|i - j| + own [i = j]            across strings: common alone

the errors of the unsensed groups follow from those of the sensed ones at the same time by least squares,

    e_u = C_us (C_ss + v)^-1 e_s                                v: the sensors' own variance

which is simple kriging (Matheron, Economic Geology 58 (1963) 1246). Cells in parallel share their rails, so a group is
what a sensor sees. What is particular to an unsensed group no other group tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from celltwin.errors import CelltwinError
from celltwin.packs.log import PackLog
from celltwin.packs.score import MILLIVOLT, end_of
from celltwin.physics.pack import PackOutput

FAR = 4  # groups: from there on, and between strings, errors have in common what all have
EVERY = (2, 4, 8)  # one group in so many has a sensor


class Kinship(NamedTuple):
    """How a model's errors in the groups of a pack go together: variances in V^2."""

    common: float
    near: float
    decay: float  # from a group to the next
    own: float
    sensor: float

    def covariance(self, log: PackLog) -> np.ndarray:
        """Of the errors of a pack's groups, [groups, groups] in V^2: positive definite, as a sum of such."""
        apart = _distance(log)
        near = self.near * np.where(np.isfinite(apart), self.decay ** np.where(np.isfinite(apart), apart, 0.0), 0.0)
        return self.common + near + self.own * np.eye(len(apart))


def kinship(logs: Sequence[PackLog], outputs: Sequence[PackOutput], sensor_volt: float) -> Kinship:
    """Measured on packs whose groups all have sensors. Raises CelltwinError where none has two groups."""
    total, count = np.zeros(FAR + 1), np.zeros(FAR + 1)
    for log, out in zip(logs, outputs, strict=True):
        error = of_groups(log, log.voltage) - of_groups(log, np.asarray(out.voltage, float))
        apart = np.minimum(_distance(log), FAR).astype(int).ravel()
        error = error[np.isfinite(error).all(axis=1)]
        total += np.bincount(apart, (error.T @ error).ravel(), FAR + 1)
        count += np.bincount(apart, minlength=FAR + 1) * len(error)
    if not count[1:].any():
        raise CelltwinError("no pack to learn from has two groups", got=f"{len(logs)} packs")
    at = total / np.maximum(count, 1)
    whole = max(at[0] - sensor_volt**2, 0.1 * at[0])
    farthest = int(np.flatnonzero(count)[-1])
    common = min(max(at[farthest], 0.0), whole)
    beside, after = (max(at[d] - common, 0.0) if count[d] else 0.0 for d in (1, 2))
    decay = float(np.clip(after / beside, 0.1, 0.9)) if beside else 0.5
    near = min(beside / decay, whole - common)
    return Kinship(float(common), float(near), decay, float(whole - common - near), sensor_volt**2)


def completed(log: PackLog, out: PackOutput, sensed: np.ndarray, kin: Kinship) -> np.ndarray:
    """Voltage of every group, [time, groups] in V: as measured where `sensed` [groups], else predicted and corrected.

    A sensor that says nothing (NaN) is none for as long.
    """
    predicted, measured = of_groups(log, np.asarray(out.voltage, float)), of_groups(log, log.voltage)
    if sensed.shape != predicted.shape[1:] or sensed.dtype != bool:
        raise CelltwinError(
            f"sensors of pack log '{log.name}'",
            got=f"{sensed.dtype} {sensed.shape}",
            expected=f"true or false for each of {predicted.shape[1]} groups",
        )
    error = np.where(sensed, measured - predicted, np.nan)
    covariance = kin.covariance(log)
    patterns, which = np.unique(np.isfinite(error), axis=0, return_inverse=True)
    corrected = predicted.copy()
    for number, known in enumerate(patterns):
        rows = which.ravel() == number
        inside = covariance[np.ix_(known, known)] + kin.sensor * np.eye(int(known.sum()))
        corrected[rows] += error[np.ix_(rows, known)] @ np.linalg.solve(inside, covariance[known])
    return np.where(np.isfinite(error), measured, corrected)


def saving(logs: Sequence[PackLog], outputs: Sequence[PackOutput], kin: Kinship) -> list[dict[str, Any]]:
    """What fewer sensors cost, for each of EVERY: RMSE (mV) over the unsensed groups up to where the first cell is
    empty, of the model alone, of the sensors alone (the mean of the sensed groups) and of both, and the share of packs
    whose weakest group was named.
    """
    found = []
    for every in EVERY:
        squares: dict[str, list[float]] = {"model": [], "sensors": [], "both": []}
        named = []
        for log, out in zip(logs, outputs, strict=True):
            sensed = np.arange(log.topology.group.max() + 1) % every == every // 2
            if not sensed.any() or sensed.all():
                continue
            real = of_groups(log, log.truth.get("voltage", log.voltage)[: len(log)])
            end = end_of(log, real[:, log.topology.group])
            until = end.sample if end.sample > 1 else len(log)
            both, measured = completed(log, out, sensed, kin), of_groups(log, log.voltage)
            guesses = {
                "model": of_groups(log, np.asarray(out.voltage, float)),
                "sensors": np.repeat(np.nanmean(measured[:, sensed], axis=1)[:, None], len(sensed), axis=1),
                "both": both,
            }
            for name, guess in guesses.items():
                error = (guess - real)[:until, ~sensed]
                squares[name].append(MILLIVOLT * float(np.sqrt(np.nanmean(error**2))))
            named.append(end_of(log, both[:, log.topology.group]).group == end.group)
        if named:
            found.append(
                {"every": every, "packs": len(named), "weakest_right": float(np.mean(named))}
                | {name: float(np.mean(values)) for name, values in squares.items()}
            )
    return found


def of_groups(log: PackLog, voltage: np.ndarray) -> np.ndarray:
    """Mean voltage of each parallel group, [time, groups], from those of the cells; NaN where none is known."""
    group = log.topology.group
    onto = (group[:, None] == np.arange(group.max() + 1)).astype(float)
    known = np.isfinite(voltage)
    with np.errstate(invalid="ignore"):
        return (np.where(known, voltage, 0.0) @ onto) / (known @ onto)


def _distance(log: PackLog) -> np.ndarray:
    """Groups from one to another along their string, infinite between strings: [groups, groups]."""
    group = log.topology.group
    first = np.array([np.argmax(group == g) for g in range(group.max() + 1)])
    row, string = log.topology.place[first, 0].astype(float), log.topology.parents[1]
    return np.where(string[:, None] == string, np.abs(row[:, None] - row), np.inf)
