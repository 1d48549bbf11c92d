"""Many circuits at once give what each gives alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from celltwin.errors import CelltwinError
from celltwin.fleet import NODES, Fleet
from celltwin.interface import Input, Start, simulate
from celltwin.physics.circuit import Circuit
from celltwin.physics.thevenin import Thevenin

SOC, TEMPERATURES = np.array(NODES), np.array([0.0, 25.0])


def circuit(capacity=3.0, shape=0.4, tau_shape=0.0, **changes) -> Circuit:
    cold = np.array([2.0, 1.0])
    empty = np.exp(shape * (1.0 - SOC))[:, None] * cold
    tables = {
        "r0": 0.02 * empty,
        "r": np.stack([0.01 * empty, 0.015 * empty]),
        "tau": np.stack([5.0, 60.0])[:, None, None] * np.exp(tau_shape * SOC)[None, :, None] * np.ones((1, 1, 2)),
        "ocv": (3.3 + 0.8 * SOC)[:, None] + np.zeros((1, 2)),
    }
    return Circuit("cell", capacity, (2.5, 4.3), TEMPERATURES, ocv_soc=SOC, soc=SOC, **tables | changes)


def drive(samples=700, seed=0):
    draw = np.random.default_rng(seed)
    return np.repeat(draw.normal(-1.5, 2.0, samples), draw.integers(1, 9, samples))[:samples]


_simulate = jax.jit(simulate)


def alone(one, current, dt, temperature, soc):
    """Voltage of one cell by its `step`'s own tables."""
    model = Thevenin.of(one)
    ocv = model.ocv(jnp.float32(soc), jnp.float32(temperature))
    start = Start(*(jnp.float32(x) for x in (float(ocv), 0.0, temperature, soc, one.capacity_ah)))
    columns = (current, np.full_like(current, temperature), np.full_like(current, dt))
    return np.asarray(_simulate(model, start, Input(*(jnp.asarray(x, jnp.float32) for x in columns))).voltage)


@pytest.mark.parametrize("tau_shape", [0.0, 0.7])
@pytest.mark.parametrize("cores", [1, 2])
def test_each_cell_is_what_it_is_alone(tau_shape, cores):
    kinds = [circuit(3.0, tau_shape=tau_shape), circuit(2.5, shape=0.6, tau_shape=tau_shape), circuit(4.0)]
    kinds = kinds[: 2 + (tau_shape == 0.0)]
    temperature, soc = np.array([25.0, 10.0, 0.0])[: len(kinds)], np.array([0.95, 0.8, 0.6])[: len(kinds)]
    current = drive()
    found = Fleet(kinds, temperature=temperature, soc=soc).simulate(current, 2.0, every_sample=True, cores=cores)
    assert found.voltages is not None
    for n, kind in enumerate(kinds):
        expected = alone(kind, current, 2.0, temperature[n], soc[n])
        # Log-linear tables are linear between the fleet's nodes: a fraction of a millivolt.
        np.testing.assert_allclose(found.voltages[:, n], expected, atol=3e-4)
    np.testing.assert_array_equal(found.voltage, found.voltages[-1])
    np.testing.assert_array_equal(found.lowest, found.voltages.min(axis=0))
    np.testing.assert_array_equal(found.highest, found.voltages.max(axis=0))


def test_charge_is_conserved_over_days():
    current, cells = np.tile([-0.1, 0.1, 0.1, -0.1], 50_000), 3
    found = Fleet(circuit(), cells, soc=0.5).simulate(current, 1.0)
    np.testing.assert_allclose(found.soc, 0.5, atol=2e-7)


def test_resistances_scale_and_currents_may_differ():
    current = np.stack([drive(seed=1), drive(seed=2)], axis=1)
    both = Fleet(circuit(), 2, soc=0.9, scale=np.array([1.0, 1.5])).simulate(current, 1.0, every_sample=True)
    for n, scale in enumerate((1.0, 1.5)):
        one = Fleet(circuit(), 1, soc=0.9, scale=scale).simulate(current[:, n], 1.0, every_sample=True)
        np.testing.assert_allclose(both.voltages[:, n], one.voltages[:, 0], atol=1e-6)


def test_what_does_not_fit_is_refused():
    bent = circuit(transfer_resistance=np.full((len(SOC), 2), 0.01), transfer_scale=np.array([0.04, 0.04]))
    with pytest.raises(CelltwinError, match="does not fit"):
        Fleet(bent, 2)
    with pytest.raises(CelltwinError, match="2 circuits for 3 cells"):
        Fleet([circuit(), circuit()], 3)
    with pytest.raises(CelltwinError, match="current of a fleet"):
        Fleet(circuit(), 2).simulate(np.zeros((10, 3)), 1.0)
