"""How fast models train here and in PyTorch: the same networks, lanes and chunks, on the same cores, in one run.

    pip install . && pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    python benchmarks/training.py [--seconds 15] [--rounds 3]

One update: 40 lanes of 250 samples, simulated in closed loop from the carried state, the gradient of the squared error
and a step of Adam with clipping. celltwin's is the update that `fit` runs, which gathers chunks and averages weights.
PyTorch's are written as one would: `nn.LSTM` and `nn.GRU` over the whole chunk, since nothing is fed back in
them, and a loop over samples for the NARX, which is fed its own answer. Its features are made beforehand, which is not
counted. The weights of the LSTM and the NARX are copied over and both must answer alike; `nn.GRU` resets after its
matrix and not before, as many weights and as much work. Figures are medians of samples a second over paired rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from celltwin import models
from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.interface import run
from celltwin.learning import training
from celltwin.learning.plan import Plan
from celltwin.learning.tasks import TASKS
from celltwin.models.features import CURRENT_MEMORIES, SOC_FEATURES, UNIT, VOLTAGE_MEMORIES
from celltwin.physics.tables import hat

LANES, CHUNK = 40, 250
PLAN = Plan(adam_rounds=1, updates=1, lanes=LANES, chunk=CHUNK)


def tensor(array) -> torch.Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float32)


def dense(layer) -> torch.nn.Linear:
    made = torch.nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    made.weight.data, made.bias.data = tensor(layer.weight), tensor(layer.bias)
    return made


class Recurrent(torch.nn.Module):
    """LSTM or GRU on features, with celltwin's weights for the LSTM."""

    def __init__(self, kind: str, model) -> None:
        super().__init__()
        inputs = 2 + len(SOC_FEATURES)
        if kind == "lstm":
            hidden = model.readout.weight.shape[1]
            self.core = torch.nn.LSTM(inputs, hidden, batch_first=True)
            order = [1, 0, 3, 2]  # forget, input, output, value -> input, forget, value, output
            weight = tensor(model.gates.weight).reshape(4, hidden, -1)[order].reshape(4 * hidden, -1)
            self.core.weight_ih_l0.data, self.core.weight_hh_l0.data = weight[:, :inputs], weight[:, inputs:]
            self.core.bias_ih_l0.data = tensor(model.gates.bias).reshape(4, hidden)[order].reshape(-1)
            self.core.bias_hh_l0.data.zero_()
            self.readout = dense(model.readout)
        else:
            hidden = model.cell.size
            self.core = torch.nn.GRU(inputs, hidden, batch_first=True)
            self.readout = dense(model.cell.readout)

    def forward(self, features, static, state):
        hidden, state = self.core(features["plain"], state)
        return static + UNIT * self.readout(hidden)[..., 0], state


class Narx(torch.nn.Module):
    """The closed loop, sample by sample."""

    def __init__(self, model) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(dense(layer) for layer in model.network.layers)
        self.keep = torch.exp(-1.0 / torch.tensor(VOLTAGE_MEMORIES))

    def forward(self, features, static, state):
        said = []
        for row in features["remembered"].unbind(1):
            x = torch.cat([state, row], dim=1)
            for layer in self.layers[:-1]:
                x = torch.tanh(layer(x))
            excess = self.layers[-1](x)
            state = self.keep * state + (1.0 - self.keep) * excess
            said.append(excess[:, 0])
        return static + UNIT * torch.stack(said, dim=1), state


def features_of(model, begun, inputs):
    """What the networks see besides what they feed back, [lanes, chunk, ...], and the static voltage."""
    soc = jax.vmap(lambda s, u: run(model, s, u))(begun, inputs)[1].soc
    current = model.domain.scale("current", inputs.current)
    temperature = model.domain.scale("temperature", inputs.temperature)
    charge = jax.vmap(jax.vmap(lambda s: hat(s, jnp.asarray(SOC_FEATURES))))(soc)
    static = jax.vmap(jax.vmap(model.static.voltage))(soc, inputs.temperature, inputs.current)
    keep = np.exp(-1.0 / np.asarray(CURRENT_MEMORIES))
    memories, memory = [], np.zeros((LANES, len(keep)))
    for column in np.asarray(current).T:
        memory = keep * memory + (1.0 - keep) * column[:, None]
        memories.append(memory)
    both = np.stack([current, temperature], axis=-1)
    return {
        "plain": tensor(np.concatenate([both, charge], axis=-1)),
        "remembered": tensor(np.concatenate([np.stack(memories, axis=1), charge, both], axis=-1)),
    }, tensor(static)


def first_state(name: str, begun):
    if name == "lstm":
        return tensor(begun.hidden)[None], tensor(begun.cell)[None]
    return tensor(begun.hidden)[None] if name == "gru" else tensor(begun.voltages)


def pair(name: str, records):
    """An update in celltwin, the same in PyTorch, and how far their answers are apart (V)."""
    model = models.family(name).create(records, Domain.of(records), jax.random.key(0), None)
    params, frozen = training.eqx.partition(model, training.trainable(model))
    adam = training._Adam(frozen, records, PLAN, TASKS["voltage"])
    lanes = adam.start(params)

    def ours() -> None:
        jax.block_until_ready(adam.round(params, lanes, 0, lambda share: None)[2])

    record, chunk = (places[0] for places in adam.places(0)[:2])
    chunk = np.maximum(chunk, 1)  # a record's first step has no length, which nn.LSTM cannot know
    inputs, target, mask = jax.tree.map(lambda a: a[record, chunk], adam.data)
    start = type(adam.starts)(*(a[record, chunk] for a in adam.starts))
    begun = jax.vmap(model.init)(start)
    features, static = features_of(model, begun, inputs)
    network = Narx(model) if name == "narx" else Recurrent(name, model)
    state, wanted = first_state(name, begun), tensor(target)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-9)  # so that all rounds do the same

    def theirs() -> None:
        optimiser.zero_grad()
        said, _ = network(features, static, state)
        loss = 1e4 * torch.mean((said - wanted) ** 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    with torch.no_grad():
        said = network(features, static, state)[0].numpy()
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
    options = parser.parse_args()
    records = datasets.load("demo").split().train[:8]
    records = tuple(record for record in records if np.allclose(record.dt[1:], 1.0))
    print(f"{'model':<8}{'celltwin':>12}{'PyTorch':>12}{'ratio':>8}{'apart / mV':>12}   samples a second")
    for name in ("lstm", "gru", "narx"):
        ours, theirs, apart = pair(name, records)
        each = options.seconds / options.rounds
        rates = [(rate(ours, each), rate(theirs, each)) for _ in range(options.rounds)]
        mine, other = (statistics.median(column) for column in zip(*rates, strict=True))
        ratio = statistics.median(a / b for a, b in rates)
        told = "another reset" if name == "gru" else f"{1e3 * apart:.3f}"
        print(f"{name:<8}{mine:>12,.0f}{other:>12,.0f}{ratio:>8.1f}{told:>14}", flush=True)


if __name__ == "__main__":
    main()
