"""Pack models side by side, on simulated packs or on a measured string.

run/
  config.json        what was asked for, resolved
  log.txt            what happened, with times
  checkpoints/       the models: a killed run goes on from here
  metrics.json       every figure
  shown.json         cells over time of one test log, for the page
  report.html        the page to read
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from celltwin import __version__, files
from celltwin.benchmark import begin, logged
from celltwin.data import datasets
from celltwin.data.datasets import Dataset
from celltwin.data.record import SECONDS_PER_HOUR, PackRecord
from celltwin.errors import CelltwinError
from celltwin.evaluation import report
from celltwin.experiment import of_records
from celltwin.learning import identification
from celltwin.learning.pack_training import PackPlan, fit_packs, predict
from celltwin.learning.training import parameters
from celltwin.models.pack_circuit import CircuitNetwork, Own
from celltwin.models.pack_graph import PackGraph
from celltwin.models.pack_lstm import PackLstm
from celltwin.packs import adapting, score, sensing, study
from celltwin.packs.draw import Fault, Spread
from celltwin.packs.log import PackLog, of_record
from celltwin.physics.thermal_fit import fit_lump
from celltwin.physics.thevenin import Thevenin

log = logging.getLogger("celltwin")

CIRCUIT = PackPlan(updates=24, learning_rate=3e-2, every=8, forget=0.0, averaging=0.8)
GRAPH = PackPlan(updates=90, learning_rate=6e-3, every=30, averaging=0.9)
LSTM = PackPlan(updates=400, learning_rate=6e-3, every=100)
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


Say = Callable[[str], None]
FAULTS = {
    "resistance": Fault("resistance", 1.2),
    "self-discharge": Fault("self-discharge", 20.0),  # ohm: C/25 of a cell of 5 Ah
    "loose joint": Fault("loose joint", 0.01, 1440.0),
}


def run(
    dataset: Dataset,
    out: Path,
    *,
    names: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    quickly: bool = False,
    resume: bool = False,
    title: str = "",
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Train, score and report; returns what is in metrics.json.

    A dataset with a [pack] table is a measured string; any other gives the cycles that simulated packs are driven with.
    Raises CelltwinError where `out` holds another run, or this one and `resume` is not set.
    """
    began = time.monotonic()
    names = list(TITLES if names is None else names)
    for name in names:
        if name not in TITLES:
            raise CelltwinError(f"there is no pack model '{name}'", got=name, expected=", ".join(TITLES))
    measured = dataset.description.pack is not None
    config = {
        "title": title,
        "task": "pack",
        "dataset": dataset.where,
        "models": names,
        "seeds": list(seeds),
        "quick": quickly,
        "records": of_records(dataset.records),
    }
    begin(out, config, resume)

    def tell(text: str) -> None:
        log.info(text)
        say(text)

    with logged(out):
        parts = (_string if measured else _simulated)(dataset, names, seeds, quickly, out, tell)
        metrics = {
            "task": "pack",
            "celltwin": __version__,
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seconds": time.monotonic() - began,
            "quick": quickly,
            "dataset": {
                "name": dataset.name,
                "measured": measured,
                "licence": dataset.description.source.licence,
                "citation": dataset.description.source.citation,
            },
            **parts,
        }
        files.write_json(out / "metrics.json", metrics)
        report.write(out)
    return files.read_json(out / "metrics.json")


def _simulated(
    dataset: Dataset, names: Sequence[str], seeds: Sequence[int], quickly: bool, out: Path, tell: Say
) -> dict[str, Any]:
    sizes = study.Sizes(2, 1, 2, 1) if quickly else study.Sizes()
    tell("drawing packs")
    circuit, sides = study.simulated(dataset, sizes)
    made = train_simulated(Thevenin.of(circuit), circuit.capacity_ah, sides, names, seeds, out, quickly, tell)
    entries, outputs = [], {}
    for name in names:
        tell(f"scoring {name}")
        entry, outputs[name] = _entry(name, made[name], sides.test)
        entries.append(entry)
    last = {name: each[study.KNOWN][-1] for name, each in outputs.items()}
    files.write_json(out / "shown.json", _shown(sides.test[study.KNOWN][-1], last))
    best = _best(outputs)
    faults = [] if best is None else _faults(dataset, made[best][0][0], 1 if quickly else 4, tell)
    learned = [*sides.validate, *(log for batch in sides.train for log in batch)]
    fewer = [] if best is None else _sensors(made[best][0][0], learned, sides.test, outputs[best], tell)
    foretold = [] if best is None else _forecasts(made[best][0][0], sides.test, sides.earlier, score.CUT_OFF, tell)
    return {
        "models": entries,
        "faults": faults,
        "sensors": fewer,
        "forecasts": foretold,
        "uses_by": best,
        "cut_off_volt": score.CUT_OFF,
    }


def _entry(
    name: str, fitted: Sequence[tuple[Any, Any]], tests: dict[str, list[PackLog]], cut_off: float = score.CUT_OFF
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One model's entry in metrics.json, over its seeds, and the simulations of the first."""
    rows: list[dict[str, Any]] = []
    sets: dict[str, list[dict[str, Any]]] = {side: [] for side in tests}
    first: dict[str, Any] = {}
    for model, trained in fitted:
        for side, logs in tests.items():
            outputs = predict(model, logs, together=2 if side == study.LARGE else 6)
            first.setdefault(side, outputs)
            scored = [score.score(one, result, cut_off) for one, result in zip(logs, outputs, strict=True)]
            sets[side].append(score.summary(scored))
            rows += [{"set": side, "seed": trained.seed, **row} for row in scored]

    def over_seeds(values: Sequence[Any]) -> Any:
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known else None

    return {
        "name": name,
        "title": TITLES[name],
        "parameters": parameters(fitted[0][0]),
        "training_seconds": over_seeds([trained.seconds for _, trained in fitted]),
        "seeds": [trained.seed for _, trained in fitted],
        "sets": {
            side: {key: over_seeds([s[key] for s in each]) for key in each[0]}
            | {"rmse_std": float(np.std([s["rmse"] for s in each], ddof=1)) if len(each) > 1 else None}
            for side, each in sets.items()
        },
        "rows": rows,
    }, first


def _shown(one: PackLog, outputs: dict[str, Any], most: int = 300) -> dict[str, Any]:
    """Cells over time of one log, thinned, for the page."""
    pick = np.unique(np.linspace(0, len(one) - 1, most).astype(int))
    return {
        "log": one.name,
        "topology": one.topology.name,
        "place": one.topology.place,
        "group": one.topology.group,
        "string": one.topology.parents[1][one.topology.group],
        "minutes": np.round(pick * one.dt / 60.0, 3),
        "current": np.round(one.current[pick], 2),
        "measured": np.round(one.voltage[pick].T, 4),
        "models": {name: np.round(np.asarray(out.voltage)[pick].T, 4) for name, out in outputs.items()},
    }


def _faults(dataset: Dataset, model: Any, rounds: int, tell: Say) -> list[dict[str, Any]]:
    """The detection table: limits from healthy packs, rates from others.

    Once by what the BMS was told of its cells, once by what it heard of them on an earlier day, when all were healthy.
    """
    names = study.TRAINED * 3

    def shown(kind: str, seed: int) -> tuple[dict[str, list[score.Signs]], list[PackLog]]:
        tell(f"faults: {kind}")
        seeds = [seed + 1000 * n for n in range(rounds)]
        logs = [log for s in seeds for log in study.faulty(dataset, FAULTS.get(kind), names, s)]
        before = [log for s in seeds for log in study.faulty(dataset, None, names, s, day=1)]
        ways = {"told": logs, adapting.EARLIER: adapting.remembered(model, logs, before)}
        outputs = {way: predict(model, known, together=len(names)) for way, known in ways.items()}
        return {way: [score.signs(*pair) for pair in zip(logs, out, strict=True)] for way, out in outputs.items()}, logs

    healthy, again = (shown("healthy", seed)[0] for seed in (7_000_000, 7_100_000))
    limits = {way: score.limits(each) for way, each in healthy.items()}
    found = []
    for kind in FAULTS:
        seen, logs = shown(kind, 7_200_000)
        for way, limit in limits.items():
            result = score.detection(kind, seen[way], logs, limit)
            field = score.SHOWN_BY[kind]
            alarms = np.concatenate([getattr(s, field) for s in again[way]]) > getattr(limit, field)
            more = {"known_by": way, "size": FAULTS[kind].size, "false_alarms": float(np.mean(alarms))}
            found.append(result | more)
    return found


def _best(names: Iterable[str]) -> str | None:
    """The model that packs are watched with: the one that knows most."""
    return next((name for name in ("pack-graph", "pack-told", "pack-circuit") if name in names), None)


def _sensors(
    model: Any, learned: Sequence[PackLog], tests: dict[str, list[PackLog]], outputs: dict[str, Any], tell: Say
) -> list[dict[str, Any]]:
    """What fewer sensors cost: how errors go together from the packs that were learned from, tried on the tests."""
    tell("fewer sensors")
    kin = sensing.kinship(learned, predict(model, learned, together=6), Spread().voltage)
    return [{"set": side, **row} for side, logs in tests.items() for row in sensing.saving(logs, outputs[side], kin)]


def _forecasts(
    model: Any, tests: dict[str, list[PackLog]], earlier: dict[str, list[PackLog]], cut_off: float, tell: Say
) -> list[dict[str, Any]]:
    """What is known of the end of discharge, and when."""
    found = []
    for side, logs in tests.items():
        tell(f"forecasts while driving: {side}")
        rows = adapting.forecasts(model, logs, cut_off, earlier.get(side, ()))
        found += [{"set": side, **row} for row in rows]
    return found


def _string(
    dataset: Dataset, names: Sequence[str], seeds: Sequence[int], quickly: bool, out: Path, tell: Say
) -> dict[str, Any]:
    """A measured string: trained on the training records, scored on the test records from their first sample."""
    pack, split = dataset.description.pack, dataset.split()
    assert pack is not None
    sides: dict[str, list[PackLog]] = {}
    for side, most in (("train", 1000), ("test", 4000)):
        records = [r for r in getattr(split, side) if isinstance(r, PackRecord)]
        steps = [max(1.0, np.ceil((r.time[-1] - r.time[0]) / most)) for r in records]
        sides[side] = [of_record(r, dataset.cell, pack.topology, dt) for r, dt in zip(records, steps, strict=True)]
    tell("identifying the circuit of its cell")
    found = identification.identify(datasets.characterisation_of_pack(dataset), pairs=2)
    cell, ratio = Thevenin.of(found.circuit), pack.cells_per_group
    capacity = ratio * found.circuit.capacity_ah
    rest = np.mean([one.known.voltage for one in sides["train"]], axis=0).astype(np.float32)
    plain = CircuitNetwork.create(cell, capacity)
    charged = plain.rested_soc(jnp.asarray(rest), jnp.full(len(rest), 25.0, np.float32))
    heat = _measured_heat(plain, np.asarray(charged), sides["train"])

    def circuits(kind: str) -> Any:
        sharing = "mean" if kind == "pack-mean" else "kirchhoff"
        own = Own.of(charged) if kind in ("pack-told", "pack-graph") else None
        network: Any = CircuitNetwork.create(cell, capacity, sharing=sharing, own=own, heat=heat, hold=False)
        return eqx.tree_at(lambda n: n.log_resistance, network, jnp.asarray(-np.log(ratio), np.float32))

    updates = 100 if quickly else 1000  # the sensor's offset is the last to settle
    plan = PackPlan(updates=updates, learning_rate=1e-2, every=updates, forget=0.0, averaging=0.98, temperature=0.1)
    few = plan.model_copy(update={"updates": updates // 5, "every": updates // 5, "learning_rate": 3e-3})
    made: dict[str, list[tuple[Any, Any]]] = {}
    batches = [[one] for one in sides["train"]]
    names = [n for n in names if n != "pack-independent"]  # in a string of groups it is pack-circuit
    wanted: list[str] = [*(["pack-told"] if "pack-graph" in names else []), *names]
    for name in dict.fromkeys(wanted):
        for seed in seeds if name in SEEDED else seeds[:1]:
            tell(f"training {name}-{seed}")
            if name == "pack-graph":
                model = PackGraph.create(made["pack-told"][0][0], jax.random.key(seed))
            else:
                model = PackLstm.create(capacity, jax.random.key(seed)) if name == "pack-lstm" else circuits(name)
            chosen = (few if name == "pack-graph" else plan).model_copy(update={"seed": seed})
            path = out / "checkpoints" / f"{name}-{seed}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            fitted = fit_packs(model, batches, [], chosen, checkpoint=path, resume=True)
            made.setdefault(name, []).append((fitted.model, _Trained(seed, fitted.seconds)))
    low = float(dataset.cell.voltage_limits_volt[0]) + 0.01
    entries, outputs = [], {}
    for name in names:
        entry, outputs[name] = _entry(name, made[name], {"test": sides["test"]}, low)
        for row, (model, _) in zip(entry["rows"], made[name], strict=False):
            row |= _flat_part(sides["test"][0], predict(model, sides["test"][:1])[0])
        entry["sets"]["test"]["rmse_middle"] = float(
            np.mean([r["rmse_middle"] for r in entry["rows"] if "rmse_middle" in r])
        )
        entries.append(entry)
    first = {name: each["test"][0] for name, each in outputs.items()}
    files.write_json(out / "shown.json", _shown(sides["test"][0], first))
    best, tests = _best(outputs), {"test": sides["test"]}
    fewer = [] if best is None else _sensors(made[best][0][0], sides["train"], tests, outputs[best], tell)
    foretold = [] if best is None else _forecasts(made[best][0][0], tests, {}, low, tell)
    return {
        "models": entries,
        "faults": [],
        "sensors": fewer,
        "forecasts": foretold,
        "uses_by": best,
        "cut_off_volt": low,
    }


def _measured_heat(network: CircuitNetwork, soc: np.ndarray, logs: Sequence[PackLog]) -> list[float] | None:
    """What heats and cools the groups of a string (as HEAT), by their logs, which start at `soc` [groups]."""
    seen = []
    for one in logs:
        passed = np.cumsum(one.current * one.dt) / SECONDS_PER_HOUR / float(network.capacity.cell)
        warm = np.where(np.isfinite(one.temperature), one.temperature, one.ambient[:, None])
        curve = jax.vmap(jax.vmap(network.cell.ocv))
        rested = curve(jnp.asarray(soc + passed[:, None], np.float32), jnp.asarray(warm, np.float32))
        lost = one.current[:, None] * (one.voltage - np.asarray(rested))
        seen.append((np.nan_to_num(lost), one.temperature, one.ambient, one.dt))
    found = fit_lump(seen)
    return None if found is None else [*found, float(network.heat.cell[2])]


MIDDLE = (3.3, 4.1)  # V, between which most of a discharge passes


def _flat_part(one: PackLog, out: Any) -> dict[str, float]:
    inside = (one.voltage > MIDDLE[0]) & (one.voltage < MIDDLE[1])
    error = (np.asarray(out.voltage) - one.voltage)[inside]
    return {"rmse_middle": 1e3 * float(np.sqrt(np.mean(error**2)))}


class _Trained(NamedTuple):
    """A seed, and how long training took."""

    seed: int
    seconds: float


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
    """Models by name, one for each seed where a seed matters, each with how it was trained; from `out` if there.

    Batches are trained on two at a time: most of a step's cost is of its operations, not of its cells.
    """
    paired = [a + b for a, b in zip(sides.train[::2], sides.train[1::2], strict=False)] or sides.train
    made: dict[str, list[tuple[Any, Any]]] = {}
    wanted: list[str] = [*(["pack-told"] if "pack-graph" in names else []), *names]
    for name in dict.fromkeys(wanted):
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
                paired,
                sides.validate,
                plan.model_copy(update={"seed": seed}),
                checkpoint=path,
                resume=True,
                report=lambda p, name=name, seed=seed: say(
                    f"{name}-{seed} update {p.update}: loss {p.train:.2f}, validation {p.validate:.2f} mV"
                ),
            )
            made.setdefault(name, []).append((fitted.model, _Trained(seed, fitted.seconds)))
    return made
