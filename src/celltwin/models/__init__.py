"""Voltage models: one family a file, registered here by the name that the command line knows.

Families of other packages come in through their entry points: a package that says

    [project.entry-points."celltwin.models"]
    my-model = "my_package.my_module:FAMILY"

in its pyproject.toml, where FAMILY is a `Family` or a list of them, is known to every command once it is installed.
"""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import jax

from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.errors import CelltwinError
from celltwin.learning.plan import Plan
from celltwin.models.baselines import Hold, Ohmic
from celltwin.models.circuit_neural import CircuitNeural
from celltwin.models.edmd import Edmd
from celltwin.models.gru import Gru
from celltwin.models.hybrid import Hybrid
from celltwin.models.koopman import Koopman
from celltwin.models.lstm import Lstm
from celltwin.models.narx import Narx
from celltwin.models.narx_poly import NarxPoly
from celltwin.models.subnet import Subnet
from celltwin.physics.hysteretic import HystereticThevenin
from celltwin.physics.thevenin import Thevenin

log = logging.getLogger("celltwin")

PLUGINS = "celltwin.models"  # the group of entry points in which other packages name their families

Create = Callable[[Sequence[Record], Domain, jax.Array, Any], Any]


@dataclass(frozen=True)
class Family:
    """How to begin and train one kind of model.

    `create(records, domain, key, base)` returns the untrained model; `base` is the trained model of the family named
    by `base`, where there is one. `plan` is None for a model that needs no training.
    """

    name: str
    title: str
    create: Create
    plan: Plan | None = None
    base: str | None = None
    seeded: bool = True  # does its result depend on the seed?
    task: str = "voltage"  # what it is to say, a name in learning.tasks


_families: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Make a family known by its name. Raises CelltwinError where the name is taken."""
    if family.name in _families:
        raise CelltwinError(f"model '{family.name}' is registered already", fix="choose another name")
    _families[family.name] = family
    return family


@functools.cache
def plugins() -> dict[str, Family | Exception]:
    """Families of other packages by name, found once; of an entry point that could not be used, what was wrong.

    A broken package does not stand in the way of the others: its name is known, and asking for it tells why it is of
    no use.
    """
    found: dict[str, Family | Exception] = {}
    for entry in metadata.entry_points(group=PLUGINS):
        try:
            made = entry.load()
            those = [made] if isinstance(made, Family) else list(made)
            wrong = [one for one in those if not isinstance(one, Family)]
            if wrong or not those:
                raise CelltwinError("it names no family", got=repr(made), expected="a models.Family, or a list of them")
            for one in those:
                if one.name in _families or one.name in found:
                    raise CelltwinError(f"model '{one.name}' is registered already", fix="give it another name")
                found[one.name] = one
        except Exception as error:  # whatever a package of others does when it is imported
            log.warning("the model plugin %s = %s is of no use: %s", entry.name, entry.value, error)
            found.setdefault(entry.name, error)
    return found


def family(name: str) -> Family:
    """The family of that name, of celltwin or of a plugin.

    Raises CelltwinError, with the nearest name, where there is none, or where its plugin is broken.
    """
    if name in _families:
        return _families[name]
    other = plugins().get(name)
    if isinstance(other, Family):
        return other
    if other is not None:
        raise CelltwinError(
            f"the plugin of model '{name}' is of no use", got=other, fix="mend or uninstall the package that names it"
        ) from other
    known = [one.name for one in families()]
    near = difflib.get_close_matches(name, known, 1)
    raise CelltwinError(
        f"there is no model '{name}'",
        got=name,
        expected=", ".join(known),
        fix=f"did you mean '{near[0]}'?" if near else "see celltwin models",
    )


def families() -> list[Family]:
    """All families in the order of registration, those of plugins last."""
    others = [one for one in plugins().values() if isinstance(one, Family) and one.name not in _families]
    return [*_families.values(), *others]


# What trains every network here. On a small dataset it takes more passes than a circuit does.
NETWORK = Plan(adam_rounds=14, passes=200, updates=200, chunk=250, learning_rate=3e-3)

register(
    Family(
        "hold",
        "last voltage held",
        lambda records, domain, key, base: Hold(),
        seeded=False,
    )
)
register(
    Family(
        "ohmic",
        "OCV + one ohmic resistance, by least squares",
        lambda records, domain, key, base: Ohmic.create(records),
        seeded=False,
    )
)
register(
    Family(
        "thevenin",
        "Thevenin circuit: OCV, charge transfer and RC pairs over SOC and temperature",
        lambda records, domain, key, base: Thevenin.create(records),
        Plan(adam_rounds=8, updates=150, chunk=500, learning_rate=2e-2, lbfgs_rounds=2, iterations=30),
        seeded=False,
    )
)
register(
    Family(
        "thevenin-hysteresis",
        "Thevenin circuit with memory of charge, for LFP and other cells with hysteresis",
        lambda records, domain, key, base: HystereticThevenin.create(records),
        Plan(lbfgs_rounds=4, iterations=60),
        seeded=False,
    )
)
register(
    Family(
        "narx",
        "NARX: a network on its own past voltages, currents and temperature",
        lambda records, domain, key, base: Narx.create(records, domain, key),
        NETWORK,
    )
)
register(
    Family(
        "hybrid",
        "NARX residual on the Thevenin circuit, fed with the circuit's states",
        lambda records, domain, key, base: Hybrid.narx(records, domain, key, base),
        NETWORK,
        base="thevenin",
    )
)
register(
    Family(
        "hybrid-gru",
        "GRU-32 residual on the Thevenin circuit, fed with the circuit's states",
        lambda records, domain, key, base: Hybrid.gru(records, domain, key, base),
        NETWORK,
        base="thevenin",
    )
)
register(
    Family(
        "lstm",
        "LSTM-64 on current, temperature and counted charge",
        lambda records, domain, key, base: Lstm.create(records, domain, key),
        NETWORK,
    )
)
register(
    Family(
        "edmd",
        "EDMD with control: leaky memories of current under radial functions, by least squares",
        lambda records, domain, key, base: Edmd.create(records),
        seeded=False,
    )
)
register(
    Family(
        "koopman",
        "deep Koopman with control: a learned lift with stable linear dynamics",
        lambda records, domain, key, base: Koopman.create(records, domain, key),
        NETWORK.model_copy(update={"learning_rate": 6e-3}),
    )
)
register(
    Family(
        "gru",
        "GRU-48 on current, temperature and counted charge",
        lambda records, domain, key, base: Gru.create(records, domain, key),
        NETWORK,
    )
)
register(
    Family(
        "narx-poly",
        "polynomial NARX: an equation that can be read, its terms chosen one by one",
        lambda records, domain, key, base: NarxPoly.create(records),
        seeded=False,
    )
)
register(
    Family(
        "circuit-neural",
        "Thevenin circuit whose resistances and time constants a network moves with use",
        lambda records, domain, key, base: CircuitNeural.create(records, domain, key, base),
        NETWORK,
        base="thevenin",
    )
)
register(
    Family(
        "subnet",
        "SUBNET: a nonlinear state of stable steps, woken by an encoder of the start",
        lambda records, domain, key, base: Subnet.create(records, domain, key),
        NETWORK.model_copy(update={"learning_rate": 6e-3}),
    )
)
