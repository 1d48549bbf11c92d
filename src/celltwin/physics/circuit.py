"""The parameters of an equivalent circuit as tables in SI units: what identification finds and tools exchange."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from celltwin.errors import CelltwinError


@dataclass(frozen=True, eq=False)
class Circuit:
    """Tables of an equivalent circuit over state of charge (fraction) and temperature (degC).

    Between nodes open-circuit voltage and hysteresis are linear in state of charge; resistances and time constants are
    log-linear in it and follow Arrhenius' law in temperature. Beyond the outermost nodes all are held.
    """

    name: str
    capacity_ah: float  # the one denominator of state of charge
    voltage_limits_volt: tuple[float, float]
    temperatures: np.ndarray  # [T] degC, increasing
    ocv_soc: np.ndarray  # [U] increasing
    ocv: np.ndarray  # [U, T] V
    soc: np.ndarray  # [S] increasing, of all tables that follow
    r0: np.ndarray  # [S, T] ohm
    r: np.ndarray  # [N, S, T] ohm
    tau: np.ndarray  # [N, S, T] s
    transfer_resistance: np.ndarray | None = None  # [S, T] ohm: charge transfer s asinh(R I / s); None: linear circuit
    transfer_scale: np.ndarray | None = None  # [T] V, s of it
    hysteresis: np.ndarray | None = None  # [modes, S] V, half the gap between charge and discharge branch
    hysteresis_rate: np.ndarray | None = None  # [modes] per capacity passed
    core_kelvin_per_watt: float = 0.0  # by how much the core is warmer than the surface; 0: not at all
    core_second: float = 150.0  # how slowly it warms
    standard_error: dict[str, np.ndarray] = field(default_factory=dict)  # of the table of that name and shape
    notes: tuple[str, ...] = ()  # what the data could not tell, in words
    meta: dict[str, Any] = field(default_factory=dict)  # how it was found, as plain JSON values

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            value = getattr(self, name)
            if value is not None:
                value = np.array(value, dtype=np.float64)
                value.setflags(write=False)
                object.__setattr__(self, name, value)
        s, t, u, n = len(self.soc), len(self.temperatures), len(self.ocv_soc), len(self.r)
        modes = 0 if self.hysteresis_rate is None else len(self.hysteresis_rate)
        shapes = {
            "ocv": (u, t),
            "r0": (s, t),
            "r": (n, s, t),
            "tau": (n, s, t),
            "transfer_resistance": (s, t),
            "transfer_scale": (t,),
            "hysteresis": (modes, s),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise CelltwinError(f"table '{name}' of circuit '{self.name}'", got=value.shape, expected=shape)
            if value is not None and not np.isfinite(value).all():
                raise CelltwinError(f"table '{name}' of circuit '{self.name}'", got="NaN", expected="finite numbers")
        for one, other in (("transfer_resistance", "transfer_scale"), ("hysteresis", "hysteresis_rate")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise CelltwinError(
                    f"circuit '{self.name}' is incomplete",
                    got=f"only one of {one} and {other}",
                    expected="both or neither",
                )
        low, high = self.voltage_limits_volt
        if not (0.0 < self.capacity_ah < 1e5 and low < high and self.core_kelvin_per_watt >= 0.0 < self.core_second):
            raise CelltwinError(
                f"facts of circuit '{self.name}' make no sense",
                got=f"{self.capacity_ah} Ah, {low} to {high} V, {self.core_kelvin_per_watt} K/W, {self.core_second} s",
                expected="a positive capacity, a lower and an upper voltage, a core no colder than the surface",
            )
        for name in ("temperatures", "ocv_soc", "soc"):
            if not (np.diff(getattr(self, name)) > 0).all() or not np.isfinite(getattr(self, name)).all():
                raise CelltwinError(
                    f"axis '{name}' of circuit '{self.name}'", got=getattr(self, name), expected="increasing values"
                )
        for name in ("r0", "r", "tau", "transfer_resistance", "transfer_scale"):
            value = getattr(self, name)
            if value is not None and value.size and value.min() <= 0:
                raise CelltwinError(
                    f"table '{name}' of circuit '{self.name}'", got=f"{value.min():g}", expected="positive values"
                )

        for name in ("hysteresis", "hysteresis_rate"):
            value = getattr(self, name)
            if value is not None and value.size and not value.min() >= 0:
                raise CelltwinError(
                    f"table '{name}' of circuit '{self.name}'", got=f"{value.min():g}", expected="values of 0 or more"
                )

    @property
    def core_rise(self) -> np.ndarray:
        """Steady rise of the core at each temperature, K/A^2: its thermal times the circuit's typical resistance."""
        quick = np.where(self.tau < 3.0 * self.core_second, self.r, 0.0).sum(axis=0)
        transfer = 0.0 if self.transfer_resistance is None else self.transfer_resistance
        return self.core_kelvin_per_watt * np.median(self.r0 + quick + transfer, axis=0)

    @property
    def pairs(self) -> int:
        """Number of RC pairs."""
        return len(self.r)


_ARRAYS = (
    "temperatures",
    "ocv_soc",
    "ocv",
    "soc",
    "r0",
    "r",
    "tau",
    "transfer_resistance",
    "transfer_scale",
    "hysteresis",
    "hysteresis_rate",
)
