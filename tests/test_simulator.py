"""The call from NumPy gives what the simulation gives, for records of any length."""

import numpy as np
import pytest

from celltwin.errors import CelltwinError
from celltwin.interface import Input, inputs_of, simulate_records, start_of
from celltwin.simulator import SHORTEST, Simulator


def test_it_is_the_simulation(twin, drives):
    record = drives["5degC", "LA92"]
    simulator, start, inputs = Simulator(twin.model), start_of(record), inputs_of(record)
    whole = simulate_records(twin.model, [record])[0]
    for samples in (600, 1):
        output = simulator(start, Input(*(column[:samples] for column in inputs)))
        assert isinstance(output.voltage, np.ndarray)
        assert output.voltage.dtype == output.soc.dtype == np.float32
        assert output.voltage.shape == (samples,)
        np.testing.assert_allclose(output.voltage, whole.voltage[:samples], atol=1e-5)
        np.testing.assert_allclose(output.soc, whole.soc[:samples], atol=1e-6)


def test_columns_may_be_numbers_in_any_precision(twins, drives):
    record = drives["25degC", "LA92"]
    simulator, start = Simulator(twins["thevenin"].model), start_of(record, np.float64)
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
def test_inputs_of_the_wrong_shape_are_refused(twins, drives, columns, got):
    simulator, start = Simulator(twins["hold"].model), start_of(drives["25degC", "LA92"])
    with pytest.raises(CelltwinError, match=rf"inputs of the wrong shape; got: {got}.*expected: columns \[time\]"):
        simulator(start, Input(*columns))


def test_a_start_of_arrays_is_refused(twins, drives):
    simulator, start = Simulator(twins["hold"].model), start_of(drives["25degC", "LA92"])
    several = start._replace(soc=np.ones(3))
    with pytest.raises(CelltwinError, match=r"a start of the wrong shape; got: voltage \[\], .*soc \[3\]"):
        simulator(several, Input(np.ones(5), 20.0, 1.0))  # pyright: ignore[reportArgumentType]


def test_few_programs_serve_all_lengths(twins):
    simulator = Simulator(twins["hold"].model, lengths=[3600, 100])
    assert [simulator.padded(n) for n in (1, 64, 65, 80, 81, 100, 101, 1000)] == [40, 64, 80, 80, 96, 100, 112, 1024]
    assert [simulator.padded(n) for n in (3585, 3600, 3601)] == [3600, 3600, 4096]
    plain = Simulator(twins["hold"].model)
    padded = {plain.padded(n) for n in range(1, 100_000)}
    assert len(padded) < 50
    assert all(n <= plain.padded(n) <= max(1.25 * n + 1, SHORTEST) for n in range(1, 100_000))
