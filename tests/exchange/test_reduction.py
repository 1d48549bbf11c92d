"""Simpler circuits: the same where they can be, and a note of what they lost."""

import numpy as np
import pytest
from circuits import OCV_SOC, SOC, assert_same, full, simulated

from celltwin import exchange
from celltwin.errors import CelltwinError
from celltwin.exchange.lookup import open_circuit_voltage, positive


def test_lookups_are_what_the_step_reads():
    """At rest and under a held current, once every pair has settled, at nodes and between them."""
    circuit = exchange.on_branch(exchange.linear(full()))
    voltage, resistances = open_circuit_voltage(circuit), [positive(circuit, t) for t in (circuit.r0, *circuit.r)]
    current = np.r_[0.0, np.full(1799, 1e-3)]
    for soc, temperature in [(0.33, 12.0), (0.6, 25.0), (0.95, -25.0), (0.02, 55.0)]:
        settled = simulated(circuit, current, temperature, soc, dt=100.0)
        later = soc + 100.0 * current.sum() / 3600.0 / 3.0
        over = 1e-3 * sum(resistance(later, temperature) for resistance in resistances)
        assert settled[0] == pytest.approx(voltage(soc, temperature), abs=2e-6)
        assert settled[-1] == pytest.approx(voltage(later, temperature) + over, abs=2e-6)


def test_lookups_take_numbers_and_arrays():
    lookup = positive(full(), full().r0)
    soc, temperature = np.meshgrid([-0.5, 0.0, 0.07, 0.5, 1.0, 1.2], [-30.0, -10.0, 0.0, 40.0, 60.0])
    each = [[lookup(s, t) for s, t in zip(*row, strict=True)] for row in zip(soc, temperature, strict=True)]
    np.testing.assert_allclose(lookup(soc, temperature), each, rtol=1e-14)
    assert lookup(0.0, -10.0) == pytest.approx(full().r0[0, 0], rel=1e-14)


def test_a_linear_circuit_is_right_at_its_current():
    circuit = exchange.on_branch(full())
    for current in (0.0, 4.0):
        simple = exchange.linear(circuit, at_ampere=-current)
        assert simple.transfer_resistance is None
        assert f"{current:g} A" in simple.notes[-1]
        assert "r0" not in simple.standard_error
        held = np.full(1800, -current if current else -0.01)
        np.testing.assert_allclose(
            simulated(simple, held, -10.0, 0.8, dt=0.02), simulated(circuit, held, -10.0, 0.8, dt=0.02), atol=2e-6
        )
    assert exchange.linear(simple) is simple


def test_the_chord_of_charge_transfer_is_lower_at_larger_currents():
    each = [exchange.linear(full(), at_ampere=i).r0.max() for i in (0.0, 1.0, 5.0)]
    assert each == sorted(each, reverse=True)
    np.testing.assert_allclose(exchange.linear(full(), at_ampere=1e-6).r0, exchange.linear(full()).r0, rtol=1e-9)


def test_one_mode_reaches_the_same_branches():
    circuit = exchange.linear(full())
    simple = exchange.one_mode(circuit)
    assert simple.hysteresis.shape == (1, len(SOC))
    half_an_hour = np.full(1800, -3.0)
    both = [simulated(c, half_an_hour, 25.0, 0.95)[-1] for c in (circuit, simple)]
    assert both[0] == pytest.approx(both[1], abs=5e-4)
    assert exchange.one_mode(simple) is simple


def test_one_mode_lags_by_the_same_area():
    gap, rate, passed = np.array([[0.01], [0.004]]), np.array([8.0, 80.0]), np.linspace(0.0, 3.0, 30001)
    flat = full(hysteresis=np.repeat(gap, len(SOC), axis=1), hysteresis_rate=rate)
    simple = exchange.one_mode(flat)
    lag = (gap * np.exp(-rate[:, None] * passed)).sum(axis=0)
    one = simple.hysteresis[0, 0] * np.exp(-simple.hysteresis_rate[0] * passed)
    assert np.trapezoid(lag, passed) == pytest.approx(np.trapezoid(one, passed), rel=1e-4)


@pytest.mark.parametrize(("branch", "side"), [("charge", 1), ("discharge", -1), ("mean", 0)])
def test_a_branch_is_where_a_long_current_leads(branch, side):
    circuit = exchange.linear(full(hysteresis=np.repeat([[0.01], [0.004]], len(SOC), axis=1)))
    simple = exchange.on_branch(circuit, branch)
    assert simple.hysteresis is None
    assert branch in simple.notes[-1]
    if side:
        current = np.full(1800, 0.6 * 3.0 * side)
        start = 0.2 if side > 0 else 0.8
        both = [simulated(c, current, 25.0, start, dt=2.0)[-1] for c in (circuit, simple)]
        assert both[0] == pytest.approx(both[1], abs=3e-4)
    else:
        np.testing.assert_array_equal(simple.ocv, circuit.ocv)
        np.testing.assert_array_equal(simple.ocv_soc, OCV_SOC)
    assert exchange.on_branch(simple, branch) is simple


def test_no_such_branch():
    with pytest.raises(CelltwinError, match="got: middle; expected: mean or charge or discharge"):
        exchange.on_branch(full(), "middle")


def test_what_is_simple_already_is_left_alone():
    simple = exchange.on_branch(exchange.linear(full()))
    assert_same(exchange.one_mode(exchange.on_branch(exchange.linear(simple, 3.0), "charge")), simple)
