"""A cycler for models: demands are met, limits are met on the sample, and nothing is asked that cannot be given."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from celltwin.data import importers
from celltwin.errors import CelltwinError
from celltwin.interface import simulate_records
from celltwin.models.baselines import Hold
from celltwin.physics.cycler import CHUNK, advance_chunk
from celltwin.physics.operation import (
    ConstantCurrent,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Limits,
    Rest,
    operate,
    parse,
    rested,
)
from celltwin.physics.thermal import Thermal, ThermalTwin
from reference_operation import CELL, PlainCell, Simple, operate_loop

FLAT = {"slope": 0.0, "r1": 0.0}  # an ideal source behind R0


def only(done):
    """The one entry of a log."""
    (entry,) = done.log
    return entry


# --- against plain loops and closed forms ----------------------------------------------------------------------------

PROTOCOL = [
    (ConstantCurrent(-2.0, until=Limits(voltage=3.3)), {"current": -2.0, "until": lambda v, i, s: 3.3 - v}),
    (Rest(100.5), {"current": 0.0, "duration": 100.5}),
    (ConstantPower(-6.0, until=Limits(soc=0.3)), {"power": -6.0, "until": lambda v, i, s: 0.3 - s}),
    (ConstantCurrent(1.5, until=Limits(voltage=3.8)), {"current": 1.5, "until": lambda v, i, s: v - 3.8}),
    (ConstantVoltage(3.8, until=Limits(current=0.1)), {"voltage": 3.8, "until": lambda v, i, s: 0.1 - abs(i)}),
    (ConstantCurrent(1.5, until=Limits(voltage=3.8)), {"current": 1.5, "until": lambda v, i, s: v - 3.8}),
    (ConstantResistance(2.0, until=Limits(duration=33.0)), {"resistance": 2.0, "duration": 33.0}),
    (ConstantPower(-4.0, until=Limits(current=1.17)), {"power": -4.0, "until": lambda v, i, s: abs(i) - 1.17}),
    (ConstantVoltage(3.6, until=Limits(duration=50.0)), {"voltage": 3.6, "duration": 50.0}),
]


@pytest.mark.parametrize("double", [False, True])
def test_it_is_the_plain_loop(in_double, double):
    model = in_double(Simple.of()) if double else Simple.of()
    kind = np.float64 if double else np.float32
    with jax.enable_x64(double):
        done = operate(model, [o for o, _ in PROTOCOL], CELL, soc=0.9, period=10.0, dtype=kind)
    expected = np.array(operate_loop(PlainCell(model, 0.9, 2.0), [d for _, d in PROTOCOL], 10.0)).T
    record, tolerance = done.record, 1e-7 if double else 2e-3
    assert len(record) == expected.shape[1] + 1
    np.testing.assert_allclose(record.time[1:], expected[0], rtol=1e-7 if double else 1e-5, atol=tolerance)
    np.testing.assert_allclose(record.voltage[1:], expected[1], atol=tolerance / 100)
    np.testing.assert_allclose(record.current[1:], expected[2], atol=tolerance / 10)
    np.testing.assert_allclose(record.soc[1:], expected[3], atol=tolerance / 100)
    numbers = np.concatenate([[n] * (e.samples.stop - e.samples.start) for n, e in enumerate(done.log)])
    np.testing.assert_array_equal(numbers, expected[4])
    assert [entry.reason for entry in done.log] == [
        "lower voltage",
        "duration",
        "lower soc",
        "upper voltage",
        "lower current",
        "upper voltage",
        "duration",
        "upper current",
        "duration",
    ]
    assert done.log[5].duration == 0
    assert "at once" in str(done.log[5])


def test_an_ideal_source_behind_a_resistance_follows_ohm():
    model = Simple.of(level=3.5, r0=0.1, **FLAT)
    limits = Limits(duration=5.0)
    done = operate(
        model,
        [
            ConstantCurrent(-4.0, until=limits),
            ConstantPower(-9.0, until=limits),
            ConstantPower(9.0, until=limits),
            ConstantVoltage(3.65, until=limits),
            ConstantResistance(1.65, until=limits),
            ConstantPower(0.0, until=limits),
        ],
        CELL,
        soc=0.5,
    )
    power = [(-3.5 + np.sqrt(3.5**2 + 4 * 0.1 * p)) / 0.2 for p in (-9.0, 9.0)]
    currents = np.array([-4.0, *power, 1.5, -2.0, 0.0])
    np.testing.assert_allclose(done.record.current[1:].reshape(6, 5).T - currents, 0.0, atol=5e-5)
    np.testing.assert_allclose([e.voltage for e in done.log], 3.5 + 0.1 * currents, atol=5e-6)
    np.testing.assert_allclose([e.charge_ah for e in done.log], currents * 5 / 3600, atol=1e-6)
    assert done.log[1].energy_wh == pytest.approx(-9.0 * 5 / 3600, rel=1e-5)


@with_settings(max_examples=25)
@given(
    current=st.floats(0.3, 6.0).map(lambda x: round(x, 3)),
    period=st.sampled_from([1.0, 7.0, 60.0, 1e4]),
    start=st.floats(0.6, 1.0),
    fall=st.floats(0.05, 0.4),
)
def test_a_limit_is_met_when_the_closed_form_says(current, period, start, fall):
    model = Simple.of()
    limit = 3.0 + start - 0.08 * current - fall
    done = operate(
        model,
        [ConstantCurrent(-current, until=Limits(voltage=limit), period=period)],
        CELL,
        soc=start,
        dtype=np.float32,
    )

    def over(t):
        return 3.0 + start - current * t / 7200 - current * (0.05 + 0.03 * (1 - np.exp(-t / 60))) - limit

    expected = brentq(over, 0.0, 1e6, xtol=1e-9)
    # What is left is what the resolution of single precision near 4 V makes of the slope of the voltage.
    resolution = 2e-6 / (current / 7200)
    assert only(done).duration == pytest.approx(expected, abs=max(1e-3, resolution))
    assert done.record.voltage[-1] == pytest.approx(limit, abs=2e-6)


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        (Limits(voltage=3.4), 1260.0),
        (Limits(soc=0.5), 1080.0),
        (Limits(charge=0.25), 450.0),
        (Limits(duration=777.25), 777.25),
        (Limits(voltage=(3.2, 3.9), soc=(0.55, None)), 900.0),
    ],
)
@pytest.mark.parametrize("period", [1.0, 13.0])
def test_limits_are_located_to_a_millisecond(in_double, until, seconds, period):
    model = in_double(Simple.of(r1=0.0, r0=0.025, tau=60.0))
    operations = [ConstantCurrent(-2.0, until=until)]
    done = operate(model, operations, CELL, soc=0.8, period=period, dtype=np.float64)
    assert only(done).duration == pytest.approx(seconds, abs=1e-3)
    assert done.record.time[-1] == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize("period", [3.0, 50.0, 1000.0])
def test_the_end_of_a_current_does_not_depend_on_the_sampling(in_double, period):
    operations = [
        ConstantCurrent(-1.7, until=Limits(voltage=3.1)),
        Rest(500.0),
        ConstantCurrent(2.0, until=Limits(voltage=3.9)),
    ]
    fine, coarse = (
        operate(in_double(Simple.of()), operations, CELL, period=p, dtype=np.float64) for p in (1.0, period)
    )
    for a, b in zip(fine.log, coarse.log, strict=True):
        assert b.duration == pytest.approx(a.duration, abs=1e-6)
        assert b.voltage == pytest.approx(a.voltage, abs=1e-9)
    np.testing.assert_allclose(coarse.state.pair, fine.state.pair, rtol=1e-9)


# --- what holds for every run ----------------------------------------------------------------------------------------

amps = st.sampled_from([-3.0, -1.0, 0.5, 2.0])
watts = st.sampled_from([-8.0, -2.5, 1.0, 6.0])
seconds = st.floats(0.5, 90.0)
operation = st.one_of(
    st.builds(lambda i, t: ConstantCurrent(i, until=Limits(duration=t, voltage=(3.1, 3.95))), amps, seconds),
    st.builds(lambda p, t: ConstantPower(p, until=Limits(duration=t, voltage=(3.1, 3.95))), watts, seconds),
    st.builds(lambda v, t: ConstantVoltage(v, until=Limits(duration=t)), st.sampled_from([3.4, 3.7]), seconds),
    st.builds(lambda r, t: ConstantResistance(r, until=Limits(duration=t)), st.sampled_from([1.0, 10.0]), seconds),
    st.builds(Rest, seconds),
)


@with_settings(max_examples=30)
@given(todo=st.lists(operation, min_size=1, max_size=6), soc=st.floats(0.3, 0.8), period=st.sampled_from([1.0, 4.0]))
def test_charge_is_conserved_and_limits_are_not_passed(todo, soc, period):
    done = operate(Simple.of(), [Rest(1.0), *todo], CELL, soc=soc, period=period)
    record = done.record
    passed = np.cumsum(record.current * record.dt) / 3600.0
    np.testing.assert_allclose(record.soc - soc, passed / 2.0, atol=1e-9)
    np.testing.assert_allclose(np.asarray(done.output.soc), record.soc, atol=2e-6)
    assert sum(e.charge_ah for e in done.log) == pytest.approx(record.net_capacity[-1], abs=1e-9)
    assert sum(e.duration for e in done.log) == pytest.approx(record.time[-1])
    for entry in done.log:
        voltage, current = record.voltage[entry.samples], record.current[entry.samples]
        demand = entry.operation
        if isinstance(demand, (ConstantCurrent, ConstantPower)):
            assert (voltage >= 3.1 - 1e-4).all()
            assert (voltage <= 3.95 + 1e-4).all()
        if isinstance(demand, ConstantPower):
            np.testing.assert_allclose(voltage * current, demand.power, rtol=1e-4)
        if isinstance(demand, ConstantVoltage):
            np.testing.assert_allclose(voltage, demand.voltage, atol=1e-4)
        if isinstance(demand, ConstantResistance):
            np.testing.assert_allclose(voltage, -demand.resistance * current, atol=1e-4)
        if entry.reason == "duration":
            assert entry.duration == pytest.approx(demand.until.duration or demand.duration, abs=1e-6)


def test_a_full_charge_ends_full():
    done = operate(
        Simple.of(),
        [
            ConstantCurrent(1.0, until=Limits(voltage=4.0)),
            ConstantVoltage(4.0, until=Limits(current=0.02)),
            Rest(3600.0),
        ],
        CELL,
        soc=0.1,
        period=5.0,
    )
    held = done.record.current[done.log[1].samples]
    assert (np.diff(held) < 1e-5).all()
    assert held[-1] == pytest.approx(0.02, abs=1e-5)
    assert done.record.soc[-1] == pytest.approx(1.0 - 0.08 * 0.02, abs=1e-4)
    assert done.record.voltage.max() < 4.0 + 1e-4


def test_more_samples_than_one_chunk_make_no_difference():
    todo = [
        ConstantCurrent(-1.0, until=Limits(duration=1.5 * CHUNK)),
        ConstantPower(2.0, until=Limits(duration=0.7 * CHUNK)),
    ]
    fine, coarse = (operate(Simple.of(), todo, CELL, soc=0.9, period=p) for p in (1.0, 16.0))
    assert len(fine.record) == 1 + int(1.5 * CHUNK) + int(np.ceil(0.7 * CHUNK))
    np.testing.assert_array_equal(np.diff(fine.record.time[:-1]), 1.0)
    np.testing.assert_allclose(fine.record.soc[-1], coarse.record.soc[-1], atol=1e-4)


def test_one_program_serves_all_demands():
    operate(Simple.of(), [Rest(10.0)], CELL)
    before = advance_chunk._cache_size()
    operate(Simple.of(r0=0.1), [o for o, _ in PROTOCOL[:5]], CELL, soc=0.9, temperature=3.0)
    assert advance_chunk._cache_size() == before


def test_a_run_goes_on_where_another_ended():
    first, second = (
        [ConstantCurrent(-2.0, until=Limits(voltage=3.3))],
        [ConstantPower(3.0, until=Limits(duration=60.0))],
    )
    whole = operate(Simple.of(), [*first, *second], CELL, soc=0.9)
    half = operate(Simple.of(), first, CELL, soc=0.9)
    rest = operate(Simple.of(), second, CELL, start=half)
    assert rest.record.initial_soc == pytest.approx(half.record.soc[-1])
    np.testing.assert_allclose(rest.record.voltage[1:], whole.record.voltage[-60:], atol=1e-5)


def test_a_power_profile_runs_until_the_cell_must_stop():
    profile = np.random.default_rng(0).uniform(-12.0, 6.0, 3000)
    todo = [ConstantPower(p, until=Limits(duration=1.0)) for p in profile]
    done = operate(Simple.of(), todo, CELL, soc=0.6, stop=Limits(voltage=(3.2, 4.0)))
    assert done.log[-1].reason == "lower voltage"
    assert done.record.voltage.min() > 3.2 - 1e-5
    assert 100 < len(done.log) < 3000
    assert done.log[-1].samples.stop == len(done.record)
    power = done.record.voltage[1:-1] * done.record.current[1:-1]
    np.testing.assert_allclose(power, profile[: len(power)], rtol=1e-4)
    with pytest.raises(CelltwinError, match="which way the voltage"):
        operate(Simple.of(), todo[:1], CELL, stop=Limits(voltage=3.2))


def test_operations_may_have_their_own_sampling():
    done = operate(
        Simple.of(), [Rest(10.0, period=2.5), ConstantCurrent(1.0, until=Limits(duration=3.0))], CELL, soc=0.5
    )
    np.testing.assert_allclose(done.record.time, [0, 2.5, 5, 7.5, 10, 11, 12, 13])


def test_the_record_is_a_record(tmp_path):
    done = operate(Simple.of(), ["discharge at 1C for 20 s", "rest for 10 s"], CELL, soc=0.5, name="pulse")
    done.record.save(tmp_path / "pulse.parquet")
    again = importers.load(tmp_path / "pulse.parquet")
    np.testing.assert_allclose(again.voltage, done.record.voltage)
    assert done.record.label == "pulse 25degC"
    assert done.record.current[0] == 0
    assert done.record.voltage[0] == pytest.approx(3.5)


# --- every registered model ------------------------------------------------------------------------------------------


def test_every_model_can_be_operated(twin):
    low, high = 3.4, 4.0
    todo = [
        ConstantCurrent(-1.0, until=Limits(voltage=low, duration=1200.0)),
        Rest(30.0),
        ConstantPower(-2.0, until=Limits(voltage=low, duration=60.0)),
        ConstantCurrent(0.7, until=Limits(voltage=high, duration=600.0)),
        ConstantVoltage(high, until=Limits(current=(0.05, None), duration=120.0)),
    ]
    if twin.name == "hold":  # its voltage does not follow the current
        with pytest.raises(CelltwinError, match=r"operation 5 \(4 V\).*no current meets"):
            operate(twin.model, todo, twin.cell, soc=0.8, period=2.0)
        return
    done = operate(twin.model, todo, twin.cell, soc=0.8, period=2.0)
    record = done.record
    power = done.log[2].samples
    np.testing.assert_allclose(record.voltage[power] * record.current[power], -2.0, rtol=1e-4)
    np.testing.assert_allclose(record.voltage[done.log[4].samples], high, atol=1e-4)
    for entry in (done.log[0], done.log[2]):
        assert (record.voltage[entry.samples] > low - 1e-4).all()
    assert (record.voltage[done.log[3].samples] < high + 1e-4).all()
    replayed = simulate_records(twin.model, [record])[0]
    np.testing.assert_allclose(replayed.voltage, record.voltage, atol=2e-4)


def test_a_temperature_ends_an_operation_of_a_model_that_simulates_it():
    warm = ThermalTwin(Simple.of(r0=0.2), Thermal.of(5.0, 10.0, 1.0, 30.0))
    todo = [
        ConstantCurrent(-4.0, until=Limits(temperature=30.0)),
        Rest(until=Limits(temperature=(26.0, None))),
        Rest(600.0, temperature=10.0),
    ]
    done = operate(warm, todo, CELL, soc=0.9, temperature=25.0)
    assert [e.reason for e in done.log] == ["upper temperature", "lower temperature", "duration"]
    ends = [done.record.temperature[e.samples.stop - 1] for e in done.log]
    np.testing.assert_allclose(ends[:2], [30.0, 26.0], atol=1e-4)
    assert 10.0 < ends[2] < 15.0
    assert np.asarray(done.output.core).max() > 30.0
    with pytest.raises(CelltwinError, match=r"model does not simulate.*ThermalTwin"):
        operate(Simple.of(), todo[:1], CELL)


def test_it_starts_where_the_model_rests(twin):
    start = rested(twin.model, twin.cell, soc=0.7, temperature=20.0)
    done = operate(twin.model, [Rest(5.0)], twin.cell, start=start, temperature=20.0)
    assert done.record.voltage[0] == pytest.approx(float(start.voltage), abs=1e-4)
    assert done.record.initial_soc == pytest.approx(0.7)


# --- what cannot be done ---------------------------------------------------------------------------------------------

IDEAL = Simple.of(level=3.5, r0=0.1, **FLAT)  # gives 3.5^2 / 4 / 0.1 = 30.6 W at most


def test_more_power_than_the_cell_gives_is_refused_with_what_it_gives():
    operate(IDEAL, [ConstantPower(-30.5, until=Limits(duration=1.0))], CELL, soc=0.5)
    with pytest.raises(
        CelltwinError, match=r"operation 2 \(-31 W\), after 5 s: no current.*more than the 30.6"
    ) as error:
        operate(IDEAL, [Rest(5.0), ConstantPower(-31.0, until=Limits(duration=1.0))], CELL, soc=0.5)
    assert "1.75" in str(error.value)


def test_more_power_than_the_cell_gives_above_its_limit_ends_there():
    done = operate(IDEAL, [Rest(1.0), ConstantPower(-31.0, until=Limits(voltage=2.0))], CELL, soc=0.5)
    assert (done.log[1].reason, done.log[1].duration) == ("lower voltage", 0.0)


def test_a_voltage_limit_comes_before_the_largest_power_even_on_a_long_step():
    sagging = Simple.of(slope=2.0, level=1.5, r0=0.1, r1=0.0)
    todo = [ConstantPower(-15.0, until=Limits(voltage=2.2), period=3000.0)]
    done = operate(sagging, todo, CELL, soc=0.9)
    assert only(done).reason == "lower voltage"
    assert done.record.voltage[-1] == pytest.approx(2.2, abs=1e-4)
    with pytest.raises(CelltwinError, match="no current meets"):
        operate(sagging, [ConstantPower(-15.0, until=Limits(duration=1e5), period=3000.0)], CELL, soc=0.9)


def test_a_voltage_that_no_current_reaches_is_refused():
    with pytest.raises(CelltwinError, match=r"operation 1 \(4 V\), after 0 s: no current"):
        operate(Hold(), [ConstantVoltage(4.0, until=Limits(duration=1.0))], CELL)


def test_an_operation_without_an_end_in_sight_is_refused():
    with pytest.raises(CelltwinError, match=r"has not ended.*longest"):
        operate(IDEAL, [ConstantCurrent(-0.1, until=Limits(voltage=3.0), period=50.0)], CELL, longest=1000.0)
    with pytest.raises(CelltwinError, match="would never end"):
        operate(IDEAL, [ConstantCurrent(-0.1)], CELL)


@pytest.mark.parametrize(("current", "soc", "what"), [(-2.0, 0.1, "over-discharged"), (2.0, 0.9, "overcharged")])
def test_no_cell_is_emptied_beyond_empty_or_filled_beyond_full(current, soc, what):
    flat = eqx.tree_at(lambda m: m.slope, Simple.of(), jnp.zeros((), np.float32))
    unmet = Limits(voltage=2.0 if current < 0 else 4.5)
    with pytest.raises(CelltwinError, match=what):
        operate(flat, [ConstantCurrent(current, until=unmet)], CELL, soc=soc)
    back = ConstantCurrent(-current, until=Limits(duration=60.0))  # where it is already, it may come back from
    assert only(operate(flat, [back], CELL, soc=-0.2 if current < 0 else 1.2)).reason == "duration"


def test_a_model_that_gives_no_number_is_named():
    broken = eqx.tree_at(lambda m: m.slope, Simple.of(), jnp.asarray(np.nan, np.float32))
    with pytest.raises(CelltwinError, match="the model gives no number"):
        operate(broken, [Rest(5.0)], CELL)


def test_limits_met_before_the_start_are_skipped_with_a_word():
    low = ConstantCurrent(-2.0, until=Limits(voltage=3.5))
    done = operate(Simple.of(), [low, Rest(10.0)], CELL, soc=0.55)  # 3.55 V at rest, 3.45 V under load
    assert (done.log[0].reason, done.log[0].duration, done.log[0].charge_ah) == ("lower voltage", 0.0, 0.0)
    assert done.log[0].samples == slice(1, 1)
    assert len(done.record) == 11
    with pytest.raises(CelltwinError, match="before it began"):
        operate(Simple.of(), [low], CELL, soc=0.55)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Rest(), "would never end"),
        (Rest(-5.0), "makes no sense"),
        (Rest(5.0, period=0.0), "makes no sense"),
        (ConstantCurrent(float("nan"), until=Limits(duration=1.0)), "makes no sense"),
        (ConstantCurrent(1.0, until=Limits(charge=-1.0)), "makes no sense"),
        (ConstantVoltage(-4.0, until=Limits(duration=1.0)), "makes no sense"),
        (ConstantResistance(0.0, until=Limits(duration=1.0)), "makes no sense"),
        (ConstantCurrent(1.0, until=Limits(current=0.5)), "which way the current"),
        (ConstantVoltage(4.0, until=Limits(voltage=4.1)), "which way the voltage"),
        (ConstantVoltage(4.0, until=Limits(soc=0.5)), "which way the soc"),
        (Rest(until=Limits(temperature=25.0)), "which way the temperature"),
        (ConstantCurrent(1.0, until=Limits(voltage=(4.0, 3.0))), "empty range"),
    ],
)
def test_nonsense_is_refused(wrong, message):
    with pytest.raises(CelltwinError, match=message):
        operate(Simple.of(), [wrong], CELL)
    with pytest.raises(CelltwinError, match="nothing to do"):
        operate(Simple.of(), [], CELL)


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("discharge at 1C until 2.5 V", ConstantCurrent(-2.0, until=Limits(voltage=2.5))),
        ("charge at 1 A until 4.2 V", ConstantCurrent(1.0, until=Limits(voltage=4.2))),
        ("Charge at C/20 until 4200mV", ConstantCurrent(0.1, until=Limits(voltage=4.2))),
        ("hold at 4.2 V until C/20", ConstantVoltage(4.2, until=Limits(current=0.1))),
        ("Hold at 4.2V until 50 mA or for 2 hours", ConstantVoltage(4.2, until=Limits(current=0.05, duration=7200))),
        ("rest for 1 h", Rest(until=Limits(duration=3600))),
        ("discharge at 10 W for 5 min", ConstantPower(-10.0, until=Limits(duration=300))),
        ("discharge at 0.5 ohm for 2 s", ConstantResistance(0.5, until=Limits(duration=2))),
        ("charge at 2.5 C, until 80 %, until 45 degC", ConstantCurrent(5.0, until=Limits(soc=0.8, temperature=45))),
        ("discharge at 2C/3 until 500 mAh", ConstantCurrent(-4 / 3, until=Limits(charge=0.5))),
        ("discharge at 1e3 mW for .5 d every 1 min", ConstantPower(-1.0, until=Limits(duration=43200), period=60.0)),
    ],
)
def test_words_mean_what_they_say(text, meaning):
    assert parse(text, CELL) == meaning


@pytest.mark.parametrize(
    ("text", "got", "fix"),
    [
        ("dischrage at 1C until 2.5 V", "dischrage", "discharge"),
        ("discharge 1C until 2.5 V", "1C", "such as"),
        ("discharge at 1C untill 2.5 V", "untill", "until"),
        ("discharge at 1C until 2.5 Vlt", "Vlt", "V"),
        ("discharge at -1 A for 1 s", "-1", "such as"),
        ("rest for 5 minuets", "minuets", "minutes"),
        ("rest for 5 V", "5 V", "such as"),
        ("rest for", "its end", "such as"),
        ("charge at 4.2 V until C/20", "4.2 V", "such as"),
        ("charge at 2 ohm for 3 s", "2 ohm", "such as"),
        ("", "its end", "such as"),
        ("rest for 5 s and for 6 s", "5 and 6", None),
    ],
)
def test_words_that_are_not_understood_are_named(text, got, fix):
    with pytest.raises(CelltwinError) as error:
        parse(text, CELL)
    assert error.value.got == got
    assert fix is None or fix in error.value.fix
