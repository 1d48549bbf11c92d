"""Untrained models that are not as they begin: no table flat, no network silent."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from celltwin.learning.training import trainable


def shaken(model, seed, size=0.05):
    """The model with random changes to every parameter."""
    free, rest = eqx.partition(model, trainable(model))
    draw = np.random.default_rng(seed)
    free = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf) + size * draw.normal(size=leaf.shape), leaf.dtype), free
    )
    return eqx.combine(free, rest)
