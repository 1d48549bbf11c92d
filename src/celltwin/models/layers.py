"""The few building blocks that learned models share."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Record


class Dense(eqx.Module):
    """y = W x + b."""

    weight: Array
    bias: Array

    @classmethod
    def create(cls, inputs: int, outputs: int, key: Array, gain: float = 1.0) -> Dense:
        """Weights drawn with variance gain^2 / inputs, biases zero."""
        weight = gain * jax.random.normal(key, (outputs, inputs)) / jnp.sqrt(1.0 * inputs)
        return cls(weight, jnp.zeros(outputs))

    def __call__(self, x: Array) -> Array:
        return self.weight @ x + self.bias


class Mlp(eqx.Module):
    """Dense layers with tanh between them; the last one starts small, so that training starts from zero output."""

    layers: tuple[Dense, ...]

    @classmethod
    def create(cls, sizes: Sequence[int], key: Array, last_gain: float = 0.05) -> Mlp:
        keys = jax.random.split(key, len(sizes) - 1)
        gains = [1.0] * (len(sizes) - 2) + [last_gain]
        return cls(tuple(Dense.create(a, b, k, g) for a, b, k, g in zip(sizes, sizes[1:], keys, gains, strict=False)))

    def __call__(self, x: Array) -> Array:
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x))
        return self.layers[-1](x)


def lstm(sums: Array, cell: Array, steps: Array) -> tuple[Array, Array]:
    """Hidden state and cell of an LSTM after a step of `steps` times the trained length, its gates held over it.

    `sums` [..., 4 hidden] are what goes into the gates: forget, input and output gate, and the value that enters.
    """
    forget, enter, leave, value = jnp.split(sums, 4, axis=-1)
    # log f is finite and below zero for any input, so f^d and the held sum need no special case.
    log_forget = -jax.nn.softplus(-forget) - 1e-6
    held = jnp.exp(log_forget * steps)
    entered = jnp.expm1(log_forget * steps) / jnp.expm1(log_forget)  # exact where f is near one
    cell = held * cell + entered * jax.nn.sigmoid(enter) * jnp.tanh(value)
    return jax.nn.sigmoid(leave) * jnp.tanh(cell), cell


def gru(candidate: Dense, x: Array, memory: Array, forget: Array, reset: Array, steps: Array) -> Array:
    """Memory of a gated recurrent unit after a step of `steps` times the trained length, its gates held over it.

    `forget` and `reset` [hidden] are what goes into the gates: sigmoid(-forget)^steps of the memory is kept.
    """
    proposed = jnp.tanh(candidate(jnp.concatenate([x, jax.nn.sigmoid(reset) * memory])))
    held = jnp.exp(-jax.nn.softplus(forget) * steps)
    return held * memory + (1.0 - held) * proposed


def sampling_period(records: Sequence[Record]) -> float:
    """Median step in s of the records that a recurrent cell is trained with."""
    return float(np.median(np.concatenate([record.dt[1:] for record in records])))


def remember(memory: Array, value: Array, dt: Array, time_constants: tuple[float, ...]) -> Array:
    """Leaky memories of a signal, one for each time constant (s): exact for a value held over dt.

    They take the place of a delay line, span seconds to hours with a few numbers, and mean the same at any
    sampling. Source: M. C. Mozer, "Induction of multiscale temporal structure", NIPS 4 (1991).
    """
    keep = jnp.exp(-dt / jnp.asarray(time_constants, memory.dtype))
    return keep * memory + (1.0 - keep) * value
