"""The networks that estimate state of charge: causal, blind to their label, and the same however they are run."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from celltwin import interface
from celltwin.data.domain import Domain
from celltwin.estimators import signals
from celltwin.estimators.attention import Attention
from celltwin.estimators.convlstm import ConvLstm, patches
from celltwin.estimators.convlstm_reference import ReferenceConvLstm
from celltwin.estimators.feedforward import FeedForward
from celltwin.estimators.gru import Gru
from celltwin.estimators.linear_recurrent import LinearRecurrent
from celltwin.estimators.lstm import Lstm
from celltwin.estimators.network import FLOOR, push, say, strike
from celltwin.estimators.tcn import Tcn
from celltwin.interface import Measurement, Start, estimate_records, measurements_of, unknown_start
from celltwin.learning import training
from celltwin.learning.plan import Plan
from celltwin.models import family
from celltwin.models.layers import sampling_period
from shaking import shaken

TINY = {
    "soc-lstm": (Lstm, {"hidden": 5}),
    "soc-gru": (Gru, {"hidden": 5}),
    "soc-convlstm": (ConvLstm, {"scales": 4, "hidden": 3, "width": 5}),
    "soc-convlstm-reference": (ReferenceConvLstm, {"window": 12, "filters": 4}),
    "soc-tcn": (Tcn, {"channels": 4, "levels": 3, "taps": 2}),
    "soc-fnn": (FeedForward, {"hidden": 5}),
    "soc-attention": (Attention, {"width": 3, "heads": 2, "scales": 4}),
    "soc-lru": (LinearRecurrent, {"channels": 4, "states": 3}),
}
# Memories that leak mean the same at any sampling, beside what a network answers to within a step; delay lines nearly;
# windows of samples do not. Shares of the range.
RESAMPLED = {name: 0.02 for name in TINY if name != "soc-convlstm-reference"} | {"soc-tcn": 0.1, "soc-convlstm": 0.05}
CLOSE = 1e-5  # fraction: what single precision leaves between programs compiled for different shapes


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    """Pieces of a hundred samples, so that every test carries the state over their seams."""
    monkeypatch.setattr(interface, "CHUNK", 100)


@pytest.fixture(scope="module")
def networks(split):
    domain = Domain.of(split.train)
    return {
        name: shaken(kind.create(split.train, domain, jax.random.key(7), **sizes), 3, size=0.3)
        for name, (kind, sizes) in TINY.items()
    }


@pytest.fixture(params=TINY)
def name(request):
    return request.param


@pytest.fixture
def model(name, networks):
    return networks[name]


@pytest.fixture
def record(drives):
    return drives["5degC", "LA92"].between(0, 300)


@jax.jit
def streamed(model, start, inputs):
    """Estimates of `step` after `step`, whatever quicker way a model may have."""
    return jax.lax.scan(lambda state, y: model.step(state, y), model.init(start), inputs)[1]


def stepped(model, record, inputs=None, dtype=np.float32):
    start = unknown_start(record, dtype)
    return streamed(model, start, measurements_of(record, dtype) if inputs is None else inputs)


def uneven(record):
    """The same log at uneven steps, some of them a minute."""
    steps = np.random.default_rng(1).choice([0.1, 0.5, 1.0, 2.0, 7.0, 60.0], len(record))
    return replace(record, time=np.cumsum(steps), net_capacity=None)


# --- what every network keeps to -----------------------------------------------------------------------------------


def test_they_are_registered_in_full_size(name, split):
    entry = family(name)
    assert entry.task == "soc"
    assert entry.plan is not None
    domain = Domain.of(split.train)
    shapes = eqx.filter_eval_shape(lambda key: entry.create(split.train, domain, key, None), jax.random.key(0))
    assert type(shapes) is TINY[name][0]
    assert 1_000 < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < 30_000


def test_it_answers_to_what_it_sees(model, record):
    # Else the tests below could not fail.
    seen = estimate_records(model, [record])[0]
    for column in ("voltage", "current", "temperature"):
        other = replace(record, net_capacity=None, **{column: getattr(record, column) + 0.3})
        assert np.abs(estimate_records(model, [other])[0].soc - seen.soc).max() > 1e-3, column


def test_what_comes_later_does_not_change_what_was(model, record):
    k = 120
    draw = np.random.default_rng(0)
    later = np.arange(len(record)) >= k
    other = replace(
        record,
        voltage=np.where(later, draw.uniform(2.5, 4.2, len(record)), record.voltage),
        current=np.where(later, draw.uniform(-3.0, 1.0, len(record)), record.current),
        temperature=np.where(later, 40.0, record.temperature),
        net_capacity=None,
    )
    before, after = (estimate_records(model, [r])[0] for r in (record, other))
    np.testing.assert_array_equal(before.soc[:k], after.soc[:k])
    np.testing.assert_array_equal(before.std[:k], after.std[:k])
    assert (before.soc[k:] != after.soc[k:]).any()


@pytest.mark.parametrize("change", [lambda r: r, uneven], ids=["even", "uneven"])
def test_a_sample_at_a_time_is_the_whole_record(model, record, change):
    record = change(record)
    whole = estimate_records(model, [record])[0]
    single = stepped(model, record)
    np.testing.assert_allclose(single.soc, whole.soc, atol=CLOSE)
    np.testing.assert_allclose(single.std, whole.std, atol=CLOSE)


def test_the_label_is_in_no_input(model, record):
    draw = np.random.default_rng(0)
    other = replace(record, initial_soc=0.3, net_capacity=draw.uniform(-1.0, 0.0, len(record)))
    assert np.abs(other.soc - record.soc).max() > 0.1
    one, two = (estimate_records(model, [r])[0] for r in (record, other))
    np.testing.assert_array_equal(one.soc, two.soc)
    np.testing.assert_array_equal(one.std, two.std)


def test_a_silent_voltage_holds_its_last_value(model, record):
    silent = (np.arange(len(record)) >= 50) & (np.arange(len(record)) < 80)
    holes = replace(record, voltage=np.where(silent, np.nan, record.voltage))
    held = replace(record, voltage=np.where(silent, record.voltage[49], record.voltage))
    with_holes, with_held = (estimate_records(model, [r])[0] for r in (holes, held))
    np.testing.assert_array_equal(with_holes.soc, with_held.soc)
    assert np.isfinite(with_holes.soc).all()
    assert np.isfinite(with_holes.std).all()


def test_nothing_that_a_sensor_says_breaks_it(model, record):
    draw = np.random.default_rng(2)
    absurd = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, 1e4], np.float32)
    columns = [draw.choice(absurd, 200) for _ in range(3)]
    dt = draw.choice(np.array([0.0, 1e-6, 0.1, 1.0, 1e4, 1e9], np.float32), 200)
    pairs = zip((*columns, dt), measurements_of(record), strict=True)
    said = stepped(model, record, Measurement(*(jnp.asarray(np.r_[odd, calm[:100]]) for odd, calm in pairs)))
    assert np.isfinite(said.soc).all()
    assert np.isfinite(said.std).all()


def test_estimates_are_fractions_with_a_doubt(model, record):
    said = estimate_records(model, [record])[0]
    assert (said.soc >= -0.05).all()
    assert (said.soc <= 1.05).all()
    assert (said.std >= FLOOR / 100.0).all()


@pytest.mark.parametrize("name", RESAMPLED)
def test_ten_samples_for_one_say_the_same(name, networks, record, split):
    """The same signals, held, sampled ten times as fine as in training."""
    period = sampling_period(split.train)
    once = measurements_of(replace(record, time=period * np.arange(len(record)), net_capacity=None))
    steps = np.full(300, 0.1 * period, np.float32)
    steps[:10] = 0.0
    fine = Measurement(*(jnp.asarray(np.repeat(column[:30], 10)) for column in once[:3]), jnp.asarray(steps))
    coarse = np.asarray(stepped(networks[name], record, once).soc)[:30]
    difference = np.asarray(stepped(networks[name], record, fine).soc)[9::10] - coarse
    assert np.abs(difference).mean() < RESAMPLED[name] * np.ptp(coarse)


def test_each_precision_is_kept(model, record, in_double):
    for dtype, cast in ((np.float32, model), (np.float64, in_double(model))):
        inputs = measurements_of(record, dtype)
        with jax.enable_x64(dtype is np.float64), jax.numpy_dtype_promotion("strict"):
            state = jax.eval_shape(cast.init, unknown_start(record, dtype))
            after, said = jax.eval_shape(interface.run, cast, state, inputs)
            once, _ = jax.eval_shape(type(cast).step, cast, state, jax.tree.map(lambda column: column[0], inputs))
        assert said.soc.dtype == said.std.dtype == dtype
        assert state == after == once  # shapes and types


def test_training_lowers_the_loss(name, split):
    kind, sizes = TINY[name]
    model = kind.create(split.train, Domain.of(split.train), jax.random.key(0), **sizes)
    plan = Plan(adam_rounds=2, updates=25, lanes=8, chunk=20, episode=4, learning_rate=1e-2)
    history = training.fit(model, replace(split, validate=()), plan, task="soc").history
    assert history[1].train < 0.8 * history[0].train


# --- their parts ---------------------------------------------------------------------------------------------------


def test_a_clock_counts_seconds_at_any_sampling():
    for dt, times in ((0.1, 95), (1.0, 10), (2.5, 4), (60.0, 3)):
        phase, count = jnp.float32(0.0), 0
        for _ in range(times):
            phase, ticks = strike(phase, jnp.float32(dt), 1.0)
            count += int(ticks.within + ticks.after)
        assert count == int(dt * times + 1e-6), dt


def test_a_delay_line_shifts_by_its_ticks():
    line = jnp.asarray([[3.0], [2.0], [1.0]])
    for ticks, expected in ((0, [3, 2, 1]), (1, [9, 3, 2]), (2, [9, 9, 3]), (3, [9, 9, 9]), (1000, [9, 9, 9])):
        np.testing.assert_array_equal(push(line, jnp.asarray([9.0]), jnp.int32(ticks))[:, 0], expected)


def test_a_patch_holds_the_neighbours_and_zeros_beyond():
    found = patches(jnp.asarray([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]), 1)
    np.testing.assert_array_equal(found, [[0, 0, 1, 10, 2, 20], [1, 10, 2, 20, 3, 30], [2, 20, 3, 30, 0, 0]])


def test_the_gates_of_a_convlstm_are_a_convolution_over_its_scales(networks):
    model = networks["soc-convlstm"]
    rows = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)  # 6 features and 3 hidden, 4 scales
    gates = np.asarray(jax.vmap(model.gates)(patches(jnp.asarray(rows), model.reach)))
    kernel = np.asarray(model.gates.weight).reshape(12, 3, 9)
    expected = np.array(
        [
            model.gates.bias + sum(kernel[:, j] @ rows[s + j - 1] for j in range(3) if 0 <= s + j - 1 < 4)
            for s in range(4)
        ]
    )
    np.testing.assert_allclose(gates, expected, rtol=1e-4, atol=1e-5)


def test_the_reference_carries_nothing_from_one_window_to_the_next(networks, record):
    model = networks["soc-convlstm-reference"]
    reach = 2 * model.window
    other = replace(record, voltage=np.r_[np.full(50, 3.0), record.voltage[50:]])
    one, two = (estimate_records(model, [r])[0].soc for r in (record, other))
    np.testing.assert_array_equal(one[50 + reach :], two[50 + reach :])
    assert np.abs(one[:50] - two[:50]).max() > 1e-3


def test_a_linear_unit_is_exact_at_any_step(networks):
    unit = networks["soc-lru"].layers[0]
    z, drive = jnp.asarray([[0.3, -1.0, 2.0], [0.1, 0.0, -0.5]]), jnp.asarray([[1.0, 0.2, 0.0], [0.0, -1.0, 0.3]])
    rate = np.exp(np.asarray(unit.log_rate, float)) + 1j * np.exp(np.asarray(unit.log_turn, float))
    for dt in (0.1, 1.0, 30.0):
        once = unit.advance(z, drive, jnp.float32(dt))
        twice = unit.advance(unit.advance(z, drive, jnp.float32(0.4 * dt)), drive, jnp.float32(0.6 * dt))
        exact = np.exp(-rate * dt) * ((z[0] + 1j * z[1]) - (drive[0] + 1j * drive[1])) + (drive[0] + 1j * drive[1])
        np.testing.assert_allclose(once, [exact.real, exact.imag], atol=1e-5)
        np.testing.assert_allclose(once, twice, atol=1e-5)


def test_a_network_may_not_claim_to_know_everything():
    certain = say(jnp.asarray([0.2, -1e9]))
    lost = say(jnp.asarray([1e9, 1e9]))
    assert float(certain.std) >= FLOOR / 100.0
    assert float(certain.soc) == pytest.approx(0.7)
    assert float(lost.soc) == pytest.approx(1.05)
    assert float(lost.std) < 1.0


def test_trailing_means_do_not_drift_in_single_precision():
    """Half an hour at 0.1 s, of a voltage that is large and moves little: means as in double precision."""
    draw = np.random.default_rng(3)
    n = 18_000
    voltage = 3.7 + 0.1 * np.sin(np.arange(n) / 900.0) + 0.02 * draw.normal(size=n)
    current = np.repeat(draw.normal(size=n // 50), 50)

    def means(dtype):
        with jax.enable_x64(dtype == np.float64):
            start = Start(*(jnp.asarray(v, dtype) for v in (voltage[0], current[0], 25.0, np.nan, 1.0)))
            y = Measurement(*(jnp.asarray(c, dtype) for c in (voltage, current, np.full(n, 25.0), np.full(n, 0.1))))
            seen = jax.lax.scan(lambda s, one: (signals.watch(s, one)[0], None), signals.woken(start), y)[0]
            return np.asarray(seen.voltage + seen.voltage_lags), np.asarray(seen.current + seen.current_lags)

    # A voltage mean that is kept whole is 6e-5 V off here.
    for single, double, close in zip(means(np.float32), means(np.float64), (1e-5, 1e-4), strict=True):
        np.testing.assert_allclose(single, double, rtol=0, atol=close)
    expected = np.full(3, voltage[0])  # the textbook's trailing mean, sample by sample
    keep = np.exp(-0.1 / np.array(signals.MEANS))
    for value in voltage:
        expected = keep * expected + (1 - keep) * value
    np.testing.assert_allclose(means(np.float64)[0], expected, atol=1e-9)
