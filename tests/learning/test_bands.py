"""Bands hold the share they state of exchangeable errors, fall back where there are few, and are none without any."""

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celltwin import jobs
from celltwin.learning import bands
from celltwin.learning.bands import Bands, Errors, calibrate, conformal_quantile, errors_of


def errors(seed, *, samples=4000, size=0.01, temperature=25.0, soc=(0.0, 1.0), seconds=10.0):
    """Errors of a cycle, half-normal, three times as large empty as full."""
    draw = np.random.default_rng(seed)
    charge = np.linspace(soc[1], soc[0], samples)
    spread = size * (3 - 2 * charge)
    degrees = temperature + draw.uniform(-3, 3, samples)
    return Errors(np.abs(spread * draw.normal(size=samples)), charge, degrees, seconds)


# --- the quantile --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.95]))
def test_the_quantile_is_that_of_a_plain_loop(scores, level):
    """The least score that at least (n + 1) level of n scores do not exceed."""
    enough = [s for s in sorted(scores) if sum(other <= s for other in scores) >= ceil((len(scores) + 1) * level)]
    assert conformal_quantile(np.array(scores), level) == (enough[0] if enough else np.inf)


def test_one_more_score_lies_below_the_quantile_as_often_as_stated():
    draw = np.random.default_rng(0)
    scores = draw.exponential(size=(20_000, 20))
    below = [new <= conformal_quantile(known) for *known, new in map(np.array, scores) for known in [np.array(known)]]
    assert np.mean(below) == pytest.approx(18 / 20, abs=0.01)  # ceil(20 * 0.9) of 19 scores


# --- calibration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_bands_hold_what_they_state_where_cycles_are_alike(seed):
    """Training flatters by a factor; what is new is as validation is, in every part of the range."""
    trained = [errors((seed, k), size=0.004, temperature=t) for k in range(3) for t in (5.0, 25.0)]
    held = [errors((seed, 10 + k), temperature=t) for k, t in enumerate((5.0, 25.0))]
    made = calibrate(trained, held)
    assert made.inflation == pytest.approx(2.5, rel=0.1)
    assert made.cycles == 2
    for temperature in (5.0, 25.0):
        new = errors((seed, 99), samples=50_000, temperature=temperature)
        inside = new.size <= made.half_width(new.soc, new.temperature)
        assert inside.mean() == pytest.approx(0.9, abs=0.015)
        for low in (0.0, 0.25, 0.5, 0.75):
            part = (new.soc >= low) & (new.soc < low + 0.25)
            assert inside[part].mean() == pytest.approx(0.9, abs=0.05)


def test_bands_are_wider_where_errors_are_larger():
    made = calibrate([errors(0, samples=40_000)], [errors(1)])
    empty, full = made.half_width([0.05, 0.8], [25.0, 25.0])
    assert empty / full == pytest.approx(2.9 / 1.4, rel=0.1)


def test_a_bin_without_samples_takes_what_is_known_of_its_temperature_and_that_of_all():
    cold, warm = errors(0, size=0.02, temperature=-20.0, soc=(0.5, 1.0)), errors(1, size=0.01, temperature=25.0)
    made = calibrate([cold, warm], [cold, warm])
    width = np.array(made.half_width_volt)
    at = list(made.temperature_degC)
    assert at == [-22.5, -7.5, 7.5, 22.5]
    pooled = made.inflation * np.quantile(np.r_[cold.size, warm.size], 0.9)
    np.testing.assert_allclose(width[1:3], pooled, rtol=1e-9)  # between the two temperatures nothing was seen
    np.testing.assert_allclose(width[0, :5], width[0, 0], rtol=1e-9)  # cold and empty: as the cold is on the whole
    assert width[0, 0] > 1.3 * width[3, 7]
    assert np.isfinite(width).all()


def test_few_seconds_hardly_move_a_bin():
    many, few = errors(0, soc=(0.7, 1.0)), errors(1, samples=50, size=1.0, soc=(0.31, 0.39), seconds=1.0)
    for seconds, low, high in ((1.0, 0.05, 0.3), (1000.0, 2.0, 6.0)):  # V; the few alone would say 3.8
        width = calibrate([many, replace(few, seconds=seconds)], [many]).half_width([0.35], [25.0])
        assert low < width < high


def test_half_widths_are_linear_between_the_middles_and_constant_beyond():
    made = Bands((0.0, 10.0), ((0.1, 0.2), (0.3, 0.4)))  # states of charge 0.25 and 0.75
    for soc, temperature, expected in (
        (0.25, 0.0, 0.1), (0.5, 0.0, 0.15), (0.5, 5.0, 0.25), (0.75, 10.0, 0.4), (2.0, 99.0, 0.4), (-1.0, -40.0, 0.1),
    ):  # fmt: skip
        assert made.half_width([soc], [temperature])[0] == pytest.approx(expected)


def test_without_records_or_with_too_few_samples_there_are_no_bands():
    some, none = errors(0), errors(0, samples=0)
    assert calibrate([some], []) is None
    assert calibrate([], [some]) is None
    assert calibrate([none], [some]) is None
    assert calibrate([some], [errors(1, samples=8)]) is None  # 8 of 9 are less than 90 %
    assert calibrate([some], [errors(1, samples=9)]) is not None


def test_a_perfect_model_has_a_narrow_band():
    perfect = replace(errors(0), size=np.zeros(4000))
    made = calibrate([perfect], [errors(1, size=0.01)])
    assert made.half_width([0.8], [25.0])[0] > 0.01


# --- of twins ------------------------------------------------------------------------------------------------------


def test_errors_are_those_of_whole_simulations(twins, split):
    one = twins["thevenin"]
    record = split.test[0]
    voltage = record.voltage.copy()
    voltage[100:150] = np.nan
    (found,) = errors_of(one.runner, [replace(record, voltage=voltage)])
    output = one.simulate(record)
    known = np.isfinite(voltage)
    np.testing.assert_allclose(found.size, np.abs(output.voltage - record.voltage)[known], atol=1e-6)
    np.testing.assert_allclose(found.soc, output.soc[known], atol=1e-6)
    np.testing.assert_array_equal(found.temperature, record.filled_temperature[known])
    assert found.seconds == np.median(np.diff(record.time))
    assert errors_of(one.runner, []) == []


def test_a_twin_is_calibrated_on_validation_and_never_on_test(twins, split, monkeypatch):
    seen = []

    def watched(model, records):
        seen.append([r.content_hash for r in records])
        return errors_of(model, records)

    monkeypatch.setattr(bands, "errors_of", watched)
    made = jobs.with_bands(twins["thevenin"], split)
    assert seen == [[r.content_hash for r in side] for side in (split.train, split.validate)]
    held = errors_of(made.runner, split.validate)
    inside = [e.size <= made.bands.half_width(e.soc, e.temperature) for e in held]
    assert 0.9 <= np.concatenate(inside).mean() < 0.91
    assert made.bands.cycles == len(split.validate)
    assert jobs.with_bands(twins["thevenin"], replace(split, validate=())).bands is None


def test_cycles_of_folds_stand_in_for_the_training_records(twins, split):
    """Bands of their errors and of the validation records' together."""
    one = twins["thevenin"]
    unseen = [errors(k, size=0.02) for k in range(4)]
    made = jobs.with_bands(one, split, unseen)
    held = errors_of(one.runner, split.validate)
    everything = [*unseen, *held]
    assert made.bands == calibrate(unseen, everything)
    assert made.bands.cycles == 4 + len(held)
    assert made.card == one.card | {"left_out": {"cycles": 4, "rmse": bands.rmse(unseen)}}
    inside = [e.size <= made.bands.half_width(e.soc, e.temperature) for e in everything]
    assert 0.9 <= np.concatenate(inside).mean() < 0.91
    assert made.bands != jobs.with_bands(one, split).bands
    assert jobs.with_bands(one, replace(split, validate=()), unseen).bands.cycles == 4


def test_the_rmse_of_errors_is_the_mean_over_records():
    three, four = (replace(errors(0, samples=n), size=np.full(n, size)) for n, size in ((10, 0.03), (30, 0.04)))
    assert bands.rmse([three, four]) == pytest.approx(35.0)
