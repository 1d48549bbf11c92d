"""What a pack model is judged by: every cell's voltage, the weakest cell and when it is empty, and faults it shows.

Errors are predicted minus measured, in closed loop from the first sample to where the first cell is empty, over all
cells. The end of discharge is the first sample at which any cell is below the cut-off. Faults are found in the residual
measured minus predicted, less its median over the pack, by least squares for each cell,

    e(t) = c + d t + r I(t)

where r is taken relative to the median of the same fit to the predicted voltages, for cells of a cold pack differ by
more ohms. A resistance that rose shows in r, self-discharge in d, and a joint that came loose on the way in the r of
what comes after less that of what came before, at whichever of ONSETS it is largest. A cell is reported where this is
beyond what 1 % of healthy cells show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from celltwin.packs.draw import CUT_OFF
from celltwin.packs.log import PackLog
from celltwin.packs.study import empty_at
from celltwin.physics.pack import PackOutput

MILLIVOLT = 1e3
FALSE_ALARMS = 0.01  # share of healthy cells
ONSETS = (0.25, 0.5, 0.75)  # shares of a log after which a joint may have come loose


class End(NamedTuple):
    """When a pack is empty, and which parallel group ends it."""

    sample: int  # -1: not within the log
    group: int


def end_of(log: PackLog, voltage: np.ndarray, cut_off: float = CUT_OFF) -> End:
    """The end of discharge in voltages [time, cells]; where none falls below, the group that is lowest at the end."""
    at, cell = empty_at(voltage, cut_off)
    return End(at, int(log.topology.group[cell if at >= 0 else int(np.argmin(voltage[-1]))]))


def score(log: PackLog, out: PackOutput, cut_off: float = CUT_OFF) -> dict[str, Any]:
    """Figures of one simulation of one log; voltages in mV, temperatures in K, shares as fractions."""
    real = log.truth.get("voltage", log.voltage)  # without noise, for what is no error of voltage
    measured, predicted = end_of(log, real, cut_off), end_of(log, np.asarray(out.voltage), cut_off)
    until = measured.sample if measured.sample > 1 else len(log)
    error = MILLIVOLT * (np.asarray(out.voltage, float) - log.voltage)[:until]
    known = np.isfinite(error)
    squares = np.where(known, error, 0.0) ** 2
    cells = np.sqrt(squares.sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    warm = (np.asarray(out.temperature) - log.temperature)[:until]
    figures: dict[str, Any] = {
        "log": log.name,
        "topology": log.topology.name,
        "cells": log.topology.cells,
        "rmse": float(np.sqrt(squares.sum() / known.sum())),
        "worst_cell_rmse": float(cells.max()),
        "worst_cell": int(cells.argmax()),
        "max": float(np.abs(np.where(known, error, 0.0)).max()),
        "temperature_rmse": float(np.sqrt(np.nanmean(warm**2))) if np.isfinite(warm).any() else None,
        "weakest": measured.group,
        "weakest_predicted": predicted.group,
        "weakest_right": measured.group == predicted.group,
        "end_second": measured.sample * log.dt if measured.sample > 0 else None,
        "end_error": None,
    }
    if "soc" in log.truth:
        soc = np.asarray(out.soc)[:until] - log.truth["soc"][:until]
        figures["soc_rmse"] = 100.0 * float(np.sqrt(np.mean(soc**2)))
    if measured.sample > 0:
        # A forecast beyond the log is at least as late as the log is long.
        at = predicted.sample if predicted.sample > 0 else len(log)
        figures["end_error"] = abs(at - measured.sample) / measured.sample
        figures["end_censored"] = predicted.sample < 0
    return figures


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over logs, and the shares of logs whose weakest group was named and whose end was within 1 %."""
    ends = [row["end_error"] for row in rows if row["end_error"] is not None]
    socs = [row["soc_rmse"] for row in rows if "soc_rmse" in row]
    warm = [row["temperature_rmse"] for row in rows if row["temperature_rmse"] is not None]
    return {
        "packs": len(rows),
        "rmse": float(np.mean([row["rmse"] for row in rows])),
        "max": float(np.max([row["max"] for row in rows])),
        "temperature_rmse": float(np.mean(warm)) if warm else None,
        "soc_rmse": float(np.mean(socs)) if socs else None,
        "weakest_right": float(np.mean([row["weakest_right"] for row in rows])),
        "ends": len(ends),
        "end_error": float(np.median(ends)) if ends else None,
        "end_within_1_percent": float(np.mean(np.array(ends) <= 0.01)) if ends else None,
    }


class Signs(NamedTuple):
    """What the residual of each cell shows, [cells]."""

    resistance: np.ndarray  # as a share of what the pack's cells have at the time
    drift: np.ndarray  # V/s, positive where the cell falls behind
    loosened: np.ndarray  # share that came on the way


SHOWN_BY = {"resistance": "resistance", "self-discharge": "drift", "loose joint": "loosened"}


def signs(log: PackLog, out: PackOutput) -> Signs:
    """Least-squares signs of faults in measured minus predicted voltages."""
    residual = log.voltage - np.asarray(out.voltage, float)
    residual = residual - np.nanmedian(residual, axis=1, keepdims=True)
    time = np.arange(len(log)) * log.dt
    current = np.asarray(out.current, float)

    def fitted(part: slice, residual: np.ndarray = residual) -> np.ndarray:
        found = []
        for k in range(residual.shape[1]):
            design = np.stack([np.ones(len(time[part])), time[part] - time[part].mean(), current[part, k]], axis=1)
            known = np.isfinite(residual[part, k])
            found.append(np.linalg.lstsq(design[known], residual[part, k][known], rcond=None)[0])
        return np.array(found)

    whole = fitted(slice(None))
    edges = [int(share * len(log)) for share in ONSETS]
    came = [fitted(slice(edge, None))[:, 2] - fitted(slice(0, edge))[:, 2] for edge in edges]
    typical = float(np.median(fitted(slice(None), np.asarray(out.voltage, float))[:, 2]))
    return Signs(whole[:, 2] / typical, -whole[:, 1], np.max(came, axis=0) / typical)


def limits(healthy: Sequence[Signs]) -> Signs:
    """What FALSE_ALARMS of healthy cells exceed."""
    return Signs(*(np.quantile(np.concatenate(x), 1.0 - FALSE_ALARMS) for x in zip(*healthy, strict=True)))


def detection(kind: str, found: Sequence[Signs], logs: Sequence[PackLog], limit: Signs) -> dict[str, Any]:
    """How often a fault of a kind was reported in the group that has it, and how often it was the strongest sign."""
    field = SHOWN_BY[kind]
    hit, first = [], []
    for sign, log in zip(found, logs, strict=True):
        group = log.topology.group
        mine = group == group[log.truth["faulty"]]
        values = getattr(sign, field)
        hit.append(bool((values[mine] > getattr(limit, field)).any()))
        first.append(bool(mine[int(np.argmax(values))]))
    widths = [int((log.topology.group == log.topology.group[log.truth["faulty"]]).sum()) for log in logs]
    by_width = {
        str(width): float(np.mean([h for h, w in zip(hit, widths, strict=True) if w == width]))
        for width in sorted(set(widths))
    }
    return {
        "fault": kind,
        "packs": len(logs),
        "detected": float(np.mean(hit)),
        "located": float(np.mean(first)),
        "detected_by_cells_in_parallel": by_width,
    }
