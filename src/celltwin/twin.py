"""Twin: a model with all that is needed to use and to judge it, in one file.

The file is safetensors: the arrays of the model and its training domain, and in the header a JSON description of
the modules they belong to, the cell, the sampling and the model card. Nothing in it is ever executed.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from celltwin import __version__, files, models
from celltwin.data.domain import CHANNELS, Domain
from celltwin.data.record import Cell, Record
from celltwin.errors import CelltwinError
from celltwin.interface import (
    CHUNK,
    Estimate,
    Input,
    Output,
    Start,
    estimate_records,
    inputs_of,
    measurements_of,
    run,
    simulate_records,
    start_of,
    unknown_start,
)
from celltwin.learning.bands import Bands
from celltwin.models.bounds import Bounded, BoundedEstimator
from celltwin.physics.rest import at_rest

SAID: dict[str, tuple[str, str]] = {  # of the domain's channels: name and unit
    "current": ("current", " A"),
    "temperature": ("temperature", " °C"),
    "soc": ("state of charge", ""),
    "dt": ("step", " s"),
}
FORMAT = 2  # of the file; raised when an older celltwin could no longer read it


@dataclass(frozen=True)
class Twin:
    """A trained model of one cell type.

    `card` says where it comes from: dataset, licence, citation, split, seed, figures.
    """

    name: str  # of the model's family
    model: Any
    domain: Domain
    cell: Cell
    card: dict[str, Any] = field(default_factory=dict)
    task: str = "voltage"  # what it says: "voltage" of a simulation, or "soc", estimated from measurements
    bands: Bands | None = None  # of the simulated voltage, where records that it was not trained on measured them

    def simulate(self, record: Record) -> Output:
        """Closed-loop simulation of a record, arrays [time]. See `with_facts` for a record of unknown cell."""
        self.refuse_unless("voltage")
        return simulate_records(self.runner, [self.with_facts(record)])[0]

    @property
    def runner(self) -> Any:
        """The model as it is run: it answers with what its cell can have, whatever it is fed."""
        return {"voltage": Bounded, "soc": BoundedEstimator}[self.task].of(self.model, self.cell)

    def estimate(self, record: Record, stored_soc: float | None = None) -> Estimate:
        """State of charge of a record and its standard deviation, arrays [time] of fractions.

        `stored_soc` is what is remembered of the state of charge at the first sample, where anything is.
        """
        self.refuse_unless("soc")
        return estimate_records(self.runner, [self.with_facts(record)], None if stored_soc is None else [stored_soc])[0]

    def fed(self, record: Record, dtype: Any = np.float32) -> tuple[Start, np.ndarray]:
        """What the step is fed with a record: its start, of an estimator without a state of charge, and inputs
        [time, channels] in the order of Input or Measurement.
        """
        record = self.with_facts(record)
        if self.task == "soc":
            return unknown_start(record, dtype), np.stack(measurements_of(record, dtype), axis=1)
        return start_of(record, dtype), np.stack(inputs_of(record, dtype), axis=1)

    def refuse_unless(self, task: str) -> None:
        """Raise CelltwinError where this twin says something else."""
        if self.task != task:
            right = {"voltage": "celltwin simulate", "soc": "celltwin estimate"}[self.task]
            raise CelltwinError(
                f"{self.name} says {self.task}",
                expected=f"a twin that says {task}",
                fix=f"use {right}, or another twin",
            )

    def in_domain(self, record: Record, soc: Any) -> np.ndarray:
        """True where a sample lies inside the training domain: [time]."""
        columns = (record.current, record.filled_temperature, soc, record.dt)
        padding = -len(record) % CHUNK  # so that records of other lengths reuse the same programs
        padded = (np.pad(np.asarray(column, np.float32), (0, padding)) for column in columns)
        return np.asarray(self.domain.contains(*map(jnp.asarray, padded)))[: len(record)]

    def why_outside(self, record: Record, soc: Any) -> str:
        """What of a record lies outside the training domain, and where it ends, in words; empty where nothing does."""
        values = {"current": record.current, "temperature": record.filled_temperature, "soc": soc, "dt": record.dt}
        within = self.domain.within(**{name: jnp.asarray(column, jnp.float32) for name, column in values.items()})
        said = []
        for channel, inside in within.items():
            if not inside.all():
                beyond = np.asarray(values[channel])[~np.asarray(inside)]
                worst = beyond[np.argmax(np.abs(beyond - float(self.domain.mean[CHANNELS.index(channel)])))]
                low, high = self.domain.ranges()[channel]
                name, unit = SAID[channel]
                said.append(f"{name} of {worst:.3g}{unit}, trained on {low:.3g} to {high:.3g}{unit}")
        return "; ".join(said)

    def band(self, record: Record, output: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Lower and upper end (V) of the band around an Output, arrays [time]; None for a twin without bands."""
        if self.bands is None:
            return None
        half = self.bands.half_width(output.soc, record.filled_temperature)
        voltage = np.asarray(output.voltage, np.float64)
        return voltage - half, voltage + half

    def with_facts(self, record: Record) -> Record:
        """The record with this twin's cell, and for a voltage model an initial SOC, where it has none of its own.

        Unknown initial SOC is read from the open-circuit voltage of the first sample, which must be at rest.
        """
        if record.cell is None:
            record = dataclasses.replace(record, cell=self.cell)
        if np.isnan(record.initial_soc) and self.task == "voltage":
            record = dataclasses.replace(record, initial_soc=self.rested_soc(record))
        return record

    def rested_soc(self, record: Record) -> float:
        """SOC (fraction) at which the model at rest shows the first voltage of a record that starts at rest.

        Raises CelltwinError where the record starts under load: its voltage then does not tell its SOC.
        """
        if abs(record.current[0]) > self.cell.nominal_capacity_ah / 20:
            raise CelltwinError(
                f"initial SOC of '{record.name}' is unknown",
                got=f"a first sample under {record.current[0]:.2f} A",
                expected="a start at rest, from which the open-circuit voltage tells it",
                fix="give --initial-soc",
            )
        if not np.isfinite(record.voltage[0]):
            raise CelltwinError(
                f"initial SOC of '{record.name}' is unknown",
                got="a first voltage that was not measured",
                expected="one at rest, from which the open-circuit voltage tells it",
                fix="give --initial-soc",
            )
        soc = np.linspace(0.0, 1.0, 401)
        voltage = probe(self.model, soc, float(record.filled_temperature[0]), self.cell)[0]
        return float(soc[np.argmin(np.abs(voltage - record.voltage[0]))])

    def save(self, path: str | Path) -> Path:
        """Write the twin to one file, atomically."""
        tree = (self.model, self.domain)
        about = {
            "kind": "celltwin",
            "format": FORMAT,
            "celltwin": __version__,
            "name": self.name,
            "task": self.task,
            "cell": dataclasses.asdict(self.cell),
            "card": self.card,
            "domain": self.domain.ranges(),
            "bands": self.bands and dataclasses.asdict(self.bands),
            "modules": [_describe(part) for part in tree],
        }
        files.save_tree(path, tree, about)
        return Path(path)


PRETRAINED = Path(__file__).parent / "pretrained"


def pretrained() -> list[str]:
    """Names of the twins that come with the package."""
    return sorted(path.relative_to(PRETRAINED).with_suffix("").as_posix() for path in PRETRAINED.glob("*/*.twin"))


def load(path: str | Path) -> Twin:
    """Read a twin from a file, or the pretrained one of that name.

    Raises CelltwinError for a missing, damaged or foreign file, or one of a newer format.
    """
    if not Path(path).exists():
        if str(path) in pretrained():
            path = PRETRAINED / f"{path}.twin"
        elif Path(path).suffix != ".twin":
            raise CelltwinError(
                f"there is no twin {path}", expected=f"a file, or one of {', '.join(pretrained()) or 'none'}"
            )
    about = files.load_about(path)
    if about.get("kind") != "celltwin" or "modules" not in about:
        raise CelltwinError(f"{path} is not a twin", expected="a file that celltwin fit or benchmark wrote")
    try:
        if about["format"] > FORMAT:
            raise CelltwinError(
                f"{path} was written by a newer celltwin",
                got=f"format {about['format']} of celltwin {about['celltwin']}",
                expected=f"format {FORMAT} or older",
                fix="upgrade celltwin",
            )
        like = tuple(_blank(description, path) for description in about["modules"])
        cell = Cell(**about["cell"] | {"voltage_limits_volt": tuple(about["cell"]["voltage_limits_volt"])})
        name, card = about["name"], about["card"]
        bands = Bands.of(about["bands"]) if about.get("bands") else None
    except (KeyError, TypeError, ValueError) as error:
        raise CelltwinError(f"{path} is damaged", got=f"{type(error).__name__} in its header: {error}") from error
    model, domain = files.load_tree(path, like)
    return Twin(name, model, domain, cell, card, about.get("task", "voltage"), bands)


PROBE_SECONDS = 60  # of the discharge behind the total resistance


def probe(model: Any, soc: np.ndarray, temperature: float, cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a model holds for the cell, seen through its own step: arrays [len(soc)] at one temperature (degC).

    Open-circuit voltage (V) in the first moment of a rest, and dV/dI (ohm) of a 1C discharge from rest after the
    first second and after a minute.
    """
    seen = _probe(model, jnp.asarray(soc, jnp.float32), jnp.asarray(temperature, jnp.float32), cell)
    return tuple(np.asarray(a) for a in seen)  # pyright: ignore[reportReturnType]


@partial(jax.jit, static_argnames="cell")
def _probe(model: Any, soc: jax.Array, degrees: jax.Array, cell: Cell) -> tuple[jax.Array, ...]:
    def respond(soc: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        one = jnp.ones((), soc.dtype)
        capacity, current = cell.reference_capacity_ah * one, -cell.nominal_capacity_ah * one
        state, ocv = at_rest(model, soc, degrees, capacity, float(np.mean(cell.voltage_limits_volt)) * one)
        load = Input(*(jnp.full(PROBE_SECONDS, value) for value in (current, degrees, one)))
        voltage = run(model, state, load)[1].voltage
        return ocv, (voltage[0] - ocv) / current, (voltage[-1] - ocv) / current

    return jax.vmap(respond)(soc)


def _describe(node: Any) -> Any:
    """JSON description of a module: its class, its static fields, and the shapes of its arrays."""
    if isinstance(node, eqx.Module):
        kind = type(node)
        fields = {f.name: _describe(getattr(node, f.name)) for f in dataclasses.fields(node)}
        return {"module": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    if eqx.is_array(node) or isinstance(node, np.ndarray):
        return {"array": list(node.shape), "dtype": str(node.dtype)}
    if isinstance(node, (tuple, list)):
        return {"tuple": [_describe(part) for part in node]}
    if node is None or isinstance(node, (bool, int, float, str)):
        return {"value": node}
    raise CelltwinError(f"a model holds a {type(node).__name__}", expected="arrays, modules, tuples and plain values")


def _blank(description: Any, path: str | Path) -> Any:
    """The module that `_describe` described, its arrays zero."""
    if "module" in description:
        kind = _module_class(description["module"], path)
        expected = {f.name for f in dataclasses.fields(kind)}
        later = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
        if not expected - set(later) <= set(description["fields"]) <= expected:
            raise CelltwinError(
                f"{path} holds a {kind.__qualname__} of another version of celltwin",
                got=f"the fields {', '.join(sorted(description['fields']))}",
                expected=", ".join(sorted(expected)),
                fix="train it again, or use the version that wrote it",
            )
        node = object.__new__(kind)
        for name, value in later.items():
            object.__setattr__(node, name, value)
        for name, part in description["fields"].items():
            object.__setattr__(node, name, _blank(part, path))
        return node
    if "array" in description:
        return jnp.zeros(description["array"], description["dtype"])
    if "tuple" in description:
        return tuple(_blank(part, path) for part in description["tuple"])
    return description["value"]


def _module_class(name: str, path: str | Path) -> type:
    """The Module class of a qualified name. Nothing but subclasses of equinox.Module is ever made."""
    foreign = CelltwinError(
        f"{path} needs the model class {name}",
        got="no such class here",
        expected="a class of celltwin or of an installed package",
        fix="import the package that defines it first, or upgrade celltwin",
    )
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise foreign
    module, _, qualified = name.partition(":")
    # A name in a file must not make Python import, and so run, whatever happens to be installed.
    if not (module.startswith("celltwin.") or module in sys.modules):
        models.plugins()  # these have been chosen by whoever installed them
        if module not in sys.modules:
            raise foreign
    try:
        kind = getattr(importlib.import_module(module), qualified)
    except (ImportError, AttributeError) as error:
        raise foreign from error
    if not (isinstance(kind, type) and issubclass(kind, eqx.Module)):
        raise foreign
    return kind
