"""The same circuit in celltwin, in NREL's thevenin and in PyBaMM: equal to a tenth of a millivolt at every sample."""

import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from circuits import SOC, TEMPERATURES, assert_same, drive, full, simulated

from celltwin import exchange
from celltwin.errors import CelltwinError

EQUAL = 1e-4  # V, RMSE and worst sample
PLACES = {
    12.0: 6.0,
    -20.0: 2.0,
}  # degC between nodes and beyond them, with the largest current (A) the cell takes there
REASON = "installed by the extra 'peers'"

# One open-circuit voltage at all temperatures, and half the thermal mass of such a cell.
WARMING = full(
    ocv=np.repeat(full().ocv[:, 2:3], 4, axis=1),
    meta={"thermal": {"cell_joule_per_kelvin": 25.0, "cell_to_jig_watt_per_kelvin": 0.03}},
)


def segments(current):
    """Begin and end of each stretch of constant current."""
    return pairwise([0, *(np.flatnonzero(np.diff(current)) + 1).tolist(), len(current)])


def assert_equal_voltages(ours, theirs):
    difference = ours - theirs
    rmse, worst = float(np.sqrt(np.mean(difference**2))), float(np.abs(difference).max())
    print(f"RMSE {1e3 * rmse:.4f} mV, worst {1e3 * worst:.4f} mV of {len(ours)} samples")
    assert max(rmse, worst) < EQUAL


# --- thevenin -------------------------------------------------------------------------------------------------------


@pytest.fixture
def nrel():
    return pytest.importorskip("thevenin", reason=REASON)


def by_thevenin(nrel, parameters, current):
    """Voltage (V) and temperature (degC) at 1 Hz."""
    simulation, experiment = nrel.Simulation(parameters), nrel.Experiment(rtol=1e-7, atol=1e-9)
    for begin, end in segments(current):
        experiment.add_step("current_A", -float(current[begin]), np.arange(end - begin + 1.0))
    steps = [simulation.run_step(experiment, i).vars for i in range(experiment.num_steps)]
    return tuple(np.concatenate([step[key][1:] for step in steps]) for key in ("voltage_V", "temperature_K"))


CIRCUITS = {
    "two pairs": exchange.on_branch(exchange.linear(full())),
    "hysteresis": exchange.one_mode(exchange.linear(full(), at_ampere=3.0)),
}


@pytest.mark.parametrize(("name", "temperature"), [("two pairs", 12.0), ("hysteresis", 12.0), ("hysteresis", -20.0)])
def test_thevenin_gives_the_same_voltage(nrel, name, temperature):
    circuit, current = CIRCUITS[name], drive(1, largest=PLACES[temperature])
    parameters = exchange.to_thevenin(circuit, soc=0.9, temperature=temperature)
    theirs, _ = by_thevenin(nrel, parameters, current)
    assert_equal_voltages(simulated(circuit, current, temperature, 0.9), theirs)


def test_thevenin_gives_the_same_voltage_as_the_cell_warms(nrel):
    """thevenin's temperature is celltwin's input; its open-circuit voltage does not follow it, so neither does ours."""
    circuit, current = exchange.one_mode(exchange.linear(WARMING, at_ampere=3.0)), drive(2, largest=4.0)
    parameters = exchange.to_thevenin(circuit, soc=0.8, temperature=2.0, isothermal=False)
    theirs, kelvin = by_thevenin(nrel, parameters, current)
    assert kelvin[-1] - kelvin[0] > 5.0
    assert_equal_voltages(simulated(circuit, current, kelvin - 273.15, 0.8), theirs)


def test_thevenin_s_prediction_takes_the_same_parameters(nrel):
    prediction = nrel.Prediction(exchange.to_thevenin(CIRCUITS["hysteresis"], soc=0.5))
    state = prediction.take_step(nrel.TransientState(0.5, 298.15, 0.0, np.zeros(2)), 3.0, 10.0)
    assert state.soc == pytest.approx(0.5 - 10.0 / 3600.0)


def test_heat_goes_from_cell_to_jig_to_air():
    ways = {"cell_joule_per_kelvin": 45.0, "cell_to_jig_watt_per_kelvin": 0.2, "jig_to_air_watt_per_kelvin": 0.3}
    circuit = exchange.on_branch(exchange.linear(full(meta={"thermal": ways})))
    parameters = exchange.to_thevenin(circuit, isothermal=False)
    assert parameters["mass"] * parameters["Cp"] == 45.0
    assert parameters["h_therm"] * parameters["A_therm"] == pytest.approx(0.12)


def test_parameters_of_thevenin_come_back():
    """With the same nodes, the same circuit; thevenin's open-circuit voltage is that of one temperature."""
    circuit = exchange.one_mode(exchange.linear(full()))
    parameters = exchange.to_thevenin(circuit, temperature=25.0, isothermal=False)
    back = exchange.from_thevenin(
        parameters, temperatures=TEMPERATURES, soc=SOC, voltage_limits_volt=(2.5, 4.3), name=circuit.name
    )
    different = ("ocv", "ocv_soc", "standard_error", "notes", "meta")
    assert_same(back, circuit, rtol=1e-9, leaving_out=different)
    assert back.meta["thermal"] == pytest.approx(circuit.meta["thermal"])
    np.testing.assert_allclose(back.ocv, np.repeat(np.interp(SOC, circuit.ocv_soc, circuit.ocv[:, 2])[:, None], 4, 1))


def test_thevenin_s_own_example_is_read(nrel):
    with pytest.warns(UserWarning, match="default parameter file"):
        simulation = nrel.Simulation()
    parameters = {key: getattr(simulation, key) for key in simulation._repr_keys}
    parameters |= {key: getattr(simulation, key) for key in ("ocv", "R0", "R1", "C1", "M_hyst")}
    circuit = exchange.from_thevenin(
        parameters, temperatures=[0.0, 25.0], voltage_limits_volt=(2.8, 4.2), soc=np.linspace(0.0, 1.0, 101)
    )
    assert circuit.hysteresis is None
    current = drive(3, seconds=600, largest=150.0)
    expected, _ = by_thevenin(nrel, parameters | {"soc0": 0.9, "isothermal": True, "T_inf": 298.15}, current)
    assert np.abs(simulated(circuit, current, 25.0, 0.9) - expected).max() < 5e-4  # its curve is a polynomial


def test_what_thevenin_does_not_know_is_refused():
    with pytest.raises(CelltwinError, match=r"charge transfer.*exchange\.linear"):
        exchange.to_thevenin(full())
    with pytest.raises(CelltwinError, match=r"got: 2 modes; expected: one; fix: exchange\.one_mode"):
        exchange.to_thevenin(exchange.linear(full()))
    with pytest.raises(CelltwinError, match="how it warms"):
        exchange.to_thevenin(exchange.on_branch(exchange.linear(full(meta={}))), isothermal=False)


@pytest.mark.parametrize("tool", [exchange.to_thevenin, exchange.to_pybamm])
def test_a_core_is_not_dropped_in_silence(tool):
    pytest.importorskip("pybamm", reason=REASON)
    plain = exchange.on_branch(exchange.linear(full()))
    cored = replace(plain, core_kelvin_per_watt=2.0)
    with pytest.raises(CelltwinError, match=r"got: 2 K/W; fix: .*exchange\.without_core"):
        tool(cored)
    simple = exchange.without_core(cored)
    tool(simple)
    assert "2 K/W" in simple.notes[-1]
    assert simple.standard_error.keys() == cored.standard_error.keys()
    assert exchange.without_core(simple) is simple


def test_what_celltwin_does_not_know_is_refused():
    parameters = exchange.to_thevenin(CIRCUITS["two pairs"])
    limits = {"temperatures": [25.0], "voltage_limits_volt": (2.5, 4.3)}
    with pytest.raises(CelltwinError, match=r"got: a coulombic efficiency of 0\.99"):
        exchange.from_thevenin(parameters | {"ce": 0.99}, **limits)
    with pytest.raises(CelltwinError, match=r"missing; got: \['R3', 'C3'\]"):
        exchange.from_thevenin(parameters | {"num_RC_pairs": 3}, **limits)


# --- PyBaMM ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pybamm(monkeypatch):
    monkeypatch.setenv("PYBAMM_DISABLE_TELEMETRY", "true")
    return pytest.importorskip("pybamm", reason=REASON)


def by_pybamm(pybamm, model, values, current, variables=("Voltage [V]",)):
    """Variables at 1 Hz, each stretch of constant current solved by itself."""
    values["Current function [A]"] = "[input]"
    solver = pybamm.IDAKLUSolver(rtol=1e-8, atol=1e-10)
    simulation, found = pybamm.Simulation(model, parameter_values=values, solver=solver), []
    for begin, end in segments(current):
        times = np.arange(end - begin + 1.0)
        load = {"Current function [A]": -float(current[begin])}
        step = simulation.step(times[-1], t_eval=times[[0, -1]], t_interp=times, inputs=load, save=False)
        found.append([step[name].entries[-len(times) + 1 :] for name in variables])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


PYBAMM = {"linear": exchange.linear(full()), "charge transfer": full()}


@pytest.mark.parametrize("name", PYBAMM)
@pytest.mark.parametrize("temperature", PLACES)
def test_pybamm_gives_the_same_voltage(pybamm, name, temperature):
    circuit, current = exchange.on_branch(PYBAMM[name], "discharge"), drive(1, largest=PLACES[temperature])
    model, values = exchange.to_pybamm(circuit, soc=0.9, temperature=temperature)
    (theirs,) = by_pybamm(pybamm, model, values, current)
    assert_equal_voltages(simulated(circuit, current, temperature, 0.9), theirs)


def test_pybamm_gives_the_same_voltage_as_the_cell_warms(pybamm):
    circuit, current = exchange.on_branch(WARMING), drive(2, largest=4.0)
    model, values = exchange.to_pybamm(circuit, soc=0.8, temperature=2.0, isothermal=False)
    theirs, warm = by_pybamm(pybamm, model, values, current, ("Voltage [V]", "Cell temperature [degC]"))
    assert warm[-1] - warm[0] > 5.0
    assert_equal_voltages(simulated(circuit, current, warm, 0.8), theirs)


def test_a_single_resistance_is_a_circuit_too(pybamm, nrel):
    one = np.full((1, 1), 0.03)
    circuit = full(
        temperatures=[25.0],
        ocv=full().ocv[:, 2:3],
        soc=[0.5],
        r0=one,
        r=np.zeros((0, 1, 1)),
        tau=np.zeros((0, 1, 1)),
        **dict.fromkeys(("transfer_resistance", "transfer_scale", "hysteresis", "hysteresis_rate")),
    )
    current = np.repeat([0.0, -3.0, 3.0], 20)
    ours = simulated(circuit, current, 0.0, 0.7)
    assert_equal_voltages(ours, by_pybamm(pybamm, *exchange.to_pybamm(circuit, soc=0.7, temperature=0.0), current)[0])
    assert_equal_voltages(ours, by_thevenin(nrel, exchange.to_thevenin(circuit, soc=0.7, temperature=0.0), current)[0])


def test_the_format_s_own_tools_run_our_document(pybamm):
    """Their tables are linear between nodes, celltwin's log-linear: alike to a millivolt."""
    sim = pytest.importorskip("battwin.sim", reason=REASON)
    circuit, current = exchange.on_branch(exchange.linear(full())), drive(4, seconds=600, largest=3.0)
    build = sim.build_thevenin(exchange.document_of(circuit), initial_soc=0.8, ambient_celsius=25.0)
    build.parameter_values["Cell thermal mass [J/K]"] = 1e9
    (theirs,) = by_pybamm(pybamm, build.model, build.parameter_values, current)
    assert np.abs(simulated(circuit, current, 25.0, 0.8) - theirs).max() < 1e-3


def test_pybamm_starts_full(pybamm):
    model, values = exchange.to_pybamm(exchange.on_branch(full()), soc=1.0)
    (voltage,) = by_pybamm(pybamm, model, values, np.full(10, -3.0))
    assert voltage[-1] < 4.1


def test_parameters_of_pybamm_come_back(pybamm):
    circuit = exchange.on_branch(full())
    _, values = exchange.to_pybamm(circuit, temperature=25.0)
    back = exchange.from_pybamm(values, temperatures=TEMPERATURES, soc=SOC, at_ampere=2.0, name=circuit.name)
    np.testing.assert_allclose(back.r0, exchange.linear(circuit, 2.0).r0, rtol=1e-9)
    np.testing.assert_allclose(back.r, exchange.linear(circuit, 2.0).r, rtol=1e-9)
    np.testing.assert_allclose(back.tau, circuit.tau, rtol=1e-9)
    np.testing.assert_allclose(back.ocv[:, 0], np.interp(SOC, circuit.ocv_soc, circuit.ocv[:, 2]), rtol=1e-9)
    assert (back.capacity_ah, back.voltage_limits_volt) == (3.0, (2.5, 4.3))
    assert "thermal" not in back.meta


def test_pybamm_s_own_example_is_read(pybamm):
    values = pybamm.ParameterValues("ECM_Example")
    circuit = exchange.from_pybamm(values, temperatures=[15.0, 25.0, 35.0], soc=np.linspace(0.0, 1.0, 101))
    assert circuit.pairs == 1
    assert circuit.capacity_ah == 100.0
    assert circuit.meta["thermal"]["cell_joule_per_kelvin"] == 1000.0
    np.testing.assert_allclose(circuit.tau, 30.0, rtol=0.03)
    del values["C1 [F]"]
    with pytest.raises(CelltwinError, match=r"C1 \[F\]"):
        exchange.from_pybamm(values, temperatures=[25.0])


def test_what_pybamm_does_not_know_is_refused(pybamm):
    with pytest.raises(CelltwinError, match=r"hysteresis.*exchange\.on_branch"):
        exchange.to_pybamm(full())
    with pytest.raises(CelltwinError, match="how it warms"):
        exchange.to_pybamm(exchange.on_branch(full(meta={})), isothermal=False)


def test_a_missing_pybamm_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pybamm", None)
    with pytest.raises(CelltwinError, match=r"not installed; fix: pip install 'celltwin\[peers\]'"):
        exchange.to_pybamm(full())
