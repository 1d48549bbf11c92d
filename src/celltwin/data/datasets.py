"""Datasets: a folder with a `dataset.toml`, the bundled demo, or a named public dataset.

[cell]                        # facts of the cell; [cells.NAME] overrides them for one of several cells
name = "LG 18650HG2"
nominal_capacity_ah = 3.0
reference_capacity_ah = 2.78  # the one denominator of state of charge
voltage_limits_volt = [2.5, 4.2]

[records]
files = "drive_1hz/*/*.parquet"   # <ambient>/<cycle>, or <cell>/<ambient>/<cycle> where there are [cells.NAME]
initial_soc = 1.0                 # or a table of one number for each cycle
ambient_degC = 25.0               # optional, where the folder does not name it
root = "$CELLTWIN_DATA/tue/nmc"   # optional: where `files` start, else the folder of dataset.toml
current_sign = "discharge"        # optional: what the files log as positive, where they cannot be trusted
columns = { voltage = "Vbat [mV]" }   # optional: headers that are not recognised; a list where files differ

[identification]                  # optional: pulse tests and slow discharges of one cell, on no side of the split
files = "hppc/*/*.parquet"        # folders as above; states of charge are found out

[pack]                            # optional: the records are of a string, with a voltage of each group
topology = "6s"                   # [cell] holds the facts of one group, [identification] may hold logs of one cell
cells_per_group = 2

[split]                           # globs of <cycle>, <ambient>/<cycle> or <cell>/<ambient>/<cycle>;
                                  # optional where nothing is trained
train = ["Mixed*"]
validate = ["UDDS"]
test = ["LA92"]
[splits.cell]                     # further splits by name

[source]
licence = "CC-BY-4.0"
citation = "..."
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from celltwin import settings
from celltwin.data import importers, public
from celltwin.data.record import Cell, PackRecord, Record
from celltwin.data.splits import Split, by_patterns, select
from celltwin.errors import CelltwinError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CellTable(BaseModel):
    """[cell]; facts that celltwin does not use may stand there too"""

    name: str
    reference_capacity_ah: float
    voltage_limits_volt: tuple[float, float]
    nominal_capacity_ah: float | None = None
    chemistry: str = ""


class CellOverride(_Strict):
    """[cells.NAME]: what differs from [cell]"""

    name: str | None = None
    reference_capacity_ah: float | None = None
    voltage_limits_volt: tuple[float, float] | None = None
    nominal_capacity_ah: float | None = None
    chemistry: str | None = None


class RecordsTable(_Strict):
    """[records]"""

    files: str | list[str]
    initial_soc: float | dict[str, float] | Literal["rest"] = 1.0
    ocv_table: str | None = None
    ambient_degC: float | None = None
    root: str | None = None
    current_sign: Literal["charge", "discharge"] | None = None
    columns: dict[str, str | list[str]] = {}


class IdentificationTable(_Strict):
    """[identification]"""

    files: str | list[str]


class PackTable(_Strict):
    """[pack]"""

    topology: str
    cells_per_group: int = Field(default=1, ge=1)


class SplitTable(_Strict):
    """[split] and [splits.NAME]"""

    train: list[str] = []
    validation: list[str] = Field(default=[], alias="validate")
    test: list[str] = []


class SourceTable(BaseModel):
    """[source]; likewise"""

    licence: str = ""
    citation: str = ""


class DatasetFile(_Strict):
    """The whole of a dataset.toml."""

    cell: CellTable
    cells: dict[str, CellOverride] = {}
    records: RecordsTable
    identification: IdentificationTable | None = None
    pack: PackTable | None = None
    split: SplitTable | None = None
    splits: dict[str, SplitTable] = {}
    source: SourceTable = SourceTable()


@dataclass(frozen=True)
class Dataset:
    """Records of one or several cells of one type, and how they are split."""

    name: str
    cell: Cell
    records: tuple[Record, ...]
    description: DatasetFile
    path: Path = Path()  # of its dataset.toml
    where: str = ""  # what loads it again: its registered name, else the absolute path of its dataset.toml

    def patterns(self, split: str | None = None) -> dict[str, list[str]]:
        """Globs of each side of the dataset's own split, or of the further one called so ([splits.NAME])."""
        tables = {None: self.description.split, **self.description.splits}
        if split not in tables:
            raise CelltwinError(
                f"dataset '{self.name}' has no split '{split}'",
                got=split,
                expected=", ".join(sorted(k for k in tables if k)) or "no --split, but the [split] of its dataset.toml",
                fix=f"add [splits.{split}] to its dataset.toml",
            )
        table = tables[split]
        if table is None:
            raise CelltwinError(
                f"dataset '{self.name}' does not say which of its records train, validate and test",
                got=" and ".join(["no [split]", *(f"[splits.{k}]" for k in tables if k)]),
                expected="[split] with lists of globs: train, validate, test",
                fix=f"add [split] to {self.path.name}, or take --split NAME of another, or --cycles",
            )
        return table.model_dump(by_alias=True)

    def split(self, name: str | None = None) -> Split:
        """The records of each side. Raises CelltwinError where a pattern matches none, or a record is on two sides."""
        return by_patterns(self.records, self.patterns(name))

    def select(self, patterns: Sequence[str]) -> tuple[Record, ...]:
        """The records that any of the patterns names. Raises CelltwinError where a pattern matches none."""
        return select(self.records, patterns)


def names() -> list[str]:
    """Registered dataset names."""
    return ["demo", *sorted(public.NAMES)]


def load(where: str | Path) -> Dataset:
    """Load a dataset by registered name, by folder, or by the path of its toml file.

    Raises CelltwinError for an unknown name, a bad dataset.toml, or a record that does not import.
    """
    path = _find(where)
    description = settings.read(path, DatasetFile)
    table = description.records
    root = _root(path, table.root)
    found = _files(path, root, table.files, "records")
    cell = _cell(description, CellOverride())
    cells = {name: _cell(description, override) for name, override in description.cells.items()}
    rested = None if table.ocv_table is None else importers.load_ocv_table(root / table.ocv_table)
    records = tuple(_record(file, description, cell, cells, rested) for file in found)
    registered = str(where) in names() and path != Path(where) / "dataset.toml"
    return Dataset(_name(path), cell, records, description, path, str(where if registered else path.absolute()))


@dataclass(frozen=True)
class Characterisation:
    """The logs of a dataset from which the circuit of its cell may be identified."""

    name: str
    cell: Cell
    records: tuple[Record, ...]
    origin: str  # in words
    source: SourceTable


def characterisation(where: str | Path) -> Characterisation:
    """The logs that a dataset's [identification] names, else its training records; never one it is tested on.

    Raises CelltwinError as `load`, where the logs are of several cells, and where one is on a side of the split.
    """
    path = _find(where)
    description = settings.read(path, DatasetFile)
    if description.identification is None:
        records, origin = load(where).split().train, "training record"
    else:
        root = _root(path, description.records.root)
        found = _files(path, root, description.identification.files, "identification")
        shared = set(found) & set(_files(path, root, description.records.files, "records"))
        if shared:
            raise CelltwinError(
                f"'{min(shared).name}' is both a cycle and an identification log",
                got=f"{len(shared)} files that match [records] and [identification]",
                expected="pulse tests beside the cycles, as those may be tested on",
                fix="correct [identification] files in dataset.toml, or leave it out to use the training records",
            )
        cell = _cell(description, CellOverride())
        cells = {name: _cell(description, override) for name, override in description.cells.items()}
        records, origin = tuple(_read(file, description, cell, cells) for file in found), "identification log"
    if not records:
        raise CelltwinError(
            f"dataset '{_name(path)}' has nothing to identify from",
            got="no training records",
            expected="pulse tests and slow discharges",
            fix="name them in [identification] files of dataset.toml",
        )
    groups = sorted({record.group for record in records})
    if len(groups) > 1:
        raise CelltwinError(
            "a circuit is that of one cell",
            got=f"{origin}s of {', '.join(groups)}",
            expected="logs of one cell",
            fix=f'name those of one in [identification] of dataset.toml: files = "<folder>/{groups[0]}/*/*"',
        )
    cell = next(record.cell for record in records)
    assert cell is not None
    origin = f"{len(records)} {origin}{'s' if len(records) > 1 else ''}"
    return Characterisation(_name(path), cell, records, origin, description.source)


def characterisation_of_pack(dataset: Dataset) -> tuple[Record, ...]:
    """The logs of single cells in the [identification] of a dataset of a string; its cell's facts are left to them.

    Raises CelltwinError where there are none.
    """
    description, table = dataset.description, dataset.description.identification
    if table is None:
        raise CelltwinError(
            f"dataset '{dataset.name}' does not say what its cells are like",
            got="no [identification]",
            expected="pulse tests of one cell",
            fix="name them in [identification] files of its dataset.toml",
        )
    found = _files(dataset.path, _root(dataset.path, description.records.root), table.files, "identification")
    ambients = [importers.ambient_from_path(file) for file in found]
    named = [_ambient_in_name(file) if a != a else a for file, a in zip(found, ambients, strict=True)]
    return tuple(
        importers.load(file, ambient_degC=None if a != a else a, name=file.stem)
        for file, a in zip(found, named, strict=True)
    )


def _ambient_in_name(file: Path) -> float:
    """Ambient in degC that a file's name gives as "-25c" or "_25degC"; NaN if none."""
    match = re.search(r"[-_](n?\d+)(?:c|degc)(?:[-_]|$)", file.stem, re.IGNORECASE)
    return float(match[1].replace("n", "-")) if match else float("nan")


def _name(path: Path) -> str:
    return path.parent.name if path.name == "dataset.toml" else path.stem


def _files(path: Path, root: Path, patterns: str | list[str], table: str) -> list[Path]:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    found = sorted({file for pattern in patterns for file in root.glob(pattern)})
    if not found:
        raise CelltwinError(
            f"dataset '{path.parent.name}' has no {'records' if table == 'records' else 'identification logs'}",
            got=f"no file matches {', '.join(patterns)} under {root}",
            expected="one log for each cycle" if table == "records" else "logs of pulses and slow discharges",
            fix=f"correct [{table}] files (and root) in dataset.toml",
        )
    return found


def _find(where: str | Path) -> Path:
    """Path of the dataset.toml that `where` means."""
    if str(where) == "demo":
        return Path(str(package_files("celltwin.data") / "demo" / "dataset.toml"))
    path = Path(where)
    if path.is_dir():
        path = path / "dataset.toml"
    if path.is_file() and path.suffix == ".toml":
        return path
    if str(where) in public.NAMES:
        return public.fetch(str(where)) / "dataset.toml"
    near = difflib.get_close_matches(str(where), names(), 1)
    raise CelltwinError(
        f"there is no dataset '{where}'",
        got=str(where),
        expected=f"a folder with a dataset.toml, or one of {', '.join(names())}",
        fix=f"did you mean '{near[0]}'?" if near else "write a dataset.toml into the folder of your logs",
    )


def _root(path: Path, root: str | None) -> Path:
    """Where a dataset's paths start. A root that names an environment variable is relative to where we run."""
    if root is None:
        return path.parent
    if "$" not in root:
        return path.parent / root
    expanded = os.path.expandvars(root)
    if "$" in expanded:
        raise CelltwinError(
            f"{path}: root needs an environment variable that is not set",
            got=root,
            fix=f"e.g. export {root.split('/')[0].strip('${}')}=/path/to/the/data",
        )
    return Path(expanded).absolute()


def _cell(description: DatasetFile, override: CellOverride) -> Cell:
    facts = description.cell.model_dump() | override.model_dump(exclude_none=True)
    facts["nominal_capacity_ah"] = facts["nominal_capacity_ah"] or facts["reference_capacity_ah"]
    return Cell(**facts)


def _read(file: Path, description: DatasetFile, cell: Cell, cells: dict[str, Cell]) -> Record:
    """One log with its cell, its ambient temperature and the group it belongs to."""
    table = description.records
    group = next((name for name in (file.parent.parent.name, file.parent.name) if name in cells), "")
    if cells and not group:
        raise CelltwinError(
            f"{file} belongs to none of the cells",
            got=f"folders {file.parent.parent.name}/{file.parent.name}",
            expected=f"one of {', '.join(cells)}, as [cells] of dataset.toml names them",
            fix="put it into the folder of its cell: <cell>/<ambient>/<cycle>",
        )
    ambient = importers.ambient_from_path(file)
    if ambient != ambient and table.ambient_degC is not None:
        ambient = table.ambient_degC
    try:
        record = importers.load(
            file,
            current_sign=table.current_sign,
            columns=table.columns,
            cell=cells.get(group, cell),
            ambient_degC=None if np.isnan(ambient) else ambient,
            name=file.stem,
        )
    except CelltwinError as error:  # files of several folders have one name
        what = error.what.removeprefix(f"{file.name}: ")
        raise CelltwinError(f"{file}: {what}", got=error.got, expected=error.expected, fix=error.fix) from error
    if isinstance(record, PackRecord) and description.pack is None:
        raise CelltwinError(f"{file} is the log of a pack", expected="logs of one cell", fix="leave it out of files")
    return replace(record, group=group)


def _record(
    file: Path,
    description: DatasetFile,
    cell: Cell,
    cells: dict[str, Cell],
    rested: tuple[np.ndarray, np.ndarray] | None,
) -> Record:
    table, record = description.records, _read(file, description, cell, cells)
    assert record.cell is not None
    soc = _initial_soc(record, table, rested)
    # A counter that starts below zero has counted since the cell was at that SOC: the logger came in later.
    # One that starts above zero still holds an earlier charge and says nothing.
    if table.initial_soc != "rest" and record.net_capacity is not None and record.net_capacity[0] < 0:
        soc += record.net_capacity[0] / record.cell.reference_capacity_ah
    return replace(record, initial_soc=soc)


def _initial_soc(record: Record, table: RecordsTable, rested: tuple[np.ndarray, np.ndarray] | None) -> float:
    """What [records] initial_soc says of a record: a fraction."""
    soc = table.initial_soc
    if soc == "rest":
        if rested is None:
            raise CelltwinError(
                'initial_soc = "rest" needs an ocv_table', fix="add [records] ocv_table to dataset.toml"
            )
        assert record.cell is not None
        if abs(record.current[0]) > record.cell.nominal_capacity_ah / 20 or not np.isfinite(record.voltage[0]):
            raise CelltwinError(
                f"cycle '{record.name}' does not start at rest",
                got=f"{record.voltage[0]:.3f} V at {record.current[0]:.2f} A",
                expected='a rested first sample, as initial_soc = "rest" needs',
                fix="give its initial SOC as a number",
            )
        return float(np.interp(record.voltage[0], rested[1], rested[0]))
    if isinstance(soc, dict):
        if record.name not in soc:
            raise CelltwinError(
                f"cycle '{record.name}' has no initial SOC",
                got=", ".join(sorted(soc)),
                expected="one number for each cycle",
                fix=f"add {record.name} to [records.initial_soc]",
            )
        soc = soc[record.name]
    if not 0.0 <= soc <= 1.1:
        raise CelltwinError(
            f"initial SOC of '{record.name}' makes no sense", got=soc, expected="a fraction", fix="correct initial_soc"
        )
    return soc
