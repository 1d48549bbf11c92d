"""From logs of pulses, rests and slow discharges to the tables of an equivalent circuit."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from celltwin.data.record import Cell, Record
from celltwin.errors import CelltwinError
from celltwin.learning.identification.curves import (
    Rest,
    SlowCurve,
    cycles,
    describe,
    merged,
    open_circuit,
    rests,
    slow_curves,
)
from celltwin.learning.identification.pairs import (
    BENT,
    MOST_PAIRS,
    PER_DECADE,
    SCALE,
    Candidate,
    Normal,
    candidates,
    chosen,
    excitation,
    normal_equations,
    resistances,
)
from celltwin.learning.identification.refine import Problem, refine
from celltwin.learning.identification.segments import PULSE, REST, runs, thinned
from celltwin.physics.charge import HIGHEST, LOWEST
from celltwin.physics.circuit import Circuit
from celltwin.physics.ocv import OCV_NODES
from celltwin.physics.tables import MERGE

SLOWEST = 1800.0  # s: no time constant beyond half of the longest rest, nor beyond this
ALIKE = 10.0  # samples whose errors are taken as alike when RC pairs are counted
BRIEF = 5.0  # s: logs that show nothing faster have no R0 to speak of
CORE = 3.0  # K/W times Ah: core over surface of a cylindrical cell, 1 K/W at 3 Ah (see physics/thermal.py)
HEATED = 0.5  # K by which a surface must have moved for a core to be assumed
BEYOND = 0.02  # state of charge by which a sample may lie outside of the rests, between which the OCV is known
NARROW = 0.3  # of charge: rests that span less leave most of the tables unknown
SHORTER = (600.0, 300.0, 120.0)  # s: rests that are taken where a slow discharge is there and longer ones are not
MUCH = 0.2  # share of the samples that is worth a note where it is not used
APART_BRANCHES = 0.01  # V between slow charge and discharge, beyond resistances, that is worth a note
JITTER = 0.5  # s: the first sample after a step of the current is unsure by its own sampling where that is faster


@dataclass(frozen=True, eq=False)
class Identification:
    """What the logs told, and from what."""

    cell: Cell
    circuit: Circuit
    runs: tuple[Record, ...]  # what was simulated, thinned
    simulated: tuple[np.ndarray, ...]  # V, closed loop from the first sample of each run
    rests: tuple[Rest, ...]
    slow: tuple[SlowCurve, ...]
    candidates: tuple[Candidate, ...]  # numbers of RC pairs that were weighed
    coulombic_efficiency: float  # of the slow cycle; NaN where none is complete
    rmse: float  # V, over all runs
    seconds: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What was inferred, and what the data cannot tell."""
        return self.circuit.notes


def identify(
    records: Sequence[Record],
    cell: Cell | None = None,
    *,
    pairs: int | None = None,
    tick: Callable[[str, float], None] = lambda stage, share: None,
) -> Identification:
    """Identify the circuit of a cell from logs of HPPC, GITT, pulse tests, slow discharges or drive cycles.

    Without `cell` its capacity, voltage limits and states of charge are inferred from the logs. `pairs` fixes the
    number of RC pairs, else a criterion chooses. `tick` hears what is being done and the share of it.

    Raises CelltwinError where the logs hold nothing to identify a circuit from.
    """
    began = clock.monotonic()
    if not records:
        raise CelltwinError("nothing to identify a circuit from", got="no log", expected="at least one")
    tick("reading", 0.0)
    cell, placed, notes = describe(records, cell)
    capacity = cell.reference_capacity_ah
    whole = [
        _at_its_ambient(run, record, capacity)
        for record, described in zip(records, placed, strict=True)
        for run in runs(described, capacity)
    ]
    if not whole:
        raise CelltwinError(
            "nothing to identify resistances from",
            got=f"{len(records)} logs without pulses or steps of current that begin rested and discharge the cell",
            expected="an HPPC, GITT, pulse or drive-cycle log beside slow discharges",
            fix="add the log of a pulse test that goes from full to empty: what follows a long charge is not used",
        )
    used = [thinned(run, capacity) for run in whole]
    slow = [curve for record in placed for curve in slow_curves(record)]
    points = [point for run in whole for point in rests(run)]
    if _span(points) < NARROW and slow:
        points, least = _short_rests(whole, points)
        if least:
            notes.append(f"rests of {least:.0f} s are taken for open-circuit voltages, as there are no longer ones")
    _refuse_without_rests(points, slow)
    temperatures = merged(np.array([run.ambient_degC for run in used]), MERGE)
    column = [int(np.argmin(np.abs(temperatures - run.ambient_degC))) for run in used]
    grid = np.r_[LOWEST, OCV_NODES, HIGHEST]
    ocv, levels, trust = open_circuit(points, slow, temperatures.tolist(), grid)
    weights = [_weights(run, capacity, levels) for run in used]
    if len(levels) == 1:
        notes.append(f"all rests are near {100 * levels[0]:.0f} % of charge: no table depends on the charge")
    unused = float(np.mean(np.concatenate([_beyond(run, levels) for run in used])))
    if unused > MUCH:
        notes.append(
            f"{100 * unused:.0f} % of the samples are not used: they lie outside the rests, which are at "
            f"{100 * levels[0]:.0f} to {100 * levels[-1]:.0f} % of charge"
        )

    tick("choosing RC pairs", 0.0)
    excited = [
        excitation(run, np.interp(run.soc, grid, ocv[:, c]), levels, w)
        for run, c, w in zip(used, column, weights, strict=True)
    ]
    shortest, longest = _reach(whole)
    tried = np.geomspace(
        shortest, longest, max(MOST_PAIRS, 1 + int(PER_DECADE * np.log10(longest / shortest)))
    ).tolist()
    normals = [
        normal_equations([e for e, k in zip(excited, column, strict=True) if k == c], tried)
        for c in range(len(temperatures))
    ]
    middle = int(np.argmin(np.abs(temperatures - 25.0)))
    weighed = candidates(normals[middle], normals[middle].weight / ALIKE)
    choice = chosen(weighed) if pairs is None else _asked(weighed, pairs)
    begin = _begin(cell, temperatures, grid, ocv, levels, normals, choice)

    if shortest > BRIEF:
        notes.append(
            f"the logs show nothing faster than {shortest:.0f} s: R0 holds all that is, and no pulse tells them apart"
        )
    tick("refining", 0.0)
    problem = Problem(used, column, weights, begin, trust)
    refined = refine(problem, lambda share: tick("refining", share))
    core = CORE / capacity if any(_heated(run) for run in used) else 0.0
    if core:
        notes.append(f"core assumed {core:.2g} K/W warmer than the surface: pulses and rests do not show it")
    notes += _hysteresis(slow, refined.circuit)
    circuit = replace(
        refined.circuit,
        core_kelvin_per_watt=core,
        notes=(*notes, *refined.confused),
        meta={
            "logs": [record.label for record in records],
            "rc_pairs": [
                {"pairs": c.pairs, "rmse_mV": 1e3 * c.rmse, "criterion": c.criterion, "tau_s": list(c.time_constants)}
                for c in weighed
            ],
            "rmse_mV": 1e3 * refined.rmse,
            "noise_mV": 1e3 * refined.noise,
        },
    )
    return Identification(
        cell,
        circuit,
        tuple(used),
        tuple(refined.simulated),
        tuple(points),
        tuple(slow),
        tuple(weighed),
        _efficiency(slow),
        refined.rmse,
        clock.monotonic() - began,
    )


def _span(points: Sequence[Rest]) -> float:
    """Range of the states of charge of the rests."""
    return float(np.ptp([point.soc for point in points])) if points else 0.0


def _short_rests(whole: Sequence[Record], points: list[Rest]) -> tuple[list[Rest], float]:
    """The longest rests that cover a wide range of charge, and their least duration in s; else `points` and 0."""
    for least in SHORTER:
        found = [point for run in whole for point in rests(run, least)]
        if _span(found) > max(NARROW, 2.0 * _span(points)):
            return found, least
    return points, 0.0


def _refuse_without_rests(points: Sequence[Rest], slow: Sequence[SlowCurve]) -> None:
    """Drive cycles that never rest look as if they told a circuit; they do not tell its open-circuit voltage."""
    span = _span(points)
    if span < 0.1 and not slow:
        raise CelltwinError(
            "these logs do not tell the open-circuit voltage",
            got=f"{len(points)} rests within {100 * span:.0f} % of state of charge, no slow discharge",
            expected="rests of 15 min or more at several states of charge, or a discharge at C/10 or slower",
            fix="add the HPPC or GITT log, or train a circuit on drive cycles with celltwin fit thevenin",
        )


def _asked(weighed: Sequence[Candidate], pairs: int) -> Candidate:
    if not 1 <= pairs <= len(weighed):
        raise CelltwinError(
            "number of RC pairs",
            got=pairs,
            expected=f"1 to {len(weighed)} for these logs",
            fix="leave the choice to the criterion",
        )
    return weighed[pairs - 1]


def _at_its_ambient(run: Record, record: Record, capacity_ah: float) -> Record:
    """A run at the temperature at which it rests, where the ambient of its record was not told: it may be one of many
    in a chamber that went from one temperature to the next.
    """
    calm = run.temperature[np.abs(run.current) < REST * capacity_ah]
    if np.isfinite(record.ambient_degC) or not np.isfinite(calm).any():
        return run
    return replace(run, ambient_degC=float(np.round(np.nanmedian(calm))))


def _heated(run: Record) -> bool:
    known = run.temperature[np.isfinite(run.temperature)]
    return len(known) > 0 and float(np.ptp(known)) > HEATED


def _weights(run: Record, capacity_ah: float, levels: np.ndarray) -> np.ndarray:
    """1 for each sample, 0 for the first after a step that was sampled fast, and beyond the outermost rests."""
    edge = np.abs(np.diff(run.current, prepend=run.current[0])) > REST * capacity_ah
    return np.where((edge & (run.dt < JITTER)) | _beyond(run, levels), 0.0, 1.0)


def _beyond(run: Record, levels: np.ndarray) -> np.ndarray:
    """Samples whose state of charge lies outside the rests."""
    return (run.soc < levels[0] - BEYOND) | (run.soc > levels[-1] + BEYOND)


def _reach(whole: Sequence[Record]) -> tuple[float, float]:
    """Shortest and longest time constant in s that the logs can show: two samples, half a rest."""
    fastest = float(np.quantile(np.concatenate([run.dt[1:] for run in whole]), 0.05))
    longest = max((p.duration for run in whole for p in rests(run, least=PULSE)), default=600.0)
    return max(2.0 * fastest, 0.2), float(np.clip(0.5 * longest, 60.0, SLOWEST))


def _begin(
    cell: Cell,
    temperatures: np.ndarray,
    grid: np.ndarray,
    ocv: np.ndarray,
    levels: np.ndarray,
    normals: Sequence[Normal],
    choice: Candidate,
) -> Circuit:
    """The linear circuit of each temperature, from which the refinement begins."""
    found, bent = [], []
    for normal in normals:
        table, square = resistances(normal, choice.which)
        bent.append(resistances(normal, choice.which, bent=True)[1] < (1.0 - BENT) * square)
        found.append(_positive(table))
    tables = np.stack(found, axis=-1)  # [1 + N, levels, temperatures]
    tau = np.array(choice.time_constants)
    nonlinear, each = any(bent), np.ones(len(temperatures))
    share = 0.3 if nonlinear else 0.0
    return Circuit(
        cell.name,
        cell.reference_capacity_ah,
        cell.voltage_limits_volt,
        temperatures,
        grid,
        ocv,
        levels,
        (1.0 - share) * tables[0],
        tables[1:],
        np.broadcast_to(tau[:, None, None], tables[1:].shape),
        transfer_resistance=share * tables[0] if nonlinear else None,
        transfer_scale=SCALE * each if nonlinear else None,
    )


def _positive(table: np.ndarray) -> np.ndarray:
    """Resistances [1 + N, levels] of which none is below a tenth of its row's median, nor that of a hundredth of R0."""
    floor = np.maximum(0.1 * np.median(table, axis=1, keepdims=True), 0.01 * abs(np.median(table[0])))
    return np.maximum(table, np.maximum(floor, 1e-7))


def _hysteresis(slow: Sequence[SlowCurve], circuit: Circuit) -> list[str]:
    """A note on each slow cycle whose branches lie further apart than the circuit explains."""
    notes = []
    for down, up in cycles(slow):
        soc = np.linspace(0.2, 0.8, 61)
        apart = np.interp(soc, up.soc, up.voltage) - np.interp(soc, down.soc, down.voltage)
        t = int(np.argmin(np.abs(circuit.temperatures - down.temperature)))
        ohmic = np.interp(soc, circuit.soc, (circuit.r0 + circuit.r.sum(axis=0))[:, t])
        gap = float(np.median(apart))
        left = float(np.median(apart - ohmic * (up.current - down.current)))
        if left > APART_BRANCHES:
            notes.append(
                f"{down.label}: slow charge and discharge lie {1e3 * gap:.0f} mV apart, {1e3 * left:.0f} mV more than "
                "resistances explain; this circuit has no hysteresis: celltwin fit thevenin-hysteresis trains one"
            )
    return notes


def _efficiency(slow: Sequence[SlowCurve]) -> float:
    """Charge given back per charge taken, of the slow cycle nearest 25 degC that is complete both ways."""
    best, found = np.inf, float("nan")
    for discharge, charge in cycles(slow):
        if abs(discharge.temperature - 25.0) < best:
            best, found = abs(discharge.temperature - 25.0), -discharge.charge_ah / charge.charge_ah
    return found
