"""The call from NumPy gives what the simulation gives, for records of any length."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from celltwin.deploy import native
from celltwin.deploy.stream import Sample, Stream
from celltwin.errors import CelltwinError
from celltwin.interface import Input, Output, inputs_of, simulate_records, start_of
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
def test_long_records_of_a_circuit_alone_are_simulated_at_once(twins, drives, monkeypatch):
    circuit, network = Simulator(twins["thevenin"]), Simulator(twins["lstm"])
    assert circuit.padded(AT_ONCE) == network.padded(AT_ONCE) == AT_ONCE
    assert circuit.padded(AT_ONCE + 1) > AT_ONCE + 1  # JAX compiles for few lengths
    assert network.padded(AT_ONCE + 1) == AT_ONCE + 1
    calls = []
    whole = native.Native.whole
    monkeypatch.setattr(native.Native, "whole", lambda *given: calls.append(given[2]) or whole(*given))
    start, columns = start_of(drives["25degC", "LA92"]), inputs_of(drives["25degC", "LA92"])
    for simulator, samples in ((circuit, AT_ONCE), (circuit, AT_ONCE + 1), (network, AT_ONCE + 1)):
        simulator(start, Input(*(column[:samples] for column in columns)))
    assert calls == [AT_ONCE, AT_ONCE + 1]


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler")
def test_whatever_is_measured_c_says_what_jax_says(twins, drives, monkeypatch):
    record, number = drives["5degC", "LA92"], np.random.default_rng(0)
    inputs = [np.array(column[:200]) for column in inputs_of(record)]
    for column in inputs:
        column[number.integers(0, 200, 8)] = [np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, 1e-40, 3.0]
    for name in ("thevenin", "hybrid-gru", "lstm"):
        by_c = Simulator(twins[name])(start_of(record), Input(*inputs))
        with monkeypatch.context() as patch:
            patch.setattr(native, "compiler", lambda: None)
            by_jax = Simulator(twins[name])(start_of(record), Input(*inputs))
        assert np.isfinite(by_c.voltage).all()
        np.testing.assert_allclose(by_c.voltage, by_jax.voltage, atol=1e-5)


class Sorting(eqx.Module):
    """A model of an operation that has no C."""

    def init(self, start):
        return start.soc

    def step(self, state, u):
        return state, Output(3.0 + jnp.sort(jnp.stack([u.current, state]))[1], state)


FOREIGN = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo of another machine > "$2"
"""


@pytest.mark.parametrize("command", [None, "no-such-compiler", "false", "./foreign"])
def test_where_there_is_no_c_jax_simulates_and_the_log_says_so(twins, drives, monkeypatch, caplog, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").write_text(FOREIGN)
    (tmp_path / "foreign").chmod(0o755)
    record = drives["25degC", "LA92"]
    twin = twins["hold"] if command else replace(twins["hold"], model=Sorting())
    if command:
        monkeypatch.setenv("CC", command)
    elif native.compiler() is None:
        pytest.skip("no C compiler")
    output = Simulator(twin)(start_of(record), inputs_of(record))
    np.testing.assert_allclose(output.voltage, twin.simulate(record).voltage, atol=1e-6)
    assert "runs by JAX" in caplog.text
    said = Stream(twin, 0.5).push(Sample(0.0, 3.7, 0.0, 25.0))  # a stream, too
    assert said is not None
    assert said[1] == pytest.approx(0.5)
    with pytest.raises(CelltwinError):
        Stream(twin, 0.5, compiled=True)


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler")
def test_a_twin_may_have_any_name(twins, drives):
    record = drives["25degC", "LA92"]
    for name in ("2rc model", "sem", "ä" * 300):
        output = Simulator(replace(twins["thevenin"], name=name))(
            start_of(record), Input(record.current[:99], 25.0, 1.0)
        )
        plain = Simulator(twins["thevenin"])(start_of(record), Input(record.current[:99], 25.0, 1.0))
        np.testing.assert_array_equal(output.voltage, plain.voltage)


def test_what_is_no_voltage_twin_is_refused(twins):
    with pytest.raises(CelltwinError, match="voltage"):
        Simulator(load("lg_18650hg2/soc"))
    with pytest.raises(CelltwinError, match=r"got: Thevenin; expected: Simulator\(twin\)"):
        Simulator(twins["thevenin"].model)
