"""What a cell cannot do: found where it is done, free where it is not, and less after training with its penalty."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from celltwin.errors import CelltwinError
from celltwin.interface import Output
from celltwin.learning.physics import Physics, Violations, grid_of, violations
from celltwin.learning.plan import Plan
from celltwin.learning.training import fit
from celltwin.models.baselines import Ohmic
from celltwin.physics.charge import advance, full_of
from celltwin.physics.rest import at_rest

seen = jax.jit(violations)


class Resistor(eqx.Module):
    """V = 3.5 + slope soc + resistance I + jump per step."""

    slope: jax.Array
    resistance: jax.Array
    jump: jax.Array

    def init(self, start):
        return full_of(start.soc, start.capacity), 0.0 * start.soc

    def step(self, state, u):
        charge, steps = advance(state[0], u.current, u.dt), state[1] + jnp.where(u.dt > 0.0, 1.0, 0.0)
        voltage = 3.5 + self.slope * charge.soc + self.resistance * u.current + self.jump * steps
        return (charge, steps), Output(voltage, charge.soc)


def resistor(slope=0.7, resistance=0.05, jump=0.0):
    return Resistor(*map(jnp.float32, (slope, resistance, jump)))


@pytest.fixture(scope="module")
def grid(split):
    return grid_of(split.train)


def test_the_grid_reaches_as_far_as_the_records(grid, split):
    assert np.min(grid.soc) == pytest.approx(max(0.0, min(r.soc.min() for r in split.train)), abs=1e-6)
    assert np.max(grid.soc) == pytest.approx(1.0, abs=1e-6)
    assert grid.temperature.tolist() == [5.0, 25.0]
    assert float(grid.current) == float(grid.capacity) == 1.0


def test_a_cell_that_can_be_pays_nothing(grid):
    for found in seen(resistor(), grid):
        assert float(found) < 1e-12


def test_each_violation_is_found_with_its_size(grid):
    step = float(grid.soc[1] - grid.soc[0])
    falling = seen(resistor(slope=-0.7), grid)
    assert falling.monotone_ocv == pytest.approx((0.7 * step) ** 2, rel=1e-3)
    active = seen(resistor(slope=0.0, resistance=-0.05), grid)
    assert active.passivity == pytest.approx(0.05**2, rel=1e-3)
    assert float(active.monotone_ocv) < 1e-12
    jumping = seen(resistor(jump=0.01), grid)
    assert jumping.step_consistency == pytest.approx(0.01**2, rel=1e-2)


def test_a_rested_cell_shows_what_it_woke_with(twins):
    for name in ("thevenin", "narx", "koopman", "subnet", "circuit-neural"):
        start = map(jnp.float32, (0.6, 20.0, 1.0, 3.5))
        _, voltage = at_rest(twins[name].model, *start)
        again = at_rest(twins[name].model, *map(jnp.float32, (0.6, 20.0, 1.0)), voltage)[1]
        assert float(again) == pytest.approx(float(voltage), abs=2e-3), name
        assert 3.0 < float(voltage) < 4.3, name


def test_weights_multiply_and_none_cost_nothing(split, grid):
    model = resistor(slope=-0.7, resistance=-0.05, jump=0.01)
    found = seen(model, grid)
    assert float(Physics(split.train, Plan(), "voltage")(model)) == 0.0
    one = Physics(split.train, Plan(monotone_ocv=2.0, passivity=3.0), "voltage")
    assert float(one(model)) == pytest.approx(float(2.0 * found.monotone_ocv + 3.0 * found.passivity), rel=1e-4)


@pytest.mark.parametrize("name", Violations._fields)
def test_training_with_a_penalty_leaves_less_of_it(name, split, grid):
    start = resistor(slope=-0.7, resistance=-0.05, jump=0.01)
    before = getattr(seen(start, grid), name)
    plan = Plan(adam_rounds=1, updates=40, lanes=4, chunk=20, learning_rate=0.05, averaging=0.0)
    trained = fit(start, split, plan.model_copy(update={name: 1e4})).model
    assert getattr(seen(trained, grid), name) < 0.3 * before


def test_lbfgs_knows_the_penalties_too(split, grid):
    model = Ohmic.create(split.train)
    upside_down = eqx.tree_at(lambda m: m.ocv.table, model, -model.ocv.table)
    plan = Plan(lbfgs_rounds=1, iterations=5)
    dear, free = (fit(upside_down, split, plan.model_copy(update={"monotone_ocv": w})).model for w in (1e3, 0.0))
    assert seen(dear, grid).monotone_ocv < seen(free, grid).monotone_ocv


def test_an_estimator_has_no_voltage_to_judge(split):
    with pytest.raises(CelltwinError, match=r"physics penalties.*passivity for a model of soc"):
        Physics(split.train, Plan(passivity=1.0), "soc")
