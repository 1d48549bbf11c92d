"""What one browser tab works on: its logs, its cell, a dataset, a twin, and what the twin says of a record."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from celltwin import twin
from celltwin.data import inspection
from celltwin.data.datasets import CellTable, Dataset, DatasetFile, RecordsTable, SplitTable
from celltwin.data.importers import Examined
from celltwin.data.record import Cell, PackRecord, Record
from celltwin.data.splits import Split
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
from celltwin.physics.thevenin import Thevenin
from celltwin.studio import uploads
from celltwin.studio.trainer import Training
from celltwin.studio.whatif import Answer
from celltwin.twin import Twin

SIDES = ("train", "validate", "test")
SIGNS = (None, "charge", "discharge")
NAN = float("nan")


@dataclass
class Log:
    """One log that was dropped, and how its owner says to read it."""

    number: int
    path: Path
    sign: str | None = None  # what positive current does; None: as found
    initial_soc: float = NAN  # fraction at the first sample
    ambient_degC: float | None = None
    use: str = ""  # a side of the split; empty: none
    examined: Examined | None = None
    summary: inspection.Summary | None = None
    error: CelltwinError | None = None

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    def read(self) -> Log:
        """The log read anew, as it now says to; what is wrong with it is in `error`."""
        self.examined = self.summary = self.error = None
        try:
            self.examined = uploads.examine(self.path, self.sign, self.ambient_degC)
            self.summary = inspection.summarise(self.examined.record)
        except CelltwinError as error:
            self.examined, self.error = None, error
        return self


class Session:
    """The work of one browser tab, and the temporary folder that holds its files until it ends."""

    def __init__(self, root: Path, limit: int, dataset: Dataset | None = None, one: Twin | None = None) -> None:
        """`root` holds the folders of all sessions, `limit` is the largest upload in bytes."""
        self._temporary = tempfile.TemporaryDirectory(prefix="session-", dir=root, ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.limit = limit
        self.dataset = dataset
        self.twin = one
        self.cell: Cell | None = None
        self.logs: dict[int, Log] = {}
        self.training: Training | None = None
        self.row: protocol.Row | None = None  # what the twin last said of a record
        self.answer: Answer | None = None  # of the last what-if
        self.closed = False
        self._numbers = itertools.count(1)  # of logs
        self._files = itertools.count(1)  # of uploads

    def close(self) -> None:
        """Stop what runs and remove all files."""
        self.closed = True
        if self.training is not None:
            self.training.stop()
            self.training.wait(30.0)
        self._temporary.cleanup()

    # --- files ---------------------------------------------------------------------------------------------------

    def place(self, name: str, size: int) -> Path:
        """A path for an upload of that name and size (bytes), in a folder of its own.

        Raises CelltwinError where it is larger than an upload may be, or the session would hold too much.
        """
        if size > self.limit:
            raise too_large(name, self.limit, size)
        held = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        if held + size > uploads.UPLOADS_KEPT * self.limit:
            raise CelltwinError(
                f"there is no room for {uploads.safe_name(name)}",
                got=f"{held / uploads.MEGABYTE:.0f} MB of files in this session",
                expected=f"at most {uploads.UPLOADS_KEPT * self.limit / uploads.MEGABYTE:.0f} MB",
                fix="remove a log, or start the studio with a larger --upload-limit",
            )
        folder = self.folder / f"{next(self._files):04d}"
        folder.mkdir()
        return folder / uploads.safe_name(name)

    def add(self, path: Path) -> Log:
        """Read a log that lies at `path`; where it cannot be read, its `error` says why."""
        log = Log(next(self._numbers), path).read()
        self.logs[log.number] = log
        return log

    def remove(self, log: Log) -> None:
        """Forget a log, and remove its file where it was uploaded."""
        self.logs.pop(log.number, None)
        if log.path.is_relative_to(self.folder):
            log.path.unlink(missing_ok=True)

    def load_twin(self, path: str | Path) -> Twin:
        """Take a twin by file or pretrained name. Raises CelltwinError for a file that is none."""
        try:
            self.twin = twin.load(path)
        except CelltwinError:
            raise
        except Exception as error:  # a damaged file may upset any library that reads it
            raise uploads.unreadable(Path(path).name, error) from error
        return self.twin

    # --- records -------------------------------------------------------------------------------------------------

    def record_of(self, log: Log) -> Record:
        """A log's record with the cell and the state of charge that were entered, as far as they were."""
        if log.examined is None:
            raise log.error or CelltwinError(f"{log.name} has not been read")
        if isinstance(log.examined.record, PackRecord):
            return log.examined.record
        return replace(log.examined.record, cell=self.cell, initial_soc=log.initial_soc)

    def records(self) -> dict[str, Record]:
        """All that a twin may be held against, by a name for it: logs first, then the dataset's, test records first."""
        found: dict[str, Record] = {}
        for log in self.logs.values():
            if log.examined is not None:
                found[f"log {log.number}: {log.name}"] = self.record_of(log)
        if self.dataset is not None:
            split = self.dataset.split()
            for side in reversed(SIDES):
                found |= {f"{self.dataset.name} {side}: {r.label}": r for r in getattr(split, side)}
        return found

    def study(self, source: str) -> tuple[Dataset, Split]:
        """What to train and test on: "dataset", or "logs" as they are dealt out.

        Raises CelltwinError where something needed is missing, and says what.
        """
        if source == "dataset":
            if self.dataset is None:
                raise CelltwinError("there is no dataset", fix="load the demo, or start with: celltwin studio DATASET")
            return self.dataset, self.dataset.split()
        used = {side: [log for log in self.logs.values() if log.use == side] for side in SIDES}
        for side in ("train", "test"):
            if not used[side]:
                raise CelltwinError(
                    f"there is no log to {side} with",
                    got=f"{len(self.logs)} logs, none of them for '{side}'",
                    expected="at least one to train and one to test with",
                    fix="choose what each log is for, in the tab Log",
                )
        if self.cell is None:
            raise CelltwinError("the cell is not described", fix="enter its capacity and limits, in the tab Log")
        for log in (log for logs in used.values() for log in logs):
            if np.isnan(log.initial_soc):
                raise CelltwinError(
                    f"the state of charge at the start of '{log.name}' is unknown", fix="enter it, in the tab Log"
                )
            if log.examined is not None and isinstance(log.examined.record, PackRecord):
                raise CelltwinError(f"'{log.name}' is the log of a pack", expected="logs of one cell")
        sides = {side: tuple(self.record_of(log) for log in logs) for side, logs in used.items()}
        split = Split(**sides)
        return dataset_of(self.cell, split), split


def too_large(name: str, limit: int, size: int | None = None) -> CelltwinError:
    """A file that is refused for its size in bytes."""
    return CelltwinError(
        f"{uploads.safe_name(name)} is too large",
        got="a larger file" if size is None else f"{size / uploads.MEGABYTE:.0f} MB",
        expected=f"at most {limit / uploads.MEGABYTE:.0f} MB",
        fix="start the studio with a larger --upload-limit, or save the log as parquet",
    )


def dataset_of(cell: Cell, split: Split) -> Dataset:
    """A dataset of logs that are dealt out already."""
    table = CellTable(name=cell.name, reference_capacity_ah=cell.reference_capacity_ah, voltage_limits_volt=(0.0, 1.0))
    about = DatasetFile(
        cell=table.model_copy(update={"voltage_limits_volt": cell.voltage_limits_volt}),
        records=RecordsTable(files="uploaded"),
        split=SplitTable(),
    )
    return Dataset(cell.name, cell, split.train + split.validate + split.test, about)


# --- what a twin says ------------------------------------------------------------------------------------------------


def judged(one: Twin, record: Record) -> protocol.Row:
    """A twin run over a record, with its figures where the truth is known.

    An estimator needs no state of charge to run; without one there is nothing to score it against.
    """
    if isinstance(record, PackRecord):
        raise CelltwinError(
            f"'{record.name}' is the log of a pack", expected="the log of one cell", fix="see it in the tab View, Pack"
        )
    known = one.with_facts(record)
    if one.task == "soc" and np.isnan(known.initial_soc):
        output = one.estimate(known)
        inside = one.in_domain(known, output.soc)
        facts = {"cycle": known.name, "cell": known.group, "ambient_degC": known.ambient_degC}
        outside = float(np.mean(~inside))
        return facts | {"out_of_domain": outside, "record": known, "output": output, "in_domain": inside}
    return protocol.evaluate(one, [record])[0]


def result_columns(row: protocol.Row) -> Mapping[str, np.ndarray]:
    """What a twin said, by the names that `celltwin simulate` and `estimate` write."""
    output, inside = row["output"], row["in_domain"]
    if hasattr(output, "voltage"):
        return protocol.columns(row)
    return {"soc": np.asarray(output.soc), "soc_std": np.asarray(output.std), "in_domain": inside}


FIGURES = {
    "voltage": {
        "RMSE": ("rmse", "mV"),
        "mean error": ("mae", "mV"),
        "99 % within": ("p99", "mV"),
        "worst": ("max", "mV"),
    },
    "soc": {
        "MAE": ("mae", "points"),
        "RMSE": ("rmse", "points"),
        "worst": ("max", "points"),
        "after 100 s": ("max_settled", "points"),
        "in 95 % band": ("coverage", "%"),
    },
}


def figures_of(row: protocol.Row, task: str) -> list[tuple[str, str]]:
    """Figures of a row as name and text; those that are not known are left out."""
    found = []
    for name, (key, unit) in FIGURES[task].items():
        value = row.get(key, NAN)
        if not np.isnan(value):
            value, digits = (100.0 * value, 0) if unit == "%" else (value, 1 if unit == "mV" else 2)
            found.append((name, f"{value:.{digits}f} {unit}"))
    return [*found, ("outside domain", f"{100 * row['out_of_domain']:.1f} %")]


@dataclass(frozen=True)
class Curves:
    """What a voltage model holds of the cell, [temperatures, soc]."""

    soc: np.ndarray
    temperature: np.ndarray  # degC
    ocv: np.ndarray  # V
    at_once: np.ndarray  # ohm, after a second
    later: np.ndarray  # ohm, after a minute


def curves_of(one: Twin, temperatures: Sequence[float] | None = None) -> Curves:
    """A model's curves, probed through its own step, at temperatures of its training domain.

    Raises CelltwinError for an estimator, which has no voltage to be probed for.
    """
    one.refuse_unless("voltage")
    low, high = one.domain.ranges()["temperature"]
    chosen = np.unique(np.round(np.linspace(low, high, 5))) if temperatures is None else np.asarray(temperatures)
    soc = np.linspace(0.02, 1.0, 50)
    probes = [twin.probe(one.model, soc, float(t), one.cell) for t in chosen]
    return Curves(soc, chosen, *(np.stack([probe[i] for probe in probes]) for i in range(3)))


@dataclass(frozen=True)
class Tables:
    """A circuit's parameters by name, each [temperatures, soc] in the unit that the name ends in."""

    soc: np.ndarray
    temperature: np.ndarray  # degC
    values: dict[str, np.ndarray]


def tables_of(one: Twin) -> Tables | None:
    """The tables of the circuit that a twin is, corrects or looks at; None where there is none in it."""
    found = jax.tree.leaves(one.model, is_leaf=lambda node: isinstance(node, Thevenin))
    circuit = next((node for node in found if isinstance(node, Thevenin)), None)
    if circuit is None:
        return None
    soc, temperatures = np.linspace(0.0, 1.0, 51), np.asarray(circuit.temperatures)
    charged, warm = (jnp.asarray(x.ravel(), jnp.float32) for x in np.meshgrid(soc, temperatures))
    shape = (len(temperatures), len(soc))
    resistance, tau, _ = jax.vmap(circuit.parameters_at)(charged, warm)
    columns = {"open-circuit voltage / V": jax.vmap(circuit.ocv)(charged, warm)}
    names = ["R0", *(f"R{pair}" for pair in range(1, circuit.pairs + 1)), "R of charge transfer"]
    for name, values in zip(names, np.asarray(resistance).T, strict=False):
        columns[f"{name} / mΩ"] = 1e3 * values
    for pair, values in enumerate(np.asarray(tau).T, 1):
        columns[f"time constant {pair} / s"] = values
    return Tables(soc, temperatures, {k: np.asarray(v, float).reshape(shape) for k, v in columns.items()})


def card_lines(one: Twin) -> list[tuple[str, Any]]:
    """A twin's card in a few lines of name and text."""
    cell, card, ranges = one.cell, one.card, one.domain.ranges()
    low, high = cell.voltage_limits_volt
    lines = [
        ("model", f"{one.name}: {card.get('title', '')}".rstrip(": ")),
        ("says", {"voltage": "voltage, simulated", "soc": "state of charge, estimated"}[one.task]),
        ("cell", f"{cell.name}, {cell.reference_capacity_ah:g} Ah, {low:g} to {high:g} V"),
        ("trained on", card.get("dataset")),
        ("parameters", f"{card['parameters']:,}" if card.get("parameters") is not None else None),
        (
            "domain",
            f"{ranges['temperature'][0]:.0f} to {ranges['temperature'][1]:.0f} °C, "
            f"{ranges['current'][0]:.1f} to {ranges['current'][1]:.1f} A, "
            f"{100 * ranges['soc'][0]:.0f} to {100 * ranges['soc'][1]:.0f} % SOC",
        ),
        ("licence of the data", card.get("licence")),
    ]
    return [(name, text) for name, text in lines if text]
