"""The training domain: what was measured of the training records, and whether a sample lies inside."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.data.domain import CHANNELS, Domain

RECORDS = [reference.drive("a", seed=1, samples=200), reference.drive("b", seed=2, samples=100, ambient=5.0)]
DOMAIN = Domain.of(RECORDS)


def columns():
    parts = [(r.current, r.temperature, r.soc, r.dt[1:], r.voltage) for r in RECORDS]
    return dict(zip(CHANNELS, (np.concatenate(p) for p in zip(*parts, strict=True)), strict=True))


@pytest.mark.parametrize("channel", CHANNELS)
def test_it_is_what_numpy_measures(channel):
    i, values = CHANNELS.index(channel), columns()[channel]
    measured = [float(getattr(DOMAIN, name)[i]) for name in ("low", "high", "mean", "std")]
    assert measured == pytest.approx([values.min(), values.max(), values.mean(), values.std()], rel=1e-5, abs=1e-6)
    assert DOMAIN.ranges()[channel] == pytest.approx((values.min(), values.max()), rel=1e-6)


def test_scaling_gives_mean_zero_and_deviation_one():
    scaled = DOMAIN.scale("current", jnp.asarray(columns()["current"]))
    assert float(scaled.mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(scaled.std()) == pytest.approx(1.0, abs=1e-4)


def test_a_constant_channel_is_only_centred():
    assert float(DOMAIN.scale("dt", jnp.float32(2.0))) == 0.0
    assert float(DOMAIN.scale("dt", jnp.float32(3.0))) == 1.0


def test_missing_samples_are_left_out():
    voltage = RECORDS[0].voltage.copy()
    voltage[3:50] = np.nan
    domain = Domain.of([replace(RECORDS[0], voltage=voltage)])
    assert np.isfinite(np.asarray([domain.low, domain.high, domain.mean, domain.std])).all()
    assert float(domain.mean[4]) == pytest.approx(np.nanmean(voltage), rel=1e-5)


def test_it_knows_which_records_it_saw():
    assert set(DOMAIN.seen) == {r.content_hash for r in RECORDS}


def inside(current=-1.0, temperature=15.0, soc=0.9, dt=2.0):
    return bool(DOMAIN.contains(*(jnp.float32(v) for v in (current, temperature, soc, dt))))


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ({}, True),
        ({"current": 9.0}, False),
        ({"temperature": 60.0}, False),
        ({"soc": 0.1}, False),
        ({"dt": 30.0}, False),
        ({"dt": 0.0}, True),
    ],
)
def test_one_channel_outside_is_outside(sample, expected):
    assert inside(**sample) is expected


@with_settings(max_examples=60)
@given(channel=st.sampled_from(["current", "temperature", "soc"]), share=st.floats(-1.0, 2.0, width=32))
def test_excess_is_the_distance_beyond_the_margin(channel, share):
    low, high = DOMAIN.ranges()[channel]
    excess = float(DOMAIN.excess(channel, jnp.float32(low + share * (high - low))))
    assert excess == pytest.approx(max(-share - 0.05, share - 1.05, 0.0), abs=1e-4)
