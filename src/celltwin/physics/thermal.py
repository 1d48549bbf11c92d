"""Lumped thermal model, and the twin that simulates its own temperature.

    C_core dTc/dt    = Q - (Tc - Ts) / R_core
    C_surface dTs/dt = (Tc - Ts) / R_core - (Ts - Ta) / R_ambient
    Q = I (V - U) + I T dU/dT                                       current positive = charge

A core and a surface, the two-state model of cylindrical cells (Forgez et al., J. Power Sources 195 (2010) 2961; Lin et
al., J. Power Sources 257 (2014) 1), or one lump where the data tell no more. The heat is Bernardi's (J. Electrochem.
Soc. 132 (1985) 5): what the current loses between open-circuit and terminal voltage, on charge and discharge alike, and
the reversible part, which cools on one of them. Heat and ambient are held over the step, and the step is exact for any
length: the exponential of the 2 x 2 matrix has two real eigenvalues and is written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.errors import CelltwinError
from celltwin.interface import Input, Output, Start
from celltwin.physics.ocv import UNIT, Ocv
from celltwin.physics.tables import KELVIN, hat

State = TypeVar("State")


class Temperatures(NamedTuple):
    core: Array  # degC
    surface: Array  # degC


class Thermal(eqx.Module):
    """Heat capacities and thermal resistances of a cell, positive because their logarithms are the parameters.

    Without a core the cell is one lump, whose core is as warm as its surface.
    """

    log_ambient_resistance: Array  # scalar, of K/W between surface and ambient
    log_surface_capacity: Array  # scalar, of J/K; of the whole cell where there is no core
    log_core_resistance: Array | None  # scalar, of K/W between core and surface
    log_core_capacity: Array | None  # scalar, of J/K

    @classmethod
    def of(
        cls,
        ambient_resistance: float,
        surface_capacity: float,
        core_resistance: float | None = None,
        core_capacity: float | None = None,
    ) -> Thermal:
        """From resistances in K/W and heat capacities in J/K; without both of the core's, one lump.

        Raises CelltwinError for what is not positive, and for half a core.
        """
        values = (ambient_resistance, surface_capacity, core_resistance, core_capacity)
        if (core_resistance is None) != (core_capacity is None):
            raise CelltwinError("half a core", got=values[2:], expected="its resistance and its capacity, or neither")
        if any(value is not None and not 0.0 < value < float("inf") for value in values):
            raise CelltwinError("thermal parameters make no sense", got=values, expected="positive K/W and J/K")
        logs: list[Any] = [None if value is None else jnp.log(jnp.asarray(value, np.float32)) for value in values]
        return cls(*logs)

    @property
    def values(self) -> dict[str, float]:
        """Resistances in K/W and heat capacities in J/K by name, in the order of `of`."""
        names = ("ambient_resistance", "surface_capacity", "core_resistance", "core_capacity")
        logs = {name: getattr(self, f"log_{name}") for name in names}
        return {name: float(np.exp(log)) for name, log in logs.items() if log is not None}

    def step(self, now: Temperatures, heat: Array, ambient: Array, dt: Array) -> Temperatures:
        """Temperatures in degC after `heat` (W) at an `ambient` (degC) was held for `dt` s; all scalars."""
        surface_capacity = jnp.exp(self.log_surface_capacity)
        u = 1.0 / (surface_capacity * jnp.exp(self.log_ambient_resistance))  # 1/s
        if self.log_core_resistance is None or self.log_core_capacity is None:
            rate = heat / surface_capacity + u * (ambient - now.surface)
            lump = now.surface - rate * jnp.expm1(-u * dt) / u
            return Temperatures(lump, lump)
        core_capacity, to_core = jnp.exp(self.log_core_capacity), jnp.exp(self.log_core_resistance)
        b, c = 1.0 / (core_capacity * to_core), 1.0 / (surface_capacity * to_core)
        # x moves by (exp(A dt) - 1) (x - ambient) and by the integral of exp(A s) over the heat, A = [[-b, b],
        # [c, -c - u]]: changes, so that short steps lose nothing, and no settled temperature, which is far away
        # where the cell is insulated. Differences of near equals are written as quotients.
        lean = (c + u - b) / 2.0
        spread = jnp.sqrt(lean**2 + b * c)
        fast = -(b + c + u) / 2.0 - spread
        slow = b * u / fast
        more = (spread + jnp.abs(lean)) / (2.0 * spread)
        less = b * c / (spread + jnp.abs(lean)) / (2.0 * spread)
        own, other = jnp.where(lean > 0, more, less), jnp.where(lean > 0, less, more)  # of the slow mode's projection
        down, up = b / (2.0 * spread), c / (2.0 * spread)
        creep, snap = jnp.expm1(slow * dt), jnp.expm1(fast * dt)
        core, surface, rate = now.core - ambient, now.surface - ambient, heat / core_capacity
        return Temperatures(
            now.core
            + creep * (own * core + down * surface)
            + snap * (other * core - down * surface)
            + rate * (own * creep / slow + other * snap / fast),
            now.surface
            + creep * (up * core + other * surface)
            + snap * (own * surface - up * core)
            + rate * up * (creep / slow - snap / fast),
        )


class Entropy(eqx.Module):
    """dU/dT over state of charge, the source of reversible heat."""

    table: Array  # [nodes] mV/K
    nodes: tuple[float, ...] = eqx.field(static=True)  # fraction

    @classmethod
    def of(cls, slope: Sequence[float] | np.ndarray, nodes: Sequence[float] | np.ndarray) -> Entropy:
        """From dU/dT in V/K at the nodes (fractions), as a calorimeter or a potentiometric test gives it."""
        return cls(jnp.asarray(1e3 * np.asarray(slope, float), np.float32), tuple(float(n) for n in nodes))

    @classmethod
    def of_ocv(cls, ocv: Ocv) -> Entropy:
        """The slope of an open-circuit voltage over temperature, by least squares, at the nodes of its drift.

        Only as good as the curves: a millivolt between two that lie 10 K apart is 0.1 mV/K, as large as the
        entropy of most cells. Raises CelltwinError for an OCV of a single temperature.
        """
        away = np.asarray(ocv.temperatures) - np.mean(ocv.temperatures)
        if len(away) < 2:
            raise CelltwinError(
                "an open-circuit voltage of one temperature has no slope over it",
                got=f"{ocv.temperatures[0]:g} degC",
                expected="curves at two temperatures or more",
                fix="give an entropy table, or none",
            )
        return cls.of(UNIT * np.asarray(ocv.drift, float) @ away / (away @ away), ocv.drift_nodes)

    def __call__(self, soc: Array) -> Array:
        """dU/dT in V/K at a scalar state of charge."""
        return 1e-3 * hat(soc, jnp.asarray(self.nodes, self.table.dtype)) @ self.table


class Separable(Protocol[State]):
    """A voltage model that tells its open-circuit voltage from the rest, as circuits do."""

    @property
    def ocv(self) -> Any: ...  # (soc, temperature in degC) -> V

    def init(self, start: Start) -> State: ...

    def step(self, state: State, u: Input) -> tuple[State, Output]: ...


def heat_of(model: Any, entropy: Entropy | None, state: Any, output: Output, current: Array, degrees: Array) -> Array:
    """Heat in W that `current` (A, positive = charge) sets free in a cell of `degrees` degC, at the end of a step.

    Where the model's state has a `shift`, that is how far it reads its OCV curve beside the counter.
    """
    at = output.soc + getattr(state, "shift", 0.0)
    lost = output.voltage - model.ocv(at, degrees)
    if entropy is not None:
        lost = lost + (degrees + KELVIN) * entropy(at)
    return current * lost


class ThermalState(NamedTuple, Generic[State]):
    model: State
    temperatures: Temperatures


class ThermalOutput(NamedTuple):
    """What an Output says, at the same places, and how warm the cell is."""

    voltage: Array  # V
    soc: Array  # fraction
    temperature: Array  # degC, simulated, at the surface: what a sensor would show
    core: Array  # degC


class ThermalTwin(eqx.Module):
    """A voltage model and a thermal model that feed one another: a voltage model whose input is the *ambient*.

    `Input.temperature` is the ambient in degC; `Start.temperature` remains the cell's own, of core and surface alike.
    The voltage model is given the surface's temperature, which circuits are trained with, or the core's. Within
    a step it is held where the step before it ended.
    """

    model: Any  # Separable
    thermal: Thermal
    entropy: Entropy | None = None
    feeds: Literal["surface", "core"] = eqx.field(static=True, default="surface")

    def __check_init__(self) -> None:
        if not callable(getattr(self.model, "ocv", None)):
            raise CelltwinError(
                "the heat of this voltage model is unknown",
                got=type(self.model).__name__,
                expected="a model with an `ocv`, such as the Thevenin circuit",
            )
        if self.feeds == "core" and getattr(self.model, "core", None) is not None:
            raise CelltwinError(
                "the core's warmth would count twice",
                got="feeds='core' for a circuit that has its own core",
                expected="feeds='surface', or a circuit without a core",
            )

    def init(self, start: Start) -> ThermalState:
        """The cell wakes as warm inside as outside."""
        return ThermalState(self.model.init(start), Temperatures(start.temperature, start.temperature))

    def step(self, state: ThermalState, u: Input) -> tuple[ThermalState, ThermalOutput]:
        degrees = getattr(state.temperatures, self.feeds)
        inner, output = self.model.step(state.model, Input(u.current, degrees, u.dt))
        heat = heat_of(self.model, self.entropy, inner, output, u.current, degrees)
        warm = self.thermal.step(state.temperatures, heat, u.temperature, u.dt)
        return ThermalState(inner, warm), ThermalOutput(output.voltage, output.soc, warm.surface, warm.core)

    def penalty(self) -> Array:
        """The voltage model's own prior."""
        return self.model.penalty()
