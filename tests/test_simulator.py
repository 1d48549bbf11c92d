"""The call from NumPy gives what the simulation gives, for records of any length."""

import numpy as np
import pytest

from celltwin.deploy import native
from celltwin.errors import CelltwinError
from celltwin.interface import Input, inputs_of, simulate_records, start_of
from celltwin.simulator import AT_ONCE, SHORTEST, Simulator
from celltwin.twin import load


@pytest.fixture(params=["C", "JAX"])
def way(request, monkeypatch):
    """With a C compiler and without one."""
    if request.param == "JAX":
        monkeypatch.setattr(native, "compiler", lambda: None)
    elif native.compiler() is None:
        pytest.skip("no C compiler")
    return request.param


@pytest.fixture
def without_compiler(monkeypatch):
    monkeypatch.setattr(native, "compiler", lambda: None)


def test_it_is_the_simulation(twin, drives, way):
    record = drives["5degC", "LA92"]
    simulator, start, inputs = Simulator(twin), start_of(record), inputs_of(record)
    whole = simulate_records(twin.runner, [record])[0]
    for samples in (600, AT_ONCE, 1):
        output = simulator(start, Input(*(column[:samples] for column in inputs)))
        assert isinstance(output.voltage, np.ndarray)
        assert output.voltage.dtype == output.soc.dtype == np.float32
        assert output.voltage.shape == (samples,)
        np.testing.assert_allclose(output.voltage, whole.voltage[:samples], atol=1e-5)
        np.testing.assert_allclose(output.soc, whole.soc[:samples], atol=1e-6)


def test_columns_may_be_numbers_in_any_precision(twins, drives, way):
    record = drives["25degC", "LA92"]
    simulator, start = Simulator(twins["thevenin"]), start_of(record, np.float64)
    numbers = simulator(start, Input(record.current, 20.0, 1))  # pyright: ignore[reportArgumentType]
    arrays = simulator(start, Input(record.current, np.full(len(record), 20.0), np.ones(len(record))))
    np.testing.assert_array_equal(numbers.voltage, arrays.voltage)


@pytest.mark.parametrize(
    ("columns", "got"),
    [
        ((1.0, 20.0, 1.0), r"current \[\], temperature \[\], dt \[\]"),
        (([], 20.0, 1.0), r"current \[0\]"),
        ((np.ones(5), 20.0, np.ones(4)), r"current \[5\], temperature \[\], dt \[4\]"),
        ((np.ones((5, 1)), 20.0, 1.0), r"current \[5, 1\]"),
    ],
)
def test_inputs_of_the_wrong_shape_are_refused(twins, drives, without_compiler, columns, got):
    simulator, start = Simulator(twins["hold"]), start_of(drives["25degC", "LA92"])
    with pytest.raises(CelltwinError, match=rf"inputs of the wrong shape; got: {got}.*expected: columns \[time\]"):
        simulator(start, Input(*columns))


def test_a_start_of_arrays_is_refused(twins, drives, without_compiler):
    simulator, start = Simulator(twins["hold"]), start_of(drives["25degC", "LA92"])
    several = start._replace(soc=np.ones(3))
    with pytest.raises(CelltwinError, match=r"a start of the wrong shape; got: voltage \[\], .*soc \[3\]"):
        simulator(several, Input(np.ones(5), 20.0, 1.0))  # pyright: ignore[reportArgumentType]


def test_few_programs_serve_all_lengths(twins, without_compiler):
    simulator = Simulator(twins["hold"], lengths=[3600, 100])
    assert [simulator.padded(n) for n in (1, 64, 65, 80, 81, 100, 101, 1000)] == [40, 64, 80, 80, 96, 100, 112, 1024]
    assert [simulator.padded(n) for n in (3585, 3600, 3601)] == [3600, 3600, 4096]
    plain = Simulator(twins["hold"])
    padded = {plain.padded(n) for n in range(1, 100_000)}
    assert len(padded) < 50
    assert all(n <= plain.padded(n) <= max(1.25 * n + 1, SHORTEST) for n in range(1, 100_000))


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler")
def test_long_records_of_a_circuit_alone_are_simulated_at_once(twins):
    circuit, network = Simulator(twins["thevenin"]), Simulator(twins["lstm"])
    assert circuit.padded(AT_ONCE) == network.padded(AT_ONCE) == AT_ONCE
    assert circuit.padded(AT_ONCE + 1) > AT_ONCE + 1  # JAX compiles for few lengths
    assert network.padded(AT_ONCE + 1) == AT_ONCE + 1


def test_an_estimator_is_refused():
    with pytest.raises(CelltwinError, match="voltage"):
        Simulator(load("lg_18650hg2/soc"))
