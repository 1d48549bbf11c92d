"""Fewer sensors: errors that go together, told from a few groups."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from celltwin.data.record import Cell
from celltwin.errors import CelltwinError
from celltwin.packs.log import Known, PackLog
from celltwin.packs.sensing import EVERY, Kinship, completed, kinship, of_groups, saving
from celltwin.physics.pack import PackOutput
from celltwin.physics.topology import parse

KIN = Kinship(common=4e-5, near=3e-5, decay=0.6, own=1e-5, sensor=1e-6)


@cache
def pack(name="12s2p", seed=0, samples=400):
    """A pack whose model is wrong in the way of KIN, and the model's output."""
    topology, draw = parse(name), np.random.default_rng(seed)
    group = topology.group
    falling = np.linspace(4.0, 3.1, samples)[:, None] + 0.01 * draw.normal(size=group.max() + 1)[group]
    unknown = np.full(topology.cells, np.nan)
    log = PackLog(
        name=f"{name} {seed}",
        topology=topology,
        cell=Cell("cell", 5.0, (2.5, 4.2), 5.0),
        known=Known(falling[0], np.full(topology.cells, 25.0), unknown, unknown),
        current=np.full(samples, -5.0),
        ambient=np.full(samples, 25.0),
        dt=1.0,
        voltage=falling,
        temperature=np.full_like(falling, 25.0),
    )
    root = np.linalg.cholesky(KIN.covariance(log))
    error = draw.normal(size=(samples, len(root))) @ root.T
    real = falling + error[:, group]
    noisy = real + np.sqrt(KIN.sensor) * draw.normal(size=error.shape)[:, group]
    output = PackOutput(*(falling if field == "voltage" else 0.0 * falling for field in PackOutput._fields))
    return replace(log, voltage=noisy, truth={"voltage": real}), output


def sensed(log, every):
    return np.arange(log.topology.group.max() + 1) % every == every // 2


def test_how_errors_go_together_is_found():
    logs, outputs = zip(*(pack(seed=seed) for seed in range(12)), strict=True)
    found = kinship(logs, outputs, np.sqrt(KIN.sensor))
    for name in ("common", "near", "own"):
        assert getattr(found, name) == pytest.approx(getattr(KIN, name), rel=0.35, abs=4e-6), name
    assert found.decay == pytest.approx(KIN.decay, abs=0.12)
    assert sum((found.common, found.near, found.own)) == pytest.approx(8e-5, rel=0.05)


@pytest.mark.parametrize("name", ["12s2p", "2p7s", "3p+2p+4s2p"])
def test_the_unsensed_are_what_least_squares_says_of_them(name):
    log, output = pack(name)
    known = sensed(log, 2)
    both = completed(log, output, known, KIN)
    np.testing.assert_array_equal(both[:, known], of_groups(log, log.voltage)[:, known])
    error = of_groups(log, log.voltage) - of_groups(log, output.voltage)
    # The same by regression on many draws of the same law.
    draws = np.random.default_rng(1).normal(size=(200_000, len(known))) @ np.linalg.cholesky(KIN.covariance(log)).T
    shown = draws[:, known] + np.sqrt(KIN.sensor) * np.random.default_rng(2).normal(size=(len(draws), known.sum()))
    gain = np.linalg.lstsq(shown, draws[:, ~known], rcond=None)[0]
    expected = of_groups(log, output.voltage)[:, ~known] + error[:, known] @ gain
    np.testing.assert_allclose(both[:, ~known], expected, atol=5e-4)


def test_sensors_and_model_together_beat_either():
    logs, outputs = zip(*(pack(seed=seed) for seed in range(20, 30)), strict=True)
    rows = saving(logs, outputs, KIN)
    assert [row["every"] for row in rows] == list(EVERY)
    for row in rows:
        assert row["both"] < 0.9 * row["model"]
        assert row["both"] < 0.9 * row["sensors"]
        assert row["model"] == pytest.approx(1e3 * np.sqrt(8e-5), rel=0.05)
    assert rows[0]["both"] < rows[1]["both"] < rows[2]["both"]


@with_settings(max_examples=25)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(["12s2p", "2p7s", "3p+2p+4s2p", "6s1p"]))
def test_any_gaps_of_any_sensors_leave_every_group_with_a_voltage(seed, name):
    draw = np.random.default_rng(seed)
    log, output = pack(name)
    groups = log.topology.group.max() + 1
    known, gaps = draw.random(groups) < 0.5, draw.random((len(log), groups)) < 0.3
    broken = replace(log, voltage=np.where(gaps[:, log.topology.group], np.nan, log.voltage))
    both = completed(broken, output, known, KIN)
    assert np.isfinite(both).all()
    whole = completed(log, output, known, KIN)
    untouched = ~(gaps & known).any(axis=1)
    np.testing.assert_allclose(both[untouched], whole[untouched], atol=1e-12)
    none = completed(broken, output, np.zeros(groups, bool), KIN)
    np.testing.assert_array_equal(none, of_groups(log, output.voltage))


def test_what_cannot_be_is_refused():
    log, output = pack()
    with pytest.raises(CelltwinError, match="expected: true or false for each of 12 groups"):
        completed(log, output, np.ones(3, bool), KIN)
    one = pack("1s2p")
    with pytest.raises(CelltwinError, match="two groups"):
        kinship([one[0]], [one[1]], 1e-3)
