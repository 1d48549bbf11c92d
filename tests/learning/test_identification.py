"""Identification against cells whose parameters are known; what it says where the data cannot tell."""

from dataclasses import replace

import numpy as np
import pytest

import pulses
from celltwin.data.record import Record
from celltwin.errors import CelltwinError
from celltwin.interface import simulate_records
from celltwin.learning.identification import identify
from celltwin.learning.identification.curves import describe, rests, slow_curves
from celltwin.learning.identification.refine import Layout, _as_published, _held
from celltwin.learning.identification.segments import runs, segments, thinned
from celltwin.physics.operation import ConstantCurrent, ConstantVoltage, Limits, operate
from celltwin.physics.thevenin import Thevenin

KNOWN = pulses.random_cell(3)
FEW = (0.9, 0.7, 0.5, 0.3)  # states of charge: enough for most questions, and sooner done


@pytest.fixture(scope="module")
def test_logs():
    return [pulses.hppc(KNOWN, seed=3), pulses.slow_discharge(KNOWN, seed=3)]


@pytest.fixture(scope="module")
def found(test_logs):
    return identify(test_logs, KNOWN.cell)


def log(phases, **options):
    return pulses.log(KNOWN, "test", phases, **options)


def slow_cycle():
    """Empty and full again at C/20."""
    down = pulses.slow_discharge(KNOWN)
    passed, rate = -0.98 * float(down.charge_ah[-1]), KNOWN.capacity_ah / 20.0
    return log(
        [(0.0, 600.0), (-rate, 3600.0 * passed / rate), (0.0, 3600.0), (rate, 3600.0 * passed / rate)], period=10.0
    )


def hysteretic(record, volts):
    """A cell that shows `volts` more after charge, and less after discharge, within a thirtieth of its charge."""
    moved = 30.0 * record.current * record.dt / (3600.0 * KNOWN.capacity_ah)
    side, all_of = 0.0, []
    for step in moved.tolist():
        side = np.sign(step) + (side - np.sign(step)) * np.exp(-abs(step)) if step else side
        all_of.append(side)
    return replace(record, voltage=record.voltage + volts * np.array(all_of))


# --- what happens in a log -------------------------------------------------------------------------------------------


def test_segments_are_the_phases_of_the_test():
    one = KNOWN.capacity_ah
    phases = [(0.0, 600.0), (-one, 10.0), (0.0, 40.0), (one, 10.0), (0.0, 600.0), (-one / 3, 1080.0), (0.0, 3600.0)]
    some = segments(log(phases), one)
    assert [s.kind for s in some] == ["rest", "pulse", "rest", "pulse", "rest", "step", "rest"]
    assert [s.duration for s in some] == pytest.approx([d for _, d in phases])
    assert [s.charge_ah for s in some] == pytest.approx([c * d / 3600.0 for c, d in phases])
    assert [s.current for s in some] == pytest.approx([c for c, _ in phases], abs=1e-12)
    assert some[0].start == 0
    assert [s.stop for s in some[:-1]] == [s.start for s in some[1:]]


def test_slow_discharge_is_found_and_is_no_run():
    slow = replace(pulses.slow_discharge(KNOWN), cell=KNOWN.cell, initial_soc=1.0)
    (curve,) = slow_curves(slow)
    assert curve.current == pytest.approx(-KNOWN.capacity_ah / 20.0)
    assert (np.diff(curve.soc) > 0).all()
    assert not runs(slow, KNOWN.capacity_ah)


@pytest.mark.parametrize("flaw", ["a sample at rest", "a pause", "noise", "a stray sample"])
def test_a_slow_discharge_goes_on_after_what_is_none_of_it(flaw):
    log = pulses.slow_discharge(KNOWN)
    current, half = log.current.copy(), len(log) // 2
    if flaw == "a sample at rest":
        current[half] = 0.0
    elif flaw == "a stray sample":
        current[half] *= 0.9
    elif flaw == "a pause":
        pause = np.arange(1.0, 60.0, 10.0)
        time = np.r_[log.time[:half], log.time[half - 1] + pause, log.time[half:] + 60.0]
        current = np.r_[current[:half], 0.0 * pause, current[half:]]
        voltage = np.r_[log.voltage[:half], np.full(len(pause), log.voltage[half]), log.voltage[half:]]
        log = replace(log, time=time, voltage=voltage, temperature=np.full(len(time), 25.0), current=current)
    else:
        current += 2e-3 * KNOWN.capacity_ah * np.random.default_rng(2).normal(size=len(log)) * (current != 0.0)
    cell, _, _ = describe([replace(log, current=current), pulses.hppc(KNOWN, levels=FEW)], None)
    assert cell.reference_capacity_ah == pytest.approx(KNOWN.capacity_ah, rel=0.03)


def test_a_charge_pulse_is_no_full_cell():
    one = KNOWN.capacity_ah
    strong = [(0.0, 600.0), (10.0 * one, 2.0), (0.0, 40.0), *[(-one / 3, 1080.0), (0.0, 3600.0)] * 5]
    _, placed, _ = describe([log(strong), pulses.slow_discharge(KNOWN)], None)
    assert [record.initial_soc for record in placed] == [1.0, 1.0]


def test_rests_tell_a_start_below_full_whatever_the_first_voltage():
    phases = [(0.0, 1200.0), *[(-KNOWN.capacity_ah / 3, 1080.0), (0.0, 3600.0)] * 5]
    near = float(np.interp(KNOWN.ocv(1.0, 25.0) - 0.12, KNOWN.ocv(pulses.FINE, 25.0), pulses.FINE))  # 0.12 V below full
    _, (placed, _), notes = describe([log(phases, soc=near), pulses.slow_discharge(KNOWN)], None)
    assert placed.initial_soc == pytest.approx(near, abs=0.015)
    assert any("beside the slow discharge" in note for note in notes)


def test_short_rests_serve_where_a_slow_discharge_is_there():
    one = KNOWN.capacity_ah
    pulse = [(-one, 10.0), (0.0, 600.0)]
    short = log([(0.0, 600.0), *[(-one / 3, 1080.0), (0.0, 600.0), *pulse] * 7])
    found = identify([short, pulses.slow_discharge(KNOWN)], KNOWN.cell, pairs=2)
    assert len(found.circuit.soc) >= 7
    assert any("rests of 600 s" in note for note in found.circuit.notes)
    truth = KNOWN.r0(found.circuit.soc, 25.0)
    assert np.median(np.abs(found.circuit.r0[:, 0] / truth - 1.0)) < 0.03


def test_what_is_not_used_is_said():
    one = KNOWN.capacity_ah
    draw = np.random.default_rng(1)
    drive = log([(0.0, 1200.0), *[(float(i), 5.0) for i in -one * draw.uniform(0.0, 1.2, 900)]], period=1.0)
    found = identify([drive, pulses.slow_discharge(KNOWN)], KNOWN.cell)
    assert any("samples are not used" in note for note in found.circuit.notes)
    assert any("no table depends on the charge" in note for note in found.circuit.notes)


def test_a_capacity_that_a_slow_discharge_contradicts_is_said():
    other = replace(KNOWN.cell, reference_capacity_ah=1.1 * KNOWN.capacity_ah)
    _, _, notes = describe([pulses.hppc(KNOWN, levels=FEW), pulses.slow_discharge(KNOWN)], other)
    assert any("a slow discharge from full passes" in note for note in notes)
    _, _, notes = describe([pulses.hppc(KNOWN, levels=FEW), pulses.slow_discharge(KNOWN)], KNOWN.cell)
    assert not any("from full passes" in note for note in notes)


def test_a_resistance_that_is_surely_nothing_stays_so():
    layout, levels = Layout(1, 4, False), np.array([0.1, 0.4, 0.7, 1.0])
    ohms = np.array([[20e-3, 20e-3, 20e-3, 20e-3], [1e-9, 1e-9, 1e-9, 75e-3], [10.0, 10.0, 10.0, 300.0]])
    values = np.r_[np.log(ohms).ravel(), np.zeros(4)][None]
    doubt = np.full_like(values, 0.01)
    doubt[0, 4:7] = 1e3  # R1 is a nanoohm, or a thousand times as much: nothing beside R0, at three levels of four
    held = _held(values, doubt, layout, levels)
    np.testing.assert_array_equal(held, values)
    doubt[0, 4:7] = 1e9  # it may be anything: what is known elsewhere is the best guess
    held = _held(values, doubt, layout, levels)
    np.testing.assert_allclose(np.exp(held[0, 4:8]), 75e-3)
    doubt[0, :4], doubt[0, 7] = 1e3, 1e3  # nothing is known of R0, and nothing is small beside it
    np.testing.assert_array_equal(_held(values, doubt, layout, levels), values)


@pytest.mark.parametrize("minded", [False, True])
def test_what_is_not_known_is_taken_from_elsewhere_unless_the_logs_mind(minded):
    layout, levels = Layout(1, 4, False), np.array([0.1, 0.4, 0.7, 1.0])
    values = np.zeros((1, layout.size))
    values[0, 7] = 2.0  # R1 at the last level, the only one where it is known
    doubt = np.full_like(values, 0.01)
    doubt[0, 4:7] = 10.0

    class Log:
        weight = np.ones(16)

        def residual(self, x, layout):
            return 1e-3 + float(minded) * (x - values).ravel()[:16]

    log = Log()
    published, left, square = _as_published(values, doubt, [log.residual(values, layout)], [log], layout, levels)
    np.testing.assert_allclose(published[0, 4:8], [0.0, 0.0, 0.0, 2.0] if minded else 2.0)
    assert square == pytest.approx(1e-6)
    np.testing.assert_allclose(left[0], 1e-3)


def test_hysteresis_is_said():
    plain, apart = (
        identify([pulses.hppc(KNOWN, levels=FEW), slow]) for slow in (slow_cycle(), hysteretic(slow_cycle(), 0.02))
    )
    assert not any("hysteresis" in note for note in plain.circuit.notes)
    (note,) = [note for note in apart.circuit.notes if "hysteresis" in note]
    more = float(note.split(" mV more")[0].rsplit(" ", 1)[1])
    assert more == pytest.approx(40.0, abs=3.0)


@pytest.mark.parametrize("steps", ["GITT", "HPPC"])
def test_steps_of_charge_tell_what_steps_of_discharge_tell(steps):
    one = KNOWN.capacity_ah
    pulse = [(one, 10.0), (0.0, 40.0), (-one, 10.0), (0.0, 600.0)] if steps == "HPPC" else []
    charged = log([(0.0, 1200.0), *[*pulse, (one / 3, 1080.0), (0.0, 5400.0)] * 9], soc=0.02)
    found = identify([charged, pulses.slow_discharge(KNOWN)], KNOWN.cell, pairs=2)
    assert len(found.runs) == 1
    inside = found.circuit.soc > 0.1
    total = (found.circuit.r0 + found.circuit.r.sum(axis=0))[inside, 0]
    truth = KNOWN.r0(found.circuit.soc[inside], 25.0) + KNOWN.r(found.circuit.soc[inside], 25.0).sum(axis=0)
    assert np.median(np.abs(total / truth - 1.0)) < 0.03


def test_each_run_of_one_file_is_at_its_own_temperature():
    warm, cold = pulses.hppc(KNOWN, 25.0, levels=FEW), pulses.hppc(KNOWN, 5.0, levels=FEW)
    seconds = -float(warm.charge_ah[-1]) / (0.5 * KNOWN.capacity_ah) * 3600.0
    between = log(
        [(0.5 * KNOWN.capacity_ah, seconds), (0.0, 7200.0)], soc=1.0 + float(warm.charge_ah[-1]) / KNOWN.capacity_ah
    )
    chamber = np.where(np.arange(len(between)) < len(between) // 2, 25.0, 5.0)
    parts = [warm, replace(between, temperature=chamber), cold]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("voltage", "current", "temperature")
    }
    begin = np.cumsum([0.0, *[part.time[-1] + 1.0 for part in parts[:-1]]])
    time = np.concatenate([part.time + at for part, at in zip(parts, begin, strict=True)])
    both = Record("both", time, **columns)
    circuit = identify([both, pulses.slow_discharge(KNOWN)], KNOWN.cell, pairs=2).circuit
    assert circuit.temperatures.tolist() == [5.0, 25.0]
    for column, temperature in enumerate(circuit.temperatures):
        assert np.median(np.abs(circuit.r0[:, column] / KNOWN.r0(circuit.soc, temperature) - 1.0)) < 0.03


def test_the_curve_goes_on_below_empty_and_above_full(found):
    curve = found.circuit.ocv[:, 0]
    assert found.circuit.ocv_soc[0] < -0.05
    assert found.circuit.ocv_soc[-1] > 1.05
    assert curve[0] < np.interp(0.0, found.circuit.ocv_soc, curve) - 0.1
    assert curve[-1] > np.interp(1.0, found.circuit.ocv_soc, curve) + 0.01


def test_an_identified_circuit_can_be_charged_full_and_discharged_empty(found):
    full = found.circuit.ocv[found.circuit.ocv_soc == 1.0, 0].item() + 0.01
    charge = [
        ConstantCurrent(KNOWN.capacity_ah / 2, until=Limits(voltage=full)),
        ConstantVoltage(full, until=Limits(current=KNOWN.capacity_ah / 20)),
    ]
    empty = ConstantCurrent(-KNOWN.capacity_ah, until=Limits(voltage=pulses.LIMITS[0]))
    done = operate(Thevenin.of(found.circuit), [*charge, empty], found.cell, soc=0.5)
    assert [each.reason for each in done.log] == ["upper voltage", "lower current", "lower voltage"]
    assert 0.95 < done.log[1].soc < 1.05
    assert -0.05 < done.log[2].soc < 0.2


def test_a_start_between_the_branches_is_found_on_neither():
    one = KNOWN.capacity_ah
    midway = log([(0.0, 1200.0), (-one, 10.0), (0.0, 600.0), (-one / 3, 1080.0), (0.0, 3600.0)], soc=0.6)
    _, (placed, _), _ = describe([midway, hysteretic(slow_cycle(), 0.03)], KNOWN.cell)
    assert placed.initial_soc == pytest.approx(0.6, abs=0.01)


def test_state_of_charge_is_anchored_at_a_full_start():
    cell, (pulsed, slow), notes = describe([pulses.hppc(KNOWN, levels=FEW), pulses.slow_discharge(KNOWN)], None)
    assert pulsed.initial_soc == slow.initial_soc == 1.0
    assert cell.reference_capacity_ah == pytest.approx(KNOWN.capacity_ah, rel=0.03)
    assert any("capacity" in note for note in notes)


def test_state_of_charge_of_a_log_that_starts_midway_is_found_on_the_slow_discharge():
    one = KNOWN.capacity_ah
    midway = log([(0.0, 1200.0), (-one, 10.0), (0.0, 600.0), (-one / 3, 1080.0), (0.0, 3600.0)], soc=0.6)
    _, (placed, _), _ = describe([midway, pulses.slow_discharge(KNOWN)], KNOWN.cell)
    assert placed.initial_soc == pytest.approx(0.6, abs=0.03)


def test_thinning_keeps_charge_and_edges():
    whole = replace(pulses.hppc(KNOWN, levels=FEW), cell=KNOWN.cell, initial_soc=1.0)
    thin = thinned(whole, KNOWN.capacity_ah)
    assert len(thin) < 0.3 * len(whole)
    assert thin.charge_ah[-1] == pytest.approx(whole.charge_ah[-1], rel=1e-9)
    assert thin.soc == pytest.approx(np.interp(thin.time, whole.time, whole.soc), abs=1e-9)
    edges = np.flatnonzero(np.diff(whole.current) != 0) + 1
    assert np.isin(whole.time[edges], thin.time).all()
    assert np.isin(whole.time[edges - 1], thin.time).all()


def test_thinned_log_simulates_as_the_whole_one():
    whole = pulses.hppc(KNOWN, levels=FEW, noise=0.0)
    thin = thinned(whole, KNOWN.capacity_ah)
    voltage, _ = KNOWN.simulate(thin.time, thin.current, 1.0, 25.0)
    assert voltage == pytest.approx(np.interp(thin.time, whole.time, whole.voltage), abs=2e-3)


def test_relaxed_voltages_lie_on_the_curve():
    whole = replace(pulses.hppc(KNOWN, levels=FEW), cell=KNOWN.cell, initial_soc=1.0)
    points = rests(whole)
    assert len(points) == 1 + len(FEW)
    assert [p.voltage for p in points] == pytest.approx([float(KNOWN.ocv(p.soc, 25.0)) for p in points], abs=2e-3)


def test_gap_cuts_a_run():
    whole = replace(pulses.hppc(KNOWN, levels=FEW), cell=KNOWN.cell, initial_soc=1.0)
    assert len(runs(whole, KNOWN.capacity_ah)) == 1
    middle = len(whole) // 2
    later = whole.time + np.where(np.arange(len(whole)) >= middle, 20000.0, 0.0)
    cut = runs(replace(whole, time=later), KNOWN.capacity_ah)
    assert len(cut) == 2
    assert not any(len(run.gaps) for run in cut)


# --- a circuit that is known -----------------------------------------------------------------------------------------


def relative(value, truth):
    return np.abs(value / truth - 1.0)


def test_known_circuit_is_found(found):
    circuit = found.circuit
    soc = circuit.soc[:, None]
    assert circuit.pairs == 2
    assert circuit.transfer_scale is None
    assert np.median(relative(circuit.r0, KNOWN.r0(soc, 25.0))) < 0.02
    assert (np.median(relative(circuit.r, KNOWN.r(soc, 25.0)), axis=(1, 2)) < 0.1).all()
    assert (np.median(relative(circuit.tau, KNOWN.tau(soc, 25.0)), axis=(1, 2)) < 0.1).all()
    inside = (circuit.ocv_soc > circuit.soc[0]) & (circuit.ocv_soc <= 1.0)
    curve = KNOWN.ocv(circuit.ocv_soc[inside, None], 25.0)
    assert np.sqrt(np.mean((circuit.ocv[inside] - curve) ** 2)) < 2e-3
    assert found.rmse < 1.2e-3


def test_stated_intervals_cover_the_truth(found):
    circuit = found.circuit
    soc, error = circuit.soc[:, None], circuit.standard_error
    pairs = [
        (circuit.r0, error["r0"], KNOWN.r0(soc, 25.0)),
        (circuit.r, error["r"], KNOWN.r(soc, 25.0)),
        (circuit.tau, error["tau"], KNOWN.tau(soc, 25.0)),
    ]
    inside = np.concatenate([(np.abs(value - truth) < 1.96 * e).ravel() for value, e, truth in pairs])
    assert inside.mean() > 0.8  # one cell of 50 parameters, whose errors go together
    assert all((e > 0).all() and np.isfinite(e).all() for e in error.values())


def test_what_is_said_to_be_simulated_is(found):
    for run, simulated in zip(found.runs, found.simulated, strict=True):
        (again,) = simulate_records(Thevenin.of(found.circuit), [run])
        seen = np.isfinite(simulated)
        difference = np.asarray(again.voltage)[seen] - simulated[seen]
        # Samples without weight hold what was measured.
        assert np.quantile(np.abs(difference), 0.9) < 1e-4


def test_order_of_logs_does_not_matter(test_logs, found):
    other = identify(test_logs[::-1], KNOWN.cell).circuit
    for name in ("soc", "ocv", "r0", "r", "tau"):
        assert getattr(other, name) == pytest.approx(getattr(found.circuit, name), rel=1e-4)


def test_cell_is_inferred_where_none_is_given(test_logs, found):
    alone = identify(test_logs).circuit
    assert alone.capacity_ah == pytest.approx(KNOWN.capacity_ah, rel=0.03)
    assert np.median(relative(alone.r0, found.circuit.r0)) < 0.02
    assert any("capacity" in note for note in alone.notes)


@pytest.mark.parametrize("pairs", [1, 3])
def test_number_of_pairs_is_found(pairs):
    known = pulses.random_cell(5, pairs=pairs)
    logs = [pulses.hppc(known, levels=FEW), pulses.slow_discharge(known)]
    assert identify(logs, known.cell).circuit.pairs == pairs


def test_number_of_pairs_can_be_set(test_logs):
    assert identify(test_logs, KNOWN.cell, pairs=1).circuit.pairs == 1


# --- what the data cannot tell ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("period", "told"), [(10.0, False), (0.1, True)])
def test_confusion_of_parameters_is_said(period, told):
    """Sampled every 10 s, a pair of 2 s looks like more R0."""
    known = replace(KNOWN, tau_base=np.array([2.0, 100.0]), tau_wave=0.0 * KNOWN.tau_wave)
    logs = [pulses.hppc(known, levels=FEW, period=period), pulses.slow_discharge(known)]
    circuit = identify(logs, known.cell, pairs=2).circuit
    right = np.median(relative(circuit.r0, known.r0(circuit.soc[:, None], 25.0))) < 0.02
    confused = any("tell" in note and "R0" in note for note in circuit.notes)
    assert right == told
    assert confused != told


def test_logs_without_pulses_are_refused():
    with pytest.raises(CelltwinError, match="pulses"):
        identify([pulses.slow_discharge(KNOWN)], KNOWN.cell)
    with pytest.raises(CelltwinError, match="no log"):
        identify([], KNOWN.cell)


def test_sensor_that_was_off_is_ignored_and_said(found):
    sound = pulses.hppc(KNOWN, seed=3)
    voltage = sound.voltage.copy()
    voltage[1000:1010] = 0.0
    circuit = identify([replace(sound, voltage=voltage), pulses.slow_discharge(KNOWN, seed=3)], KNOWN.cell).circuit
    assert any("10 voltages near zero ignored" in note for note in circuit.notes)
    assert np.median(relative(circuit.r0, found.circuit.r0)) < 0.01


def test_unmeasured_temperature_is_assumed_and_said():
    bare = replace(
        pulses.hppc(KNOWN, levels=FEW),
        ambient_degC=float("nan"),
        temperature=np.full(len(pulses.hppc(KNOWN, levels=FEW)), np.nan),
    )
    assert isinstance(bare, Record)
    _, (placed,), notes = describe([bare], KNOWN.cell)
    assert placed.ambient_degC == 25.0
    assert any("no temperature known" in note for note in notes)
