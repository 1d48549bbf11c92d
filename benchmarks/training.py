"""How fast models train here and in PyTorch: the same networks, lanes and chunks, on the same cores, in one run.

    pip install . && pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    taskset -c 0 python benchmarks/training.py [--seconds 15] [--rounds 3] [--models narx hybrid ...]

One update: 40 lanes of 250 samples, simulated in closed loop from the carried state, the gradient of the squared error
and a step of Adam with clipping. celltwin's is the update that `fit` runs, which gathers chunks and averages weights.
PyTorch's are in `torch_models.py`. Their features, with trust, charge and the voltage of the static model, are made
beforehand, which is not counted; a hybrid's circuit is simulated in each update, without gradient. Weights are copied
over and both must answer alike; `nn.GRU` resets after its matrix and not before, as many weights and as much work.
Figures are medians of samples a second over paired rounds. Pinned to one core, neither waits for threads that others
hold up, which on a busy machine costs PyTorch most of its time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_models
from torch_models import tensor

from celltwin import models
from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.interface import run
from celltwin.learning import training
from celltwin.learning.plan import Plan
from celltwin.learning.tasks import TASKS
from celltwin.models.circuit_neural import LOAD_MEMORIES
from celltwin.models.features import CURRENT_MEMORIES, soc_hats
from celltwin.models.ripple import over
from celltwin.physics.thevenin import Thevenin

LANES, CHUNK = 40, 250
PLAN = Plan(adam_rounds=1, updates=1, lanes=LANES, chunk=CHUNK)
NAMES = ("lstm", "gru", "narx", "koopman", "hybrid", "hybrid-gru", "circuit-neural", "subnet")


def memories(signal, time_constants) -> np.ndarray:
    """Leaky memories of a signal [lanes, chunk] from rest, [lanes, chunk, memories]."""
    keep = np.exp(-1.0 / np.asarray(time_constants))
    memory, kept = np.zeros((LANES, len(keep))), []
    for column in np.asarray(signal).T:
        memory = keep * memory + (1.0 - keep) * column[:, None]
        kept.append(memory)
    return np.stack(kept, axis=1)


def seen(model, begun, inputs) -> dict[str, torch.Tensor]:
    """What the networks see besides what they feed back, [lanes, chunk, ...], and the static voltage."""
    soc = jax.vmap(lambda s, u: run(model, s, u))(begun, inputs)[1].soc
    current = model.domain.scale("current", inputs.current)
    temperature = model.domain.scale("temperature", inputs.temperature)[..., None]
    charge = jax.vmap(jax.vmap(soc_hats))(soc)
    both = np.concatenate([current[..., None], temperature], axis=-1)
    shown = {
        "soc": soc,
        "current": inputs.current,
        "temperature": inputs.temperature,
        "sample": np.concatenate([both, charge], axis=-1),
        "remembered": np.concatenate([memories(current, CURRENT_MEMORIES), charge, both], axis=-1),
    }
    if hasattr(model, "static"):
        shown["static"] = jax.vmap(jax.vmap(model.static.voltage))(soc, inputs.temperature, inputs.current)
    else:
        ripple = jax.vmap(over, (None, 0, 0))(jnp.zeros(2), inputs.current, inputs.dt)
        relative = current - model.domain.scale("current", 0.0)
        shown["shift"] = begun.circuit.shift[:, None]
        shown["trust"] = model.domain.trust(inputs.current, inputs.temperature, soc) * model.ripple.trust(ripple)
        past = memories(relative, CURRENT_MEMORIES), memories(np.abs(relative), LOAD_MEMORIES)
        shown["loads"] = np.concatenate([charge, temperature, relative[..., None], *past], axis=-1)
    return {name: tensor(array) for name, array in shown.items()}


def first_state(name: str, begun):
    if name == "lstm":
        return tensor(begun.hidden)[None], tensor(begun.cell)[None]
    if name == "gru":
        return tensor(begun.hidden)[None]
    held = {"narx": "voltages", "koopman": "lifted", "subnet": "latent", "circuit-neural": "currents"}
    return tensor(getattr(begun, held.get(name, "memory")))


def drawn(model):
    """The model with weights where it has zeros, or a mistake behind a silent layer would not be seen."""
    random = np.random.default_rng(0)

    def fill(a):
        return a if not eqx.is_inexact_array(a) or a.any() else jnp.asarray(random.normal(0.0, 0.1, a.shape), a.dtype)

    return jax.tree.map(fill, model)


def pair(name: str, records):
    """An update in celltwin, the same in PyTorch, and how far their answers are apart (V)."""
    family = models.family(name)
    circuit = Thevenin.create(records) if family.base else None
    model = drawn(family.create(records, Domain.of(records), jax.random.key(0), circuit))
    params, frozen = eqx.partition(model, training.trainable(model))
    adam = training._Adam(frozen, records, PLAN, TASKS["voltage"])
    lanes = adam.start(params)

    def ours() -> None:
        jax.block_until_ready(adam.round(params, lanes, 0, lambda share: None)[2])

    record, chunk = (places[0] for places in adam.places(0)[:2])
    chunk = np.maximum(chunk, 1)  # a record's first step has no length, which nn.LSTM cannot know
    inputs, target, mask = jax.tree.map(lambda a: a[record, chunk], adam.data)
    start = type(adam.starts)(*(a[record, chunk] for a in adam.starts))
    begun = jax.vmap(model.init)(start)
    network, shown = torch_models.network(name, model), seen(model, begun, inputs)
    state, wanted = first_state(name, begun), tensor(target)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-9)  # so that all rounds do the same

    def theirs() -> None:
        optimiser.zero_grad()
        loss = 1e4 * torch.mean((network(shown, state) - wanted) ** 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    with torch.no_grad():
        said = network(shown, state).numpy()
    mine = jax.vmap(lambda s, u: run(model, s, u))(begun, inputs)[1].voltage
    return ours, theirs, float(np.abs(said - np.asarray(mine))[np.asarray(mask)].max())


def rate(work, seconds: float) -> float:
    """Samples a second of repeated work, after one call that compiles."""
    work()
    rates, until = [], time.perf_counter() + seconds
    while len(rates) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        rates.append(LANES * CHUNK / (time.perf_counter() - began))
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each model and framework, over all rounds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=NAMES, choices=NAMES)
    options = parser.parse_args()
    records = datasets.load("demo").split().train
    records = tuple(record for record in records if np.allclose(record.dt[1:], 1.0))
    print(f"{'model':<16}{'celltwin':>12}{'PyTorch':>12}{'ratio':>8}{'apart / mV':>12}   samples a second")
    for name in options.models:
        ours, theirs, apart = pair(name, records)
        each = options.seconds / options.rounds
        rates = [(rate(ours, each), rate(theirs, each)) for _ in range(options.rounds)]
        mine, other = (statistics.median(column) for column in zip(*rates, strict=True))
        ratio = statistics.median(a / b for a, b in rates)
        told = "another reset" if name == "gru" else f"{1e3 * apart:.3f}"
        print(f"{name:<16}{mine:>12,.0f}{other:>12,.0f}{ratio:>8.1f}{told:>14}", flush=True)


if __name__ == "__main__":
    main()
