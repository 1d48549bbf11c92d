"""A twin of every registered family, its emitted C, and what compiles it."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reference
from celltwin import models
from celltwin.data.domain import Domain
from celltwin.deploy import c, native
from celltwin.deploy.native import Native
from celltwin.interface import Start, stack, stack_measured
from celltwin.twin import Twin
from shaking import shaken

STRETCH = 1000  # samples
TRAPS = ("-O0", "-fsanitize=undefined,float-cast-overflow", "-fsanitize-undefined-trap-on-error")


EVERY = [family.name for family in models.families()]


@pytest.fixture(scope="session")
def twin_of(split):
    """Gives the twin of a family by name, untrained and shaken; each is made once."""
    domain, made = Domain.of(split.train), {}

    def get(name):
        if name not in made:
            family = models.family(name)
            base = get(family.base).model if family.base else None
            number = EVERY.index(name)
            model = shaken(family.create(split.train, domain, jax.random.key(number), base), number, size=0.02)
            facts = {"title": family.title, "dataset": "simulated", "seed": 0}
            made[name] = Twin(name, model, domain, reference.CELL, facts, family.task)
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
    """Runs a twin over the journey, a thousand samples after the other: for each its start, inputs and outputs.

    Each stretch begins anew, for a network that is not trained may be chaotic: roundings would grow without end.
    """
    stretches = [journey.between(at, at + STRETCH) for at in range(0, len(journey), STRETCH)]

    def run(twin, dtype=np.float32):
        def cast(tree):
            return jax.tree.map(
                lambda leaf: jnp.asarray(np.asarray(leaf), dtype) if leaf.dtype.kind == "f" else leaf, tree
            )

        batch = (stack_measured if twin.task == "soc" else stack)(stretches, dtype=dtype)
        with jax.enable_x64(dtype is np.float64):
            outputs = _scan(cast(twin.runner), batch.start, batch.inputs)
            outputs = np.stack([np.asarray(o) for o in outputs], axis=2)
        inputs = np.stack(batch.inputs, axis=2)
        return [(Start(*(v[i] for v in batch.start)), inputs[i], outputs[i]) for i in range(len(stretches))]

    return run


# As a user's is, whatever the tests set: a steep model tells its roundings from those of another program.
AS_USERS = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}


@partial(jax.jit, compiler_options=AS_USERS)
def _scan(model, start, inputs):
    return jax.vmap(lambda start, inputs: jax.lax.scan(lambda s, u: model.step(s, u), model.init(start), inputs)[1])(
        start, inputs
    )
