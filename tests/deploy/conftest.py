"""A twin of every registered family, its emitted C, and what compiles it."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from celltwin import models
from celltwin.data.domain import Domain
from celltwin.deploy import c, native
from celltwin.deploy.native import Native
from celltwin.interface import inputs_of, measurements_of, start_of, unknown_start
from celltwin.learning.training import trainable
from celltwin.twin import Twin

TRAPS = ("-O0", "-fsanitize=undefined,float-cast-overflow", "-fsanitize-undefined-trap-on-error")


def shake(model, seed, size=0.005):
    """The model with random changes to its parameters, so that none of them is zero and none of them alike."""
    free, rest = eqx.partition(model, trainable(model))
    draw = np.random.default_rng(seed)
    free = jax.tree.map(lambda x: jnp.asarray(np.asarray(x) + size * draw.normal(size=x.shape), x.dtype), free)
    return eqx.combine(free, rest)


@pytest.fixture(scope="session")
def twin_of(split):
    """Gives the twin of a family by name, untrained and shaken; each is made once."""
    domain, made = Domain.of(split.train), {}

    def get(name):
        if name not in made:
            family = models.family(name)
            base = get(family.base).model if family.base else None
            model = family.create(split.train, domain, jax.random.key(len(made)), base)
            facts = {"title": family.title, "dataset": "simulated", "seed": 0}
            made[name] = Twin(name, shake(model, len(made)), domain, reference.CELL, facts, family.task)
        return made[name]

    return get


@pytest.fixture(scope="session")
def emitted(twin_of):
    """Gives the C of a family in a precision; each is emitted once."""
    made = {}

    def get(name, precision="single", weights="real"):
        key = name, precision, weights
        if key not in made:
            made[key] = c.emit(twin_of(name), precision=precision, weights=weights)
        return made[key]

    return get


@pytest.fixture(scope="session")
def compiler():
    """The command of the C compiler; the test is skipped without one."""
    command = native.compiler()
    if command is None:
        pytest.skip("no C compiler")
    return command


@pytest.fixture(scope="session")
def compiled(emitted, compiler):
    """Gives the compiled C of a family; what C does not define traps."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = Native(emitted(name), TRAPS)
        return made[name]

    return get


@pytest.fixture(scope="session")
def journey():
    """A long journey of 10,000 samples about half charge, to compare two ways to run a twin."""
    drive = reference.drive("LA92", seed=5, samples=10_000)
    current = drive.current - drive.current.mean()
    capacity = reference.CELL.reference_capacity_ah
    voltage = reference.Circuit().voltage(current, drive.temperature, drive.dt, 0.6, capacity)
    return replace(drive, current=current, voltage=voltage, net_capacity=None, initial_soc=0.6)


@pytest.fixture(scope="session")
def run_in_python(journey):
    """Runs a twin over the journey by a scan of its step: start, inputs [time, inputs] and outputs [time, 2]."""

    def run(twin, dtype=np.float32):
        def cast(tree):
            return jax.tree.map(
                lambda leaf: jnp.asarray(np.asarray(leaf), dtype) if leaf.dtype.kind == "f" else leaf, tree
            )

        with jax.enable_x64(dtype is np.float64):
            start = (unknown_start if twin.task == "soc" else start_of)(journey, dtype)
            inputs = (measurements_of if twin.task == "soc" else inputs_of)(journey, dtype)
            _, outputs = _scan(cast(twin.runner), start, inputs)
            return start, np.stack(inputs, axis=1), np.stack([np.asarray(o) for o in outputs], axis=1)

    return run


@jax.jit
def _scan(model, start, inputs):
    return jax.lax.scan(lambda s, u: model.step(s, u), model.init(start), inputs)
