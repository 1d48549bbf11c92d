"""How lively a load is: the same at once and step by step, one at rest and in drive cycles, none if steady."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.models.ripple import Ripple, follow, over

LEARNED = Ripple(jnp.float32(0.2), jnp.float32(0.01))


@jax.jit
def stepped(state, current, dt):
    return jax.lax.scan(lambda x, u: (follow(x, *u),) * 2, state, (current, dt))[1]


def states(current, dt=1.0):
    current = jnp.asarray(current, jnp.float32)
    return over(jnp.zeros(2), current, jnp.full_like(current, dt))


def test_at_once_is_step_by_step():
    record = reference.drive("a", seed=1)
    begun = jnp.asarray([0.5, 0.1])
    current, dt = (jnp.asarray(x, jnp.float32) for x in (record.current, record.dt))
    np.testing.assert_allclose(over(begun, current, dt), stepped(begun, current, dt), atol=1e-5)


def test_what_was_learned_from_is_trusted():
    records = [reference.drive("a", seed=1), reference.drive("b", seed=2)]
    ripple = Ripple.of(records)
    assert float(ripple.least) > 0.0
    for record in records:
        current, dt = (jnp.asarray(x, jnp.float32) for x in (record.current, record.dt))
        assert np.mean(np.asarray(ripple.trust(over(jnp.zeros(2), current, dt))) < 1.0) < 0.01


@with_settings(max_examples=30)
@given(st.floats(0.1, 50.0), st.sampled_from([-1.0, 1.0]), st.sampled_from([0.1, 1.0, 10.0]))
def test_a_steady_load_is_soon_not_trusted_and_the_rest_after_it_is(current, sign, dt):
    learned = LEARNED.resized(0.1 / current)  # of a cell of that size
    samples = int(400.0 / dt)
    trust = np.asarray(learned.trust(states(np.r_[np.full(samples, sign * current), np.zeros(3 * samples)], dt)))
    assert ((trust >= 0.0) & (trust <= 1.0)).all()
    assert (trust[: int(60.0 / dt)] == 1.0).all()
    assert (trust[int(300.0 / dt) : samples] == 0.0).all()
    assert (trust[samples + int(60.0 / dt) :] == 1.0).all()


def test_a_steady_load_that_was_trained_with_is_trusted():
    steady = reference.drive("a", seed=1)
    object.__setattr__(steady, "current", np.full(len(steady), -1.0))
    learned = Ripple.of([steady])
    assert (np.asarray(learned.trust(states(np.full(1000, -1.0)))) == 1.0).all()
