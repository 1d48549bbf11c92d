"""PyBaMM's solutions become records with celltwin's sign, and simulations answer as solutions do."""

import numpy as np
import pytest

import reference
from celltwin import exchange
from celltwin.errors import CelltwinError


class Answers:
    """What a solution is to `record_of`: entries by name."""

    def __init__(self, **columns):
        self.columns = columns

    def __getitem__(self, name):
        return type("Entries", (), {"entries": self.columns[name]})


COLUMNS = {
    "Time [s]": [0.0, 10.0, 10.0, 20.0],
    "Voltage [V]": [4.1, 4.0, 4.05, 4.06],
    "Current [A]": [1.0, 1.0, -0.5, -0.5],
}


def test_the_sign_is_turned_and_a_time_told_twice_keeps_what_flowed_before():
    record = exchange.record_of(Answers(**COLUMNS, **{"Cell temperature [K]": [298.15, 299.15, 299.15, 300.15]}))
    assert list(record.time) == [0.0, 10.0, 20.0]
    assert list(record.current) == [-1.0, -1.0, 0.5]
    assert list(record.voltage) == [4.1, 4.0, 4.06]
    np.testing.assert_allclose(record.temperature, [25.0, 26.0, 27.0])


def test_what_is_no_solution_is_refused():
    with pytest.raises(CelltwinError, match=r"no Current \[A\]"):
        exchange.record_of(Answers(**{k: v for k, v in COLUMNS.items() if k != "Current [A]"}))
    assert np.isnan(exchange.record_of(Answers(**COLUMNS)).temperature).all()


def test_a_twin_s_simulation_answers_as_a_solution(twins, split):
    record = split.test[0]
    output = twins["thevenin"].simulate(record)
    solution = exchange.Solution(record, output)
    assert set(solution) >= {"Time [h]", "Terminal voltage [V]", "Volume-averaged cell temperature [K]"}
    np.testing.assert_array_equal(solution["Voltage [V]"].entries, np.asarray(output.voltage, float))
    np.testing.assert_array_equal(solution["Current [A]"].data, -record.current)
    halfway = 0.5 * (record.time[3] + record.time[4])
    assert solution["Voltage [V]"](halfway) == pytest.approx(np.mean(output.voltage[3:5]), abs=1e-6)
    capacity = record.cell.reference_capacity_ah
    assert solution["Discharge capacity [A.h]"].entries[-1] == pytest.approx(
        capacity * float(solution["SoC"].entries[0] - solution["SoC"].entries[-1]), abs=1e-3
    )
    again = exchange.record_of(solution, cell=reference.CELL, initial_soc=record.initial_soc)
    for column in ("time", "current"):
        np.testing.assert_array_equal(getattr(again, column), getattr(record, column))
    with pytest.raises(KeyError, match=r"best matches are \['Voltage"):
        solution["Voltage"]


def test_a_twin_is_learned_from_pybamm(tmp_path):
    pybamm = pytest.importorskip("pybamm", reason="the peers extra is not installed")
    from celltwin import models
    from celltwin.data.domain import Domain
    from celltwin.data.record import Cell
    from celltwin.twin import Twin

    experiment = pybamm.Experiment(
        [("Discharge at C/2 for 40 minutes", "Rest for 10 minutes") * 2], period="20 seconds"
    )
    model = pybamm.lithium_ion.SPM()
    solved = pybamm.Simulation(model, experiment=experiment).solve()
    cell = Cell("Marquis2019", 0.68, (3.1, 4.1), 0.68)
    record = exchange.record_of(solved, cell=cell, initial_soc=1.0, name="C/2 with rests")
    assert record.charge_ah[-1] < -0.3  # a discharge is negative
    assert (np.diff(record.time) > 0).all()
    ohmic = models.family("ohmic").create([record], None, None, None)
    simulated = Twin("ohmic", ohmic, Domain.of([record]), cell).simulate(record)
    error = 1e3 * np.sqrt(np.mean((np.asarray(simulated.voltage) - record.voltage) ** 2))
    assert error < 30.0
