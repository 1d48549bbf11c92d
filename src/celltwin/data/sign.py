"""Which way a log counts its current: positive current must raise the voltage, or the file is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from celltwin.data.record import SECONDS_PER_HOUR, Record

MIN_T = 5.0  # a correlation counts when it stands this many standard errors from zero
MIN_TREND = 0.5  # correlation of voltage with charge, whose samples are not independent
MIN_TREND_AMPERE = 0.02  # below, an offset of the ammeter during relaxation could pass for a load
MIN_TREND_VOLT = 0.02
MIN_STEP = 0.05  # share of the largest current that makes a step of current


@dataclass(frozen=True)
class SignVerdict:
    """What voltage and Ah counter say about the sign of the current, with the evidence.

    "charge": positive current charges, as everything here expects; "contradiction": it does not, or the
    counter runs against it; "undecided": the log holds too little to tell, such as rest alone.
    """

    verdict: Literal["charge", "contradiction", "undecided"]
    because: str  # the evidence in words
    step_resistance_ohm: float  # dV/dI between neighbouring samples; NaN without steps of current
    step_correlation: float  # of dV with dI, -1..1
    trend_correlation: float  # of voltage with charge passed, -1..1
    counter_ratio: float  # Ah by the tester's counter per Ah integrated from current; near 1 if they agree


def check_sign(record: Record) -> SignVerdict:
    """Judge the sign of the record's current by its steps, its slow trend and the tester's Ah counter."""
    piece = np.cumsum(np.isin(np.arange(len(record)), record.gaps))  # numbered stretches between gaps
    resistance, steps, steps_known = _steps(record, piece)
    trend, trend_known = _trend(record, piece)
    ratio, counter_known = counter_ratio(record)

    # Pulses after long rests show in the steps alone, slow discharges in the trend alone, and a logger that
    # writes current a sample late spoils the steps: the stronger of the two decides.
    by_steps = steps_known and not (trend_known and abs(trend) > abs(steps))
    voltage = np.sign(steps) if by_steps else np.sign(trend) if trend_known else 0.0
    counter = np.sign(ratio) if counter_known else 0.0
    words = []
    if by_steps:
        words.append(f"steps of current show {1e3 * resistance:.3g} mOhm (correlation {steps:+.2f})")
    elif trend_known:
        words.append(f"voltage follows the charge with correlation {trend:+.2f}")
    if counter_known:
        words.append(f"the tester's Ah counter goes {ratio:+.2f} Ah per Ah of current")
    if voltage < 0 or counter < 0:
        verdict = "contradiction"
    elif voltage > 0:
        verdict = "charge"
    else:
        verdict = "undecided"
        words.append("no clear step or trend of voltage under load")
    return SignVerdict(verdict, "; ".join(words), resistance, steps, trend, ratio)


def _steps(record: Record, piece: np.ndarray) -> tuple[float, float, bool]:
    """dV/dI, the correlation of dV with dI, and whether it is beyond chance."""
    dv, di = np.diff(record.voltage), np.diff(record.current)
    use = np.isfinite(dv) & (np.diff(piece) == 0)
    dv, di = dv[use], di[use]
    largest = np.abs(record.current).max()
    if len(di) < 3 or largest == 0.0 or np.abs(di).max() < MIN_STEP * largest or not dv.any():
        return float("nan"), float("nan"), False
    resistance = float(dv @ di / (di @ di))
    correlation = float(dv @ di / np.sqrt((dv @ dv) * (di @ di)))
    t = abs(correlation) * np.sqrt((len(di) - 1) / max(1.0 - correlation**2, 1e-12))
    return resistance, correlation, bool(t > MIN_T)


def _trend(record: Record, piece: np.ndarray) -> tuple[float, bool]:
    """Correlation of voltage with charge passed, within the stretches between gaps."""
    known = np.isfinite(record.voltage)
    if known.sum() < 3:
        return float("nan"), False
    charge = np.cumsum(record.current * np.where(np.diff(piece, prepend=0) == 0, record.dt, 0.0))
    voltage, charge, piece = (
        record.voltage[known],
        charge[known],
        np.unique(piece[known], return_inverse=True)[1],
    )
    voltage, charge = (
        column - (np.bincount(piece, column) / np.bincount(piece))[piece] for column in (voltage, charge)
    )
    power = np.sqrt((voltage @ voltage) * (charge @ charge))
    correlation = float(voltage @ charge / power) if power > 0 else float("nan")
    loaded = np.abs(record.current).max() >= MIN_TREND_AMPERE and np.ptp(record.voltage[known]) >= MIN_TREND_VOLT
    return correlation, bool(loaded and abs(correlation) > MIN_TREND)


def counter_ratio(record: Record) -> tuple[float, bool]:
    """Ah by the tester's counter per Ah of current, over steps without gap or reset, and if it is clear."""
    if record.net_capacity is None:
        return float("nan"), False
    counter = record.net_capacity
    counted, integrated = np.diff(counter), (record.current * record.dt)[1:] / SECONDS_PER_HOUR
    # A counter set to zero jumps back by all it held.
    reset = (np.abs(counter[1:]) <= 0.02 * np.abs(counter[:-1])) & (np.abs(counted) > 10.0 * np.abs(integrated))
    use = np.isfinite(counted) & ~reset
    use[record.gaps - 1] = False
    counted, integrated = counted[use], integrated[use]
    power = float(integrated @ integrated)
    if power == 0.0 or not counted.any():
        return float("nan"), False
    ratio = float(counted @ integrated) / power
    correlation = float(counted @ integrated) / np.sqrt(power * float(counted @ counted))
    t = abs(correlation) * np.sqrt((len(counted) - 1) / max(1.0 - correlation**2, 1e-12))
    return ratio, bool(t > MIN_T)
