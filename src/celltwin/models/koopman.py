"""Deep Koopman operator with control: a learned lift in which the cell is linear, and stable by construction.

    z' = Lambda(T) (z - g(I, soc, T))        z_0 = w(V_0, I_0, T_0, soc_0)
    z_k = e^(Lambda dt) z_(k-1) + (1 - e^(Lambda dt)) g(I_k, soc_k, T_k)
    V_k = U(soc, T) + R(T) I + h(z_k, I_k, soc_k, T_k)

Lusch, Kutz and Brunton, "Deep learning for universal linear embeddings of nonlinear dynamics", Nature Communications
9 (2018) 4950; Takeishi, Kawahara and Yairi, "Learning Koopman invariant subspaces for dynamic mode decomposition",
NIPS 30 (2017). The lift g and the readout h are networks that state of charge and temperature schedule.
Lambda = -diag(1 / tau), with tau = exp(a + b (1/T - 1/T_0)) > 0: every eigenvalue is real and negative, whatever
training does, as those of a cell that relaxes to equilibrium are. The discretisation is exact for a current held over
the step, so any dt serves.

The loss is that of every model here: the error of the simulation, over hundreds of steps from a state that is carried
on, which is the multi-step term of the literature. Its two others hold by construction. A state once lifted is moved by
Lambda alone and never lifted anew, so the latent dynamics are linear without residual; and the reconstruction of what
was lifted, h(w(V_0, ...)), is the first sample of each simulation and counts with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.interface import Input, Output, Start
from celltwin.models.baselines import Ohmic
from celltwin.models.features import SAMPLE, UNIT, of_sample, of_start
from celltwin.models.layers import Mlp
from celltwin.physics.charge import Charge, advance, count, full_of
from celltwin.physics.recurrence import from_blocks, in_blocks, linear_recurrence
from celltwin.physics.tables import KELVIN, inverse_temperature

FASTEST, SLOWEST = 1.0, 3000.0  # s, time constants where training starts
REFERENCE = -1000.0 / (25.0 + KELVIN)  # 25 degC, where activation does not count


class KoopmanState(NamedTuple):
    charge: Charge
    lifted: Array  # [modes]


class Koopman(eqx.Module):
    """Linear dynamics of a learned lift, with the cell's inputs lifted into them."""

    static: Ohmic
    lift: Mlp
    readout: Mlp
    wake: Mlp
    log_tau: Array  # [modes], of s at REFERENCE
    activation: Array  # [modes], of tau in units of 1000 K
    domain: Domain

    @classmethod
    def create(
        cls, records: Sequence[Record], domain: Domain, key: Array, modes: int = 64, hidden: int = 32
    ) -> Koopman:
        keys = jax.random.split(key, 4)
        return cls(
            static=Ohmic.create(records),
            lift=Mlp.create((SAMPLE, hidden, modes), keys[0], last_gain=0.5),
            readout=Mlp.create((modes + SAMPLE, hidden, hidden, 1), keys[1]),
            wake=Mlp.create((4, 16, modes), keys[2]),
            log_tau=jnp.linspace(np.log(FASTEST), np.log(SLOWEST), modes, dtype=np.float32),
            activation=jnp.zeros(modes, np.float32),
            domain=domain,
        )

    def time_constants(self, temperature: Array) -> Array:
        """-1 / eigenvalues, [modes] in s, at a temperature in degC (scalar)."""
        colder = REFERENCE - inverse_temperature(temperature)
        return jnp.exp(self.log_tau + self.activation * colder)

    def init(self, start: Start) -> KoopmanState:
        """The lift of what the start shows: the voltage beyond OCV and ohmic drop, current, temperature and SOC."""
        shown = of_start(start, self.static, self.domain)
        return KoopmanState(full_of(start.soc, start.capacity), self.wake(shown))

    def step(self, state: KoopmanState, u: Input) -> tuple[KoopmanState, Output]:
        charge = advance(state.charge, u.current, u.dt)
        features = of_sample(u, charge.soc, self.domain)
        keep, drive = self._drive(features, u)
        lifted = keep * state.lifted + drive
        return KoopmanState(charge, lifted), Output(self._voltage(lifted, features, charge.soc, u), charge.soc)

    def run(self, state: KoopmanState, inputs: Input) -> tuple[KoopmanState, Output]:
        """What scanning `step` over inputs [time] gives, all samples at once: nothing here feeds a voltage back."""
        time = inputs.dt.shape[0]
        charge, soc, _ = count(state.charge, Input(*(in_blocks(a) for a in inputs)))
        soc = from_blocks(soc, time)
        features = jax.vmap(of_sample, (0, 0, None))(inputs, soc, self.domain)
        lifted = linear_recurrence(*jax.vmap(self._drive)(features, inputs), state.lifted)
        voltage = jax.vmap(self._voltage)(lifted, features, soc, inputs)
        return KoopmanState(charge, lifted[-1]), Output(voltage, soc)

    def _drive(self, features: Array, u: Input) -> tuple[Array, Array]:
        """Factor and addition of the step of every mode."""
        keep = jnp.exp(-u.dt / self.time_constants(u.temperature))
        return keep, (1.0 - keep) * self.lift(features)

    def _voltage(self, lifted: Array, features: Array, soc: Array, u: Input) -> Array:
        correction = self.readout(jnp.concatenate([lifted, features]))[0]
        return self.static.voltage(soc, u.temperature, u.current) + UNIT * correction

    def penalty(self) -> Array:
        return self.static.penalty()
