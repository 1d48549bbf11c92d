"""Cost on a microcontroller: the emulated processor says what Python says, and what is large costs more."""

import numpy as np
import pytest

from celltwin.deploy import cost
from celltwin.errors import CelltwinError
from celltwin.evaluation.report.metrics import Microcontroller, ModelFacts
from celltwin.evaluation.report.tables import microcontroller_columns
from celltwin.interface import measurements_of, start_of, unknown_start

tools = pytest.mark.skipif(not cost.available(), reason="no arm-none-eabi-gcc or no qemu-system-arm")
SAMPLES = 15


def spent(twin, source, record, cpu):
    start = (unknown_start if twin.task == "soc" else start_of)(record)
    columns = (record.current, record.filled_temperature, record.dt)
    inputs = np.stack(measurements_of(record) if twin.task == "soc" else columns, axis=1)[:SAMPLES]
    return cost.measure(source, start, inputs, cpu)


@tools
@pytest.mark.parametrize("cpu", cost.BOARDS)
def test_an_emulated_processor_says_what_python_says(cpu, twin_of, emitted, journey):
    twin, record = twin_of("soc-observer"), journey.between(0, SAMPLES)
    real, small = (spent(twin, emitted("soc-observer", weights=w), record, cpu) for w in ("real", "int8"))
    estimated = twin.estimate(record)
    np.testing.assert_allclose(real.said, np.stack(estimated, axis=1), atol=1e-5)
    weights = sum(int(np.prod(layer.weight.shape)) for layer in (twin.model.gates, twin.model.candidate))
    assert 4 * weights < real.flash < 4 * weights + 20_000
    assert 2.5 * weights < real.flash - small.flash < 3.2 * weights
    assert 4 * 60 < real.ram < 1000
    assert 500 < real.stack < 4000
    assert weights < real.instructions < 20 * weights
    assert real.microseconds == pytest.approx(real.instructions * cost.BOARDS[cpu].cycles / 160)


@tools
def test_the_library_is_counted_and_the_harness_is_not(twin_of, emitted, journey):
    record = journey.between(0, SAMPLES)
    hold = spent(twin_of("hold"), emitted("hold"), record, "cortex-m4")
    ohmic = spent(twin_of("ohmic"), emitted("ohmic"), record, "cortex-m4")
    assert 200 < hold.flash < 3000
    assert hold.flash < ohmic.flash
    assert hold.instructions < 300 < ohmic.instructions


def test_missing_tools_and_unknown_processors_are_named(emitted, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert not cost.available()
    with pytest.raises(CelltwinError, match=r"tools for microcontrollers.*apt install"):
        cost.measure(emitted("hold"), None, np.zeros((1, 3)))
    monkeypatch.setattr(cost, "available", lambda: True)
    with pytest.raises(CelltwinError, match=r"no such processor.*cortex-m4"):
        cost.measure(emitted("hold"), None, np.zeros((1, 3)), "z80")


def test_a_leaderboard_has_columns_for_it_where_it_was_measured():
    figures = {"flash_bytes": 2048, "ram_bytes": 96, "stack_bytes": 500, "instructions": 1e4}
    measured = ModelFacts(
        name="a", microcontroller=Microcontroller(cpu="cortex-m4", estimated_microseconds=93.75, **figures)
    )
    other = ModelFacts(name="b")
    assert microcontroller_columns([other]) == []
    columns = microcontroller_columns([other, measured])
    assert [c.value(measured) for c in columns] == [2.0, 96, 500, pytest.approx(0.09375)]
    assert [c.value(other) for c in columns] == [None] * 4
    assert [c.heading for c in columns][3] == "Cortex-m4 (ms, estimate)"
