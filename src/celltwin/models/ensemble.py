"""Ensemble: several trained models of one family side by side, their mean for an answer.

    V = mean_m V_m,  s = std_m V_m                                             of voltage models
    soc = mean_m soc_m,  std^2 = mean_m (std_m^2 + (soc_m - soc)^2)            of estimators: a mixture's variance

after Lakshminarayanan, Pritzel and Blundell (NeurIPS 2017). Members are trained from different seeds on the same
records. What is the same in all of them, as the circuit under hybrids of several seeds, is held once. The spread s
tells where the members disagree; what they all do wrong it does not show, so it is no band (see
celltwin.learning.bands).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.errors import CelltwinError
from celltwin.interface import Estimate, Input, Measurement, Output, Start, run


class Ensemble(eqx.Module):
    """Models, or estimators, of one structure, vmapped; itself one."""

    own: Any  # arrays in which members differ, stacked: [members, ...]
    common: Any  # the rest of the model

    @classmethod
    def of(cls, members: Sequence[Any]) -> Ensemble:
        """The ensemble of two models and more. Raises CelltwinError where they are not alike."""
        trees = [eqx.partition(member, eqx.is_array) for member in members]
        first, rest = trees[0]
        shapes = [jax.tree.map(jnp.shape, arrays) for arrays, _ in trees]
        if any(
            shape != shapes[0] or not eqx.tree_equal(other, rest)
            for shape, (_, other) in zip(shapes, trees, strict=True)
        ):
            raise CelltwinError(
                "models of an ensemble are not alike", expected="one family, trained from several seeds"
            )

        def differ(*leaves: Array) -> bool:
            return any(not np.array_equal(leaf, leaves[0]) for leaf in leaves[1:])

        different = jax.tree.map(differ, *(arrays for arrays, _ in trees))
        if not any(jax.tree.leaves(different)):
            raise CelltwinError(
                "models of an ensemble are all the same", expected="one family, trained from several seeds"
            )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(arrays for arrays, _ in trees))
        own = jax.tree.map(lambda yes, leaf: leaf if yes else None, different, stacked)
        common = jax.tree.map(lambda yes, leaf: None if yes else leaf, different, first)
        return cls(own, eqx.combine(common, rest))

    @property
    def size(self) -> int:
        """How many members it has."""
        return len(jax.tree.leaves(self.own)[0])

    def init(self, start: Start) -> Any:
        return self._each(lambda member, _: member.init(start), jnp.zeros(self.size))

    def step(self, state: Any, u: Input | Measurement) -> tuple[Any, Output | Estimate]:
        state, said = self._each(lambda member, inner: member.step(inner, u), state)
        return state, _joined(said)

    def run(self, state: Any, inputs: Input | Measurement) -> tuple[Any, Output | Estimate]:
        """What scanning `step` over inputs [time] gives, by the members' own way of running a record."""
        state, said = self._each(lambda member, inner: run(member, inner, inputs), state)
        return state, _joined(said)

    def spread(self, start: Start, inputs: Input) -> Array:
        """Standard deviation (V) of the members' voltages over a simulation: [time]."""
        said = self._each(lambda member, inner: run(member, inner, inputs)[1], self.init(start))
        return jnp.std(said.voltage, axis=0, ddof=1)

    def _each(self, does: Callable[[Any, Any], Any], state: Any) -> Any:
        """What each member does with its state, stacked."""
        return jax.vmap(lambda own, inner: does(eqx.combine(own, self.common), inner))(self.own, state)


def _joined(said: Output | Estimate) -> Output | Estimate:
    """One answer from those of the members, [members, ...]."""
    if isinstance(said, Output):
        return Output(*(jnp.mean(values, axis=0) for values in said))
    soc = jnp.mean(said.soc, axis=0)
    return Estimate(soc, jnp.sqrt(jnp.mean(said.std**2 + (said.soc - soc) ** 2, axis=0)))
