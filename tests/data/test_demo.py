"""The bundled demo data is whole, small and physically sound."""

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from celltwin.data import importers
from celltwin.data.record import Record

DEMO = Path(str(files("celltwin.data") / "demo"))
DESCRIPTION = tomllib.loads((DEMO / "dataset.toml").read_text(encoding="utf-8"))
CYCLES = sorted(DEMO.glob(DESCRIPTION["records"]["files"]))
TESTS = sorted(DEMO.glob("characterisation/*/*/*.parquet"))
AMBIENTS = {"n10degC", "5degC", "25degC", "40degC"}


@cache
def load(path: Path) -> Record:
    return importers.load(path)


def label(path: Path) -> str:
    return "/".join([*path.parts[-3:-1], path.stem])


def capacity_ah(path: Path) -> float:
    return DESCRIPTION["cells"][path.parts[-3]]["reference_capacity_ah"]


every_file = pytest.mark.parametrize("path", CYCLES + TESTS, ids=label)
every_cycle = pytest.mark.parametrize("path", CYCLES, ids=label)


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= 2.0e6


def test_all_cells_cycles_and_temperatures_are_there() -> None:
    cycles = {
        "A": {"Mixed1", "Mixed2", "Mixed3", "HWFET", "UDDS", "US06", "WLTC"},
        "B": {"Mixed1", "UDDS", "US06", "WLTC"},
    }
    expected = {f"{cell}/{ambient}/{name}" for cell in cycles for ambient in AMBIENTS for name in cycles[cell]}
    assert {label(path) for path in CYCLES} == expected
    hppc = {f"A/{ambient}/HPPC" for ambient in AMBIENTS} | {"B/25degC/HPPC"}
    assert {label(path) for path in TESTS} == hppc | {"A/25degC/C20", "B/25degC/C20"}
    assert not list(DEMO.rglob("*.partial"))


@every_file
def test_a_file_loads_without_repair(path: Path) -> None:
    record = load(path)
    assert not [note for note in record.notes if "could not be checked" not in note]
    assert pq.read_schema(path).metadata[b"model"] in {b"DFN", b"SPMe"}
    assert np.isfinite(record.voltage).all()
    assert record.time[0] == 0.0
    assert record.current[0] == 0.0


@every_file
def test_voltage_falls_on_discharge(path: Path) -> None:
    record = load(path)
    moved = np.abs(np.diff(record.current)) > 0.5
    if not moved.any():  # C/20: the steps are smaller
        moved = np.abs(np.diff(record.current)) > 0.1
    assert np.corrcoef(np.diff(record.current)[moved], np.diff(record.voltage)[moved])[0, 1] > 0.8
    assert record.voltage[np.argmin(record.charge_ah)] < record.voltage[0]


@every_file
def test_the_counter_is_the_integral_of_the_current(path: Path) -> None:
    record = load(path)
    assert record.net_capacity is not None
    # Noise and rounding of the current add up, most over the 42 hours of a C/20 test; the counter has no noise.
    np.testing.assert_allclose(record.net_capacity, record.charge_ah, atol=6e-3 if path.stem == "C20" else 2e-3)


@every_file
def test_values_are_within_the_limits_of_the_test(path: Path) -> None:
    record = load(path)
    low, high = DESCRIPTION["cell"]["voltage_limits_volt"]
    assert record.voltage.min() > low - 0.01
    assert record.voltage.max() < high + 0.02
    assert record.temperature.min() > record.ambient_degC - 1.0
    assert record.temperature.max() < record.ambient_degC + 12.0
    assert np.abs(record.current).max() <= 3.01 * DESCRIPTION["cell"]["nominal_capacity_ah"]


@every_cycle
def test_a_cycle_goes_from_full_to_empty_at_1_hz(path: Path) -> None:
    record = load(path)
    soc = 1.0 + record.charge_ah / capacity_ah(path)
    assert -0.02 < soc[-1] < 0.5
    assert soc.max() < 1.001
    assert np.median(record.dt) == 1.0
    assert record.dt.max() < 2.0
    assert record.voltage[0] == pytest.approx(4.2, abs=0.02)


@every_cycle
def test_no_charge_is_taken_back_in_the_cold(path: Path) -> None:
    record = load(path)
    regenerates = bool((record.current > 0.5).any())
    assert regenerates == (record.ambient_degC > 10.0)


@pytest.mark.parametrize("cell", ["A", "B"])
def test_reference_capacity_is_that_of_the_slow_discharge(cell: str) -> None:
    record = load(DEMO / "characterisation" / cell / "25degC" / "C20.parquet")
    assert -record.charge_ah.min() == pytest.approx(DESCRIPTION["cells"][cell]["reference_capacity_ah"], abs=2e-3)
    assert record.voltage.min() == pytest.approx(2.5, abs=2e-3)


def test_the_cells_differ() -> None:
    capacities = [facts["reference_capacity_ah"] for facts in DESCRIPTION["cells"].values()]
    assert capacities[1] / capacities[0] == pytest.approx(0.94, abs=0.01)

    def resistance(cell: str) -> float:
        record = load(DEMO / "characterisation" / cell / "25degC" / "HPPC.parquet")
        pulse = int(np.flatnonzero(record.current < -4.5)[0])
        return float((record.voltage[pulse] - record.voltage[pulse - 1]) / record.current[pulse])

    assert resistance("B") > 1.2 * resistance("A") > 0.0


def test_mixed_cycles_are_different_trips() -> None:
    traces = [load(DEMO / "drive_1hz" / "A" / "25degC" / f"Mixed{k}.parquet").current[500:2500] for k in (1, 2, 3)]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert abs(np.corrcoef(traces[one], traces[other])[0, 1]) < 0.5
