"""celltwin's models in PyTorch, for `training.py`: the same equations, with the weights of a celltwin model.

Written as one would: what depends on no state is computed for the whole chunk at once, in a loop over samples is only
what recurs, on all lanes. Steps last a second. Each is called with what `training.seen` made, and the state it begins
with, and answers with voltages [lanes, chunk].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from celltwin.models import circuit_neural, hybrid, koopman
from celltwin.models.features import SAMPLE, UNIT, VOLTAGE_MEMORIES
from celltwin.physics.ocv import UNIT as CURVE_UNIT
from celltwin.physics.tables import KELVIN, reaching
from celltwin.physics.thevenin import WARMEST_CORE


def tensor(array) -> Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float32)


def dense(layer) -> torch.nn.Linear:
    made = torch.nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    made.weight.data, made.bias.data = tensor(layer.weight), tensor(layer.bias)
    return made


def mlp(network) -> torch.nn.Sequential:
    layers = [dense(layer) for layer in network.layers]
    return torch.nn.Sequential(*(part for layer in layers[:-1] for part in (layer, torch.nn.Tanh())), layers[-1])


def recurrence(keep: Tensor, drive: Tensor, state: Tensor) -> Tensor:
    """x_k = keep_k x_(k-1) + drive_k over a chunk, [lanes, chunk, states]."""
    after = []
    for factor, added in zip(keep.expand_as(drive).unbind(1), drive.unbind(1), strict=True):
        state = torch.addcmul(added, factor, state)
        after.append(state)
    return torch.stack(after, dim=1)


def hat(x: Tensor, nodes: Tensor) -> Tensor:
    """Weights [..., nodes] of piecewise linear interpolation."""
    rise = ((x[..., None] - nodes[:-1]) / nodes.diff()).clip(0.0, 1.0)
    one = torch.ones_like(x[..., None])
    return torch.cat([one, rise], -1) - torch.cat([rise, 0.0 * one], -1)


def inverse_temperature(temperature: Tensor) -> Tensor:
    return -1000.0 / (temperature + KELVIN)


class Recurrent(torch.nn.Module):
    """LSTM or GRU on features, with celltwin's weights for the LSTM."""

    def __init__(self, kind: str, model) -> None:
        super().__init__()
        if kind == "lstm":
            hidden = model.readout.weight.shape[1]
            self.core = torch.nn.LSTM(SAMPLE, hidden, batch_first=True)
            order = [1, 0, 3, 2]  # forget, input, output, value -> input, forget, value, output
            weight = tensor(model.gates.weight).reshape(4, hidden, -1)[order].reshape(4 * hidden, -1)
            self.core.weight_ih_l0.data, self.core.weight_hh_l0.data = weight[:, :SAMPLE], weight[:, SAMPLE:]
            self.core.bias_ih_l0.data = tensor(model.gates.bias).reshape(4, hidden)[order].reshape(-1)
            self.core.bias_hh_l0.data.zero_()
            self.readout = dense(model.readout)
        else:
            self.core = torch.nn.GRU(SAMPLE, model.cell.size, batch_first=True)
            self.readout = dense(model.cell.readout)

    def forward(self, seen, state):
        return seen["static"] + UNIT * self.readout(self.core(seen["sample"], state)[0])[..., 0]


class Feedback(torch.nn.Module):
    """A network that is fed leaky memories of what it said, sample by sample."""

    def __init__(self, network) -> None:
        super().__init__()
        self.first, *others = (dense(layer) for layer in network.layers)
        self.others = torch.nn.ModuleList(others)
        self.keep = torch.exp(-1.0 / torch.tensor(VOLTAGE_MEMORIES))

    def forward(self, rows, state, trust=None):
        """What it says of rows [lanes, chunk, features]; bounded, and weighed by trust, where there is any."""
        own, shown = self.first.weight.split([len(self.keep), rows.shape[-1]], dim=1)
        said, *weights = [], *(() if trust is None else trust[..., None].unbind(1))
        for k, row in enumerate(linear(rows, shown, self.first.bias).unbind(1)):
            x = torch.addmm(row, state, own.T)
            for layer in self.others:
                x = layer(torch.tanh(x))
            if weights:
                x = weights[k] * hybrid.BOUND * torch.tanh(x / hybrid.BOUND)
            state = torch.lerp(x.expand_as(state), state, self.keep)
            said.append(x[:, 0])
        return torch.stack(said, dim=1)


class Narx(torch.nn.Module):
    def __init__(self, model) -> None:
        super().__init__()
        self.network = Feedback(model.network)

    def forward(self, seen, state):
        return seen["static"] + UNIT * self.network(seen["remembered"], state)


class GruResidual(torch.nn.Module):
    """The GRU that resets before its matrix, which `nn.GRU` cannot: a loop."""

    def __init__(self, residual) -> None:
        super().__init__()
        self.gates, self.candidate = dense(residual.gates), dense(residual.candidate)
        self.readout = dense(residual.readout)

    def forward(self, rows, state, trust):
        sizes = [rows.shape[-1], state.shape[-1]]
        (gate, gate_own), (enter, enter_own) = (
            layer.weight.split(sizes, dim=1) for layer in (self.gates, self.candidate)
        )
        gates, entering = linear(rows, gate, self.gates.bias), linear(rows, enter, self.candidate.bias)
        states = []
        for row, value in zip(gates.unbind(1), entering.unbind(1), strict=True):
            update, reset = torch.sigmoid(torch.addmm(row, state, gate_own.T)).chunk(2, dim=1)
            state = torch.lerp(torch.tanh(torch.addmm(value, reset * state, enter_own.T)), state, update)
            states.append(state)
        proposed = self.readout(torch.stack(states, dim=1))[..., 0]
        return trust * hybrid.BOUND * torch.tanh(proposed / hybrid.BOUND)


class Circuit(torch.nn.Module):
    """A trained Thevenin circuit with core and charge transfer, without hysteresis; nothing of it is trained here."""

    def __init__(self, circuit) -> None:
        super().__init__()
        assert circuit.hysteresis is None
        assert circuit.log_tau.shape[1] == 1  # no table over the charge
        self.pairs, self.nodes = circuit.pairs, tensor(circuit.soc_nodes)
        axis, onto = reaching(circuit.temperatures, circuit.cold_reach)
        self.axis, self.onto = tensor(axis), torch.eye(len(axis)) if onto is None else tensor(onto).T
        self.log_resistance = tensor(circuit.log_resistance).flatten(1).T
        self.log_tau, self.log_scale = tensor(circuit.log_tau)[:, 0].T, tensor(circuit.log_scale)
        self.log_rise, self.log_time = tensor(circuit.core.log_rise), tensor(circuit.core.log_time)
        self.curve_nodes, self.curve = tensor(circuit.ocv.nodes), CURVE_UNIT * tensor(circuit.ocv.table)
        self.drift_nodes, self.drift = tensor(circuit.ocv.drift_nodes), CURVE_UNIT * tensor(circuit.ocv.drift)
        self.drift_axis = tensor(reaching(circuit.ocv.temperatures, 0.0)[0])

    def warm(self, temperature: Tensor) -> Tensor:
        return hat(inverse_temperature(temperature), self.axis) @ self.onto

    def ocv(self, soc: Tensor, temperature: Tensor) -> Tensor:
        at = torch.bucketize(soc.detach(), self.curve_nodes[1:-1])
        low, gap = self.curve_nodes[at], self.curve_nodes.diff()[at]
        curve = self.curve[at] + ((soc - low) / gap).clip(0.0, 1.0) * self.curve.diff()[at]
        warm = hat(inverse_temperature(temperature), self.drift_axis)
        return curve + (hat(soc, self.drift_nodes) @ self.drift * warm).sum(-1)

    @torch.no_grad()
    def tables(self, soc: Tensor, current: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Resistances and time constants [lanes, chunk, each], and the scale of the charge transfer."""
        cool = torch.exp(-1.0 / torch.exp(self.log_time))
        warmed = (1.0 - cool) * (torch.exp(self.warm(temperature) @ self.log_rise) * current**2).clip(max=WARMEST_CORE)
        core = recurrence(cool, warmed[..., None], torch.zeros(len(soc), 1))[..., 0]
        warm = self.warm(temperature + core)
        weights = (hat(soc, self.nodes)[..., :, None] * warm[..., None, :]).flatten(-2)
        tau, scale = torch.exp(warm @ self.log_tau), torch.exp(warm @ self.log_scale)
        return torch.exp(weights @ self.log_resistance), tau, scale

    def forward(self, seen, on_resistance=1.0, on_tau=1.0, shift=0.0) -> tuple[Tensor, Tensor]:
        """Voltage, and the pairs' overpotentials, from rest; with factors on the tables and a shift of the curve."""
        soc, current, temperature = seen["soc"], seen["current"], seen["temperature"]
        resistance, tau, scale = self.tables(soc, current, temperature)
        drive = on_resistance * resistance * current[..., None]
        first, transferred = (scale * torch.asinh(drive[..., n] / scale) for n in (1, -1))
        drives = torch.cat([first[..., None], drive[..., 2 : 1 + self.pairs]], -1)
        keep = torch.exp(-1.0 / (on_tau * tau))
        pairs = recurrence(keep, (1.0 - keep) * drives, torch.zeros(len(soc), self.pairs))
        curve = self.ocv(soc + seen["shift"] + shift, temperature)
        return curve + drive[..., 0] + transferred + pairs.sum(-1), pairs


class Hybrid(torch.nn.Module):
    def __init__(self, model) -> None:
        super().__init__()
        self.circuit, narx = Circuit(model.base.circuit), isinstance(model.residual, hybrid.NarxResidual)
        self.residual = Feedback(model.residual.network) if narx else GruResidual(model.residual)

    def forward(self, seen, state):
        with torch.no_grad():
            simulated, pairs = self.circuit(seen)
            over = simulated - self.circuit.ocv(seen["soc"], seen["temperature"])
            rows = torch.cat([seen["remembered"], over[..., None] / 0.1, pairs / 0.1], -1)
        return simulated + hybrid.UNIT * self.residual(rows, state, seen["trust"])


class CircuitNeural(torch.nn.Module):
    def __init__(self, model) -> None:
        super().__init__()
        self.circuit, self.network, self.curve = Circuit(model.base.circuit), mlp(model.network), mlp(model.curve)

    def forward(self, seen, state):
        trust = seen["trust"][..., None]
        factors = torch.exp(trust * circuit_neural.LARGEST * torch.tanh(self.network(seen["loads"])))
        static = seen["loads"][..., : self.curve[0].in_features]
        shift = trust * circuit_neural.SHIFT * torch.tanh(self.curve(static))
        pairs = self.circuit.pairs
        return self.circuit(seen, factors[..., :-pairs], factors[..., -pairs:], shift[..., 0])[0]


class Koopman(torch.nn.Module):
    def __init__(self, model) -> None:
        super().__init__()
        self.lift, self.readout = mlp(model.lift), mlp(model.readout)
        self.log_tau, self.activation = (torch.nn.Parameter(tensor(a)) for a in (model.log_tau, model.activation))

    def forward(self, seen, state):
        colder = koopman.REFERENCE - inverse_temperature(seen["temperature"])
        keep = torch.exp(-torch.exp(-self.log_tau - self.activation * colder[..., None]))
        lifted = recurrence(keep, (1.0 - keep) * self.lift(seen["sample"]), state)
        return seen["static"] + UNIT * self.readout(torch.cat([lifted, seen["sample"]], -1))[..., 0]


class Subnet(torch.nn.Module):
    def __init__(self, model) -> None:
        super().__init__()
        self.inner, self.outer = (dense(layer) for layer in model.derivative.layers)
        self.readout, self.log_tau = mlp(model.readout), torch.nn.Parameter(tensor(model.log_tau))

    def forward(self, seen, state):
        own, shown = self.inner.weight.split([len(self.log_tau), SAMPLE], dim=1)
        keep, states = torch.exp(-torch.exp(-self.log_tau)), []
        for row in linear(seen["sample"], shown, self.inner.bias).unbind(1):
            towards = torch.tanh(self.outer(torch.tanh(torch.addmm(row, state, own.T))))
            state = torch.lerp(towards, state, keep)
            states.append(state)
        latent = torch.cat([torch.stack(states, dim=1), seen["sample"]], -1)
        return seen["static"] + UNIT * self.readout(latent)[..., 0]


def network(name: str, model) -> torch.nn.Module:
    """The network of a celltwin model of that family."""
    if name in ("lstm", "gru"):
        return Recurrent(name, model)
    kinds = {"narx": Narx, "circuit-neural": CircuitNeural, "koopman": Koopman, "subnet": Subnet}
    return kinds.get(name, Hybrid)(model)
