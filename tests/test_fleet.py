"""Many circuits at once give what each gives alone, whatever they consist of and however they are loaded."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from celltwin import fleet
from celltwin.errors import CelltwinError
from celltwin.fleet import Fleet
from celltwin.interface import Input, Start, simulate
from celltwin.physics.circuit import Circuit
from celltwin.physics.thevenin import Thevenin

SOC, TEMPERATURES = np.array([0.0, 0.1, 0.3, 0.35, 0.7, 1.0]), np.array([0.0, 25.0])
SAME = 1e-5  # V


def circuit(capacity=3.0, shape=0.4, tau_shape=0.3, bent=False, modes=0, pairs=2, **changes) -> Circuit:
    cold = np.array([2.0, 1.0])
    empty = np.exp(shape * (1.0 - SOC))[:, None] * cold
    warm = np.ones((len(SOC), 2))
    tables = {
        "r0": 0.02 * empty,
        "r": np.array([0.01, 0.015, 0.02])[:pairs, None, None] * empty,
        "tau": np.array([5.0, 60.0, 600.0])[:pairs, None, None] * np.exp(tau_shape * SOC)[:, None] * warm,
        "ocv": 3.3 + 0.8 * SOC[:, None] ** 1.5 + np.array([0.0, 0.005]),
        "transfer_resistance": 0.03 * empty if bent else None,
        "transfer_scale": np.array([0.03, 0.04]) if bent else None,
        "hysteresis": np.linspace(0.005, 0.02, len(SOC)) * np.ones((modes, 1)) if modes else None,
        "hysteresis_rate": 10.0 ** np.arange(1, modes + 1) if modes else None,
    }
    return Circuit("cell", capacity, (2.5, 4.3), TEMPERATURES, ocv_soc=SOC, soc=SOC, **tables | changes)


def drive(samples=700, seed=0):
    draw = np.random.default_rng(seed)
    return np.repeat(draw.normal(-1.0, 2.0, samples), draw.integers(1, 9, samples))[:samples]


_simulate = jax.jit(simulate)


def alone(one, current, dt, temperature, soc):
    """Voltage of one cell by its own run."""
    model = Thevenin.of(one)
    ocv = model.ocv(jnp.float32(soc), jnp.float32(temperature))
    start = Start(*(jnp.float32(x) for x in (float(ocv), 0.0, temperature, soc, one.capacity_ah)))
    columns = (current, np.full_like(current, temperature), np.broadcast_to(dt, current.shape))
    return np.asarray(_simulate(model, start, Input(*(jnp.asarray(x, jnp.float32) for x in columns))).voltage)


@pytest.mark.parametrize(
    "parts",
    [{}, {"tau_shape": 0.0}, {"shape": 0.0, "tau_shape": 0.0}, {"bent": True, "modes": 1}, {"pairs": 0, "modes": 2}],
    ids=["moving", "constant tau", "constant", "everything", "no pairs"],
)
def test_each_cell_is_what_it_is_alone(parts):
    kinds = [circuit(3.0, **parts), circuit(2.5, **{"shape": 0.6} | parts), circuit(4.0, **parts)]
    temperature, soc = np.array([25.0, 10.0, -5.0]), np.array([0.95, 0.8, 0.6])
    for dt in (2.0, np.random.default_rng(0).choice([0.1, 1.0, 5.0], 700)):
        found = Fleet(kinds, temperature=temperature, soc=soc).simulate(drive(), dt, every_sample=True)
        assert found.voltages is not None
        for n, kind in enumerate(kinds):
            expected = alone(kind, drive(), dt, temperature[n], soc[n])
            np.testing.assert_allclose(found.voltages[:, n], expected, atol=SAME)
        np.testing.assert_array_equal(found.voltage, found.voltages[-1])
        np.testing.assert_array_equal(found.lowest, found.voltages.min(axis=0))
        np.testing.assert_array_equal(found.highest, found.voltages.max(axis=0))


@pytest.mark.parametrize("dt", [0.02, 20.0, 700.0])
def test_slow_and_fast_walks_through_the_tables(dt):
    # From hardly moving to jumping over several intervals in one step, and past both ends.
    current = drive(130)
    found = Fleet(circuit(), soc=0.6).simulate(current, dt, every_sample=True)
    assert found.voltages is not None
    np.testing.assert_allclose(found.voltages[:, 0], alone(circuit(), current, dt, 25.0, 0.6), atol=SAME)


@with_settings(max_examples=100)
@given(
    nodes=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12, unique=True).map(sorted),
    span=st.floats(0.0, 1.5),
    start=st.floats(-0.5, 1.5),
)
def test_no_walk_touches_more_intervals_than_are_opened(nodes, span, start):
    nodes = np.array(nodes)
    inside = np.clip([start, start + span], nodes[0], nodes[-1])
    first, last = np.clip(np.searchsorted(nodes, inside, side="right") - 1, 0, len(nodes) - 2)
    assert last - first + 1 <= fleet._touched(span, tuple(nodes.tolist()))


def test_many_cells_of_one_kind_in_several_groups(monkeypatch):
    monkeypatch.setattr(fleet, "GROUP", 4)
    temperature, scale = np.linspace(0.0, 40.0, 11), np.linspace(0.8, 1.3, 11)
    current = np.stack([drive(300, seed=n) for n in range(11)], axis=1)
    dt = np.random.default_rng(3).choice([1.0, 3.0], current.shape)
    for cores in (1, 3):
        found = Fleet(circuit(), 11, temperature=temperature, soc=0.9, scale=scale).simulate(
            current, dt, every_sample=True, cores=cores
        )
        assert found.voltages is not None
        for n in (0, 4, 10):
            louder = circuit(r0=circuit().r0 * scale[n], r=circuit().r * scale[n])
            expected = alone(louder, current[:, n], dt[:, n], temperature[n], 0.9)
            np.testing.assert_allclose(found.voltages[:, n], expected, atol=SAME)


def test_it_goes_on_where_it_ended():
    cells = Fleet([circuit(modes=1), circuit(2.0, modes=1)], soc=0.9)
    whole, first = cells.simulate(drive(), 1.0, every_sample=True), cells.simulate(drive()[:333], 1.0)
    second = cells.simulate(drive()[333:], 1.0, every_sample=True, state=first.state)
    assert whole.voltages is not None
    np.testing.assert_allclose(second.voltages, whole.voltages[333:], atol=SAME)
    np.testing.assert_allclose(second.soc, whole.soc, atol=1e-6)


def test_measured_cells_are_scored():
    cells = Fleet(circuit(), 3, soc=0.9)
    found = cells.simulate(drive(), 1.0, every_sample=True)
    assert found.voltages is not None
    assert found.rmse is None
    measured = found.voltages + np.array([0.01, -0.02, 0.0])
    measured[100:300, 0], measured[:, 2] = np.nan, np.nan
    again = cells.simulate(drive(), 1.0, measured=measured)
    assert again.voltages is None
    np.testing.assert_allclose(again.rmse, [0.01, 0.02, np.nan], rtol=1e-4)


def test_charge_is_conserved_over_days():
    current, cells = np.tile([-0.1, 0.1, 0.1, -0.1], 50_000), 3
    found = Fleet(circuit(), cells, soc=0.5).simulate(current, 1.0)
    np.testing.assert_allclose(found.soc, 0.5, atol=2e-7)
    drained = Fleet(circuit(), cells, soc=0.9).simulate(np.full(500_000, -0.01), 1.0)
    np.testing.assert_allclose(drained.soc, 0.9 - 500_000 * 0.01 / (3600.0 * 3.0), atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(CelltwinError, match="does not fit into a fleet"):
        Fleet([circuit(), circuit(bent=True)])
    with pytest.raises(CelltwinError, match=r"does not fit.*got: 3 RC pairs"):
        Fleet([circuit(), circuit(pairs=3)])
    with pytest.raises(CelltwinError, match=r"core warmer.*exchange\.without_core"):
        Fleet(replace(circuit(), core_kelvin_per_watt=1.0))
    with pytest.raises(CelltwinError, match="2 circuits for 3 cells"):
        Fleet([circuit(), circuit()], 3)
    with pytest.raises(CelltwinError, match="current of a fleet"):
        Fleet(circuit(), 2).simulate(np.zeros((10, 3)), 1.0)
    with pytest.raises(CelltwinError, match="dt of a fleet"):
        Fleet(circuit(), 2).simulate(np.zeros(10), np.ones(9))
    with pytest.raises(CelltwinError, match="measured voltage of a fleet"):
        Fleet(circuit(), 2).simulate(np.zeros(10), 1.0, measured=np.zeros((10, 3)))


def test_it_stays_single_where_all_of_jax_is_double():
    # As it is once PyBaMM is imported; not by the context of a thread, for a fleet has several.
    single, double = [], []
    for double_everywhere, found in ((False, single), (True, double)):
        jax.config.update("jax_enable_x64", double_everywhere)
        result = Fleet(circuit(bent=True, modes=1), 3, soc=0.8).simulate(drive(300), 1.0, every_sample=True)
        found += [np.asarray(x) for x in (result.voltage, result.lowest, result.highest, result.soc)]
    for a, b in zip(single, double, strict=True):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=SAME)
