"""A twin that is fitted to the cell in front of it: what it finds, and what it must not see."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from celltwin import twin as twins_
from celltwin.adaptation import Doubt, adapt, rest_of
from celltwin.deploy import c, native
from celltwin.errors import CelltwinError
from celltwin.interface import Input, simulate, simulate_records, start_of
from celltwin.models.aged import Aged

WIDE = Doubt(capacity=0.15, resistance=0.3, soc=0.02)


@pytest.fixture
def journey(drives):
    return drives["25degC", "LA92"]


def aged_record(one, record, **age):
    """What a cell of that age would have shown on the same journey."""
    model = Aged.of(one.model, **age)
    return replace(record, voltage=np.asarray(simulate_records(model, [record])[0].voltage, float), net_capacity=None)


def test_a_fresh_cell_is_the_model(twin, journey):
    fresh = simulate_records(Aged.of(twin.model), [journey])[0]
    plain = simulate_records(twin.model, [journey])[0]
    np.testing.assert_allclose(fresh.voltage, plain.voltage, atol=5e-6)  # some families run whole records faster
    np.testing.assert_allclose(fresh.soc, plain.soc, atol=1e-6)


def test_capacity_and_resistance_do_what_they_say(twins, journey):
    model, start = twins["ohmic"].model, start_of(journey)
    load = Input(*(jnp.full(100, value) for value in (-1.0, 25.0, 10.0)))
    fresh = simulate(model, start, load)
    faded = simulate(Aged.of(model, capacity=0.8), start, load)
    np.testing.assert_allclose(start.soc - faded.soc, (start.soc - fresh.soc) / 0.8, rtol=1e-4)
    worn = simulate(Aged.of(model, resistance=1.5), start, load)
    np.testing.assert_allclose(worn.soc, fresh.soc, atol=1e-6)
    still = simulate(model, start._replace(soc=fresh.soc[-1]), load._replace(current=jnp.zeros(100)))
    open_circuit = still.voltage[-1]
    np.testing.assert_allclose(worn.voltage[-1] - open_circuit, 1.5 * (fresh.voltage[-1] - open_circuit), atol=2e-5)


@pytest.mark.parametrize("name", ["thevenin", "hybrid", "lstm"])
def test_it_finds_the_age_of_a_cell(twins, journey, name):
    one = twins[name]
    record = aged_record(one, journey, capacity=0.85, resistance=1.25, soc=-0.01)
    adapted, found = adapt(one, record, seconds=0.8 * record.time[-1], prior=WIDE)
    before, after = (
        np.sqrt(np.mean((np.asarray(t.simulate(record).voltage) - record.voltage) ** 2)) for t in (one, adapted)
    )
    assert after < 0.1 * before
    assert abs(found.capacity - 0.85) < max(3 * found.doubt.capacity, 0.01)
    assert abs(found.resistance - 1.25) < max(3 * found.doubt.resistance, 0.02)
    assert "capacity" in adapted.card["adapted"]


def test_minutes_say_more_the_more_they_are_and_never_less_than_the_prior(twins, journey):
    one = twins["thevenin"]
    record = aged_record(one, journey, capacity=0.95)
    few, many = (adapt(one, record, seconds=s, prior=WIDE)[1].doubt for s in (100.0, 1000.0))
    for name in ("capacity", "resistance", "soc"):
        assert getattr(many, name) <= 1.02 * getattr(few, name)
    assert few.resistance < WIDE.resistance
    assert many.capacity < WIDE.capacity


def test_nothing_after_its_minutes_is_seen(twins, journey):
    later = journey.time > 600.0
    changed = replace(journey, voltage=journey.voltage + np.where(later, 0.3, 0.0))
    blind = replace(journey, voltage=np.where(later, np.nan, journey.voltage))
    found = [adapt(twins["thevenin"], record, seconds=600.0)[1] for record in (journey, changed, blind)]
    assert found[0] == found[1] == found[2]


def test_a_sure_prior_moves_nothing(twins, journey):
    record = aged_record(twins["thevenin"], journey, resistance=1.3)
    found = adapt(twins["thevenin"], record, 600.0, Doubt(capacity=1e-7, resistance=1e-7, soc=1e-7))[1]
    np.testing.assert_allclose([found.capacity, found.resistance, 1.0 + found.soc], 1.0, atol=1e-5)


def test_unmeasured_samples_and_uneven_steps_are_no_hindrance(twins, journey):
    record = aged_record(twins["thevenin"], journey, resistance=1.2)
    gaps = replace(record, voltage=np.where(np.arange(len(record)) % 3 == 1, np.nan, record.voltage))
    assert adapt(twins["thevenin"], gaps, 900.0, WIDE)[1].resistance == pytest.approx(1.2, abs=0.03)


def test_what_an_adapted_twin_is_judged_on(journey):
    rest = rest_of(journey, 300.0)
    assert np.isfinite(rest.voltage[0])
    assert np.isnan(rest.voltage[(rest.time > 0) & (rest.time <= 300.0)]).all()
    np.testing.assert_array_equal(rest.voltage[rest.time > 300.0], journey.voltage[journey.time > 300.0])


def test_an_adapted_twin_is_a_twin(twins, journey, tmp_path):
    adapted = adapt(twins["thevenin"], aged_record(twins["thevenin"], journey, resistance=1.2), 600.0)[0]
    again = twins_.load(adapted.save(tmp_path / "mine.twin"))
    simulated = np.asarray(adapted.simulate(journey).voltage)
    np.testing.assert_array_equal(again.simulate(journey).voltage, simulated)
    if native.compiler() is not None:
        compiled = native.Native(c.emit(again))
        start, inputs = again.fed(journey)
        np.testing.assert_allclose(compiled.run(compiled.begin(start), inputs)[:, 0], simulated, atol=2e-5)


def test_what_cannot_be_adapted_to_is_refused(twins, journey):
    one = twins["thevenin"]
    for seconds in (0.0, 1e6, float("nan")):
        with pytest.raises(CelltwinError, match="too short to adapt to"):
            adapt(one, journey, seconds)
    silent = replace(journey, voltage=np.where(journey.time > 0, np.nan, journey.voltage))
    with pytest.raises(CelltwinError, match="shows no voltage"):
        adapt(one, silent, 300.0)
    with pytest.raises(CelltwinError, match="a twin that says voltage"):
        adapt(replace(one, task="soc"), journey)


def test_a_circuit_that_reads_its_charge_from_the_first_voltage_does_not_take_a_correction_back(twins, journey):
    one, start = twins["thevenin"], start_of(journey)
    moved = -0.01
    voltage = twins_.probe(one.model, start.soc + np.array([moved, 0.0]), float(start.temperature), one.cell)[0]
    plain, alone, both = (
        float(model.init(start).shift)
        for model in (
            one.model,
            Aged.of(one.model, soc=moved),
            Aged.of(one.model, soc=moved, volts=voltage[0] - voltage[1]),
        )
    )
    assert alone > plain + 1e-3
    assert abs(both - plain) < 0.3 * (alone - plain)
