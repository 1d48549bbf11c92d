"""A neural state space: what it starts from, where its state can be, and what a step's length does to it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from celltwin.interface import Input, Start, run

few = with_settings(max_examples=40)
together = jax.jit(run)


@pytest.fixture(scope="module")
def model(twins):
    return twins["subnet"].model


@pytest.fixture(scope="module")
def loud(model):
    """The model with a derivative and an encoder that say the most they can."""
    where = lambda m: (m.derivative.layers[-1].weight, m.encoder.layers[-1].weight)  # noqa: E731
    return eqx.tree_at(where, model, replace_fn=lambda weight: 100.0 * weight)


def woken(model, voltage=3.9, current=0.0, temperature=20.0, soc=0.7, capacity=1.0):
    return model.init(Start(*map(jnp.float32, (voltage, current, temperature, soc, capacity))))


def load(rows):
    return Input(*(jnp.asarray(column, jnp.float32) for column in zip(*rows, strict=True)))


def test_the_encoder_reads_all_that_the_start_shows(model):
    usual = np.asarray(woken(model).latent)
    for other in ({"voltage": 3.95}, {"current": -1.0}, {"temperature": 5.0}, {"soc": 0.5, "voltage": 3.7}):
        assert np.abs(np.asarray(woken(model, **other).latent) - usual).max() > 1e-4, other


def test_the_encoder_is_all_that_the_start_decides(model):
    # Once a rest has been long enough, it is forgotten where the state began.
    rows = [(0.0, 20.0, 600.0)] * 100
    one, other = (together(model, woken(model, v), load(rows))[1].voltage for v in (3.9, 3.7))
    assert abs(float(one[0] - other[0])) > 1e-4
    np.testing.assert_allclose(one[-1], other[-1], atol=1e-5)


@few
@given(
    currents=st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4),
    steps=st.lists(st.floats(0, 1e6, width=32), min_size=4, max_size=4),
    voltage=st.floats(0, 5, width=32),
)
def test_the_state_stays_within_one_whatever_comes(loud, currents, steps, voltage):
    u = load([(current, 20.0, dt) for current, dt in zip(currents, steps, strict=True)])
    state, _ = together(loud, woken(loud, voltage), u)
    assert np.abs(state.latent).max() <= 1.0


@few
@given(current=st.floats(-3, 1, width=32), cuts=st.lists(st.floats(0.0, 900.0), min_size=5, max_size=5))
def test_where_the_derivative_does_not_see_the_state_any_cut_of_a_step_is_the_same(model, current, cuts):
    first = model.derivative.layers[0].weight
    states = model.log_tau.size
    deaf = eqx.tree_at(lambda m: m.derivative.layers[0].weight, model, first.at[:, :states].set(0.0))
    steps = np.diff([0.0, *sorted(cuts), 900.0])
    state = woken(deaf, capacity=1e6)  # a cell so large that its charge stays
    cut = together(deaf, state, load([(current, 20.0, dt) for dt in steps]))[0]
    once = together(deaf, state, load([(current, 20.0, dt) for dt in (900.0, 0, 0, 0, 0, 0)]))[0]
    np.testing.assert_allclose(cut.latent, once.latent, atol=1e-4)


def test_finer_steps_converge(model):
    # With a derivative that sees the state, a step is an approximation of first order.
    state = woken(model, capacity=1e6)

    def after(pieces):
        return np.asarray(together(model, state, load([(-1.0, 20.0, 60.0 / pieces)] * pieces))[0].latent, float)

    exact = after(4096)
    coarse, fine = (np.abs(after(pieces) - exact).max() for pieces in (8, 64))
    assert 1e-5 < fine < 0.25 * coarse
