"""Pack models side by side, on simulated packs or on a measured string.

run/
  config.json, log.txt, checkpoints/, models/       as of other benchmarks
  metrics.json       every figure
  report.html        the page to read
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from celltwin.errors import CelltwinError
from celltwin.learning.pack_training import PackPlan, fit_packs
from celltwin.models.pack_circuit import CircuitNetwork
from celltwin.models.pack_graph import PackGraph
from celltwin.models.pack_lstm import PackLstm
from celltwin.packs import study
from celltwin.physics.thevenin import Thevenin

log = logging.getLogger("celltwin")

CIRCUIT = PackPlan(updates=24, learning_rate=3e-2, every=8, forget=0.0, averaging=0.8)
GRAPH = PackPlan(updates=90, learning_rate=6e-3, every=30, averaging=0.9)
LSTM = PackPlan(updates=600, learning_rate=6e-3, every=100)
TITLES = {
    "pack-mean": "one mean cell, times n",
    "pack-independent": "circuits that do not know of each other",
    "pack-circuit": "circuits in Kirchhoff's network",
    "pack-lstm": "LSTM-32 of each cell",
    "pack-told": "circuits in Kirchhoff's network, told each cell's capacity and resistance",
    "pack-graph": "graph network that corrects the circuits of Kirchhoff's network",
}
SEEDED = ("pack-lstm", "pack-graph")


def created(name: str, cell: Thevenin, capacity_ah: float, seed: int, base: Any = None) -> Any:
    """A pack model by its name, untrained. Raises CelltwinError for a name that is none."""
    key = jax.random.key(seed)
    if name == "pack-graph":
        return PackGraph.create(base, key)
    if name == "pack-lstm":
        return PackLstm.create(capacity_ah, key)
    kinds: dict[str, Any] = {
        "pack-mean": {"sharing": "mean"},
        "pack-independent": {"sharing": "even"},
        "pack-circuit": {},
        "pack-told": {"told": True},
    }
    if name not in kinds:
        raise CelltwinError(f"there is no pack model '{name}'", got=name, expected=", ".join(TITLES))
    return CircuitNetwork.create(cell, capacity_ah, **kinds[name])


def train_simulated(
    cell: Thevenin,
    capacity_ah: float,
    sides: study.Sides,
    names: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    quickly: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, list[tuple[Any, Any]]]:
    """Models by name, one for each seed where a seed matters, each with how it was trained; from `out` if there."""
    made: dict[str, list[tuple[Any, Any]]] = {}
    wanted = list(dict.fromkeys([*(["pack-told"] if "pack-graph" in names else []), *names]))
    for name in wanted:
        plan = {"pack-graph": GRAPH, "pack-lstm": LSTM}.get(name, CIRCUIT)
        if quickly:
            plan = plan.model_copy(update={"updates": max(10, plan.updates // 5), "every": max(5, plan.every // 5)})
        for seed in seeds if name in SEEDED else seeds[:1]:
            base = made["pack-told"][0][0] if name == "pack-graph" else None
            model = created(name, cell, capacity_ah, seed, base)
            path = out / "checkpoints" / f"{name}-{seed}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            fitted = fit_packs(
                model,
                sides.train,
                sides.validate,
                plan.model_copy(update={"seed": seed}),
                checkpoint=path,
                resume=True,
                report=lambda p, name=name, seed=seed: say(
                    f"{name}-{seed} update {p.update}: loss {p.train:.2f}, validation {p.validate:.2f} mV"
                ),
            )
            made.setdefault(name, []).append((fitted.model, fitted))
    return made
