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
        for name in ("temperatures", "ocv_soc", "soc"):
            if (np.diff(getattr(self, name)) <= 0).any():
                raise CelltwinError(
                    f"axis '{name}' of circuit '{self.name}'", got=getattr(self, name), expected="increasing values"
                )
        for name in ("r0", "r", "tau", "transfer_resistance", "transfer_scale"):
            value = getattr(self, name)
            if value is not None and value.size and value.min() <= 0:
                raise CelltwinError(
                    f"table '{name}' of circuit '{self.name}'", got=f"{value.min():g}", expected="positive values"
                )

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
