"""Public datasets by name: downloaded once, checked, and turned into a folder with a dataset.toml.

`fetch` asks the archive that the authors published: Mendeley Data for the LG and the Panasonic cell, Zenodo for
the Nissan Leaf cell. What the archives looked like when this was written is taken from their documentation and
from others' scripts that read them; not verified against the live servers are: the addresses, the folder names
around the files, and the names of the Panasonic C/20 and 1C files. So a file is known by its own name, wherever
it lies and however often it is zipped; a file that does not import is left out and listed in LEFT_OUT.txt.
Mendeley Data is known to refuse scripts at times (HTTP 403): download the archive in a browser then and put it
where the error says.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from celltwin.data.importers import load
from celltwin.data.record import PackRecord, Record
from celltwin.errors import CelltwinError

__all__ = ["NAMES", "fetch", "resample_mean"]

_TIMEOUT_S = 60.0
_MAX_NESTING = 3  # archives within archives


def fetch(name: str, *, cache: str | Path | None = None, base_url: str | None = None, progress: bool = True) -> Path:
    """Folder of a public dataset, with its dataset.toml; downloaded and converted on first use, offline after.

    `cache` is by default $CELLTWIN_CACHE, else the user's cache folder. `base_url` is a mirror that holds
    <name>.zip. The archive's SHA-256 is kept in checksums.json of the cache: a later download that differs is
    refused. Nothing half-made is left behind by an interruption. Raises CelltwinError for an unknown name, a
    failed or changed download, and an archive that is damaged, unsafe or holds none of the dataset's files.
    """
    source = _source(name)
    root = Path(cache or os.environ.get("CELLTWIN_CACHE") or pooch.os_cache("celltwin"))
    folder = root / name
    if _complete(folder):
        return folder
    archive = root / "downloads" / f"{name}.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    checksums = root / "checksums.json"
    if archive.is_file():
        _refuse_other(archive, name, checksums)
    else:
        url = source.url if base_url is None else f"{base_url.rstrip('/')}/{name}.zip"
        _download(url, archive, source, checksums, progress)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as work:
        made = Path(work) / name
        _convert(archive, source, Path(work) / "raw", made)
        _remember(archive, name, checksums)
        _move(made, folder)
    return folder


def resample_mean(record: Record, period_s: float = 1.0) -> Record:
    """Means of voltage, current and temperature over bins [k, k + 1) * `period_s`, at the middle of each bin.

    Bins count from time 0 and are left out where nothing was measured; NaN samples do not count. The Ah
    counter is the last of each bin. A bin's mean current holds over the bin, which ends half a period later.
    """
    bins, first, count = np.unique(np.floor(record.time / period_s), return_index=True, return_counts=True)
    if len(bins) < 2:
        raise CelltwinError(
            f"record '{record.name}' is too short to resample",
            got=f"{record.time[-1] - record.time[0]:g} s",
            expected=f"at least two periods of {period_s:g} s",
        )

    def mean(values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values)
        sums, counts = (np.add.reduceat(v, first) for v in (np.where(known, values, 0.0), known.astype(float)))
        return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)

    counter = record.net_capacity
    return replace(
        record,
        time=(bins + 0.5) * period_s,
        voltage=mean(record.voltage),
        current=mean(record.current),
        temperature=mean(record.temperature),
        net_capacity=None if counter is None else counter[first + count - 1],
    )


# The datasets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """Where a dataset is, which of its files are wanted, and how it is described."""

    name: str
    url: str
    page: str  # where a person can download it
    place: Callable[[str], str | None]  # file name in the archive -> <kind>/<ambient>/<test>; None: not wanted
    kind: str  # of the records that the dataset.toml names
    prepare: Callable[[Record], Record]  # what is done to these; others stay as the tester logged them
    toml: str
    flawed: frozenset[str] = frozenset()  # <ambient>/<test>, left out


def _ambient(signed: str) -> str:
    return signed.replace("-", "n") + "degC"


def _place_lg(path: str) -> str | None:
    found = re.search(r"(?:^|/)(-?n?\d+)degC/(?:[^/]+/)*\d+_(\w+)\.csv$", path)
    if found is None:
        return None
    ambient, test = _ambient(found[1]), found[2]
    if re.fullmatch(r"Mixed\d|UDDS|LA92|US06|HWFET", test):
        return f"drive_1hz/{ambient}/{test}"
    return f"native/{ambient}/{test}" if test in {"C20DisCh", "Cap_1C", "Dis_0p5C", "Dis_2C", "HPPC"} else None


def _place_panasonic(path: str) -> str | None:
    if "trise" in path.lower():
        return None
    found = re.search(r"(\d\d-\d\d-\d\d)_\d\d\.\d\d (.*)\.mat$", PurePosixPath(path).name)
    where = re.search(r"(n?\d+)d(?:eg)?C", found[2]) if found else None
    if found is None or where is None:
        return None
    ambient = _ambient(where[1])
    cycle = re.search(r"degC_(?:Cycle_([1-4])|(US06))_Pan18650PF$", found[2])
    if cycle:
        return f"drive_1hz/{ambient}/{f'Cycle{cycle[1]}' if cycle[1] else cycle[2]}"
    test = re.search(r"HPPC|C20|1C", found[2])
    return f"native/{ambient}/{test[0]}_{found[1]}" if test else None


def _place_leaf(path: str) -> str | None:
    name = PurePosixPath(path).name.lower()
    if found := re.search(r"low-current-hppc-(\d+)c(?:-\d)?\.csv$", name):
        return f"native/{found[1]}degC/HPPC"
    if found := re.fullmatch(r"(?:cell-)?(?:(\d)c-)?discharge-bitrode-(?:(\d)c|data)\.csv", name):
        return f"discharge/25degC/{found[1] or found[2]}C"
    return None


def _cycle(record: Record) -> Record:
    """The drive cycle at 1 Hz."""
    return resample_mean(_from(record, 0))


def _cycle_without_soak(record: Record) -> Record:
    """The drive cycle at 1 Hz; some files begin with an hour or two of rest logged every 60 s."""
    slow = np.flatnonzero(record.dt > 5.0)
    return resample_mean(_from(record, int(slow[-1]) if len(slow) else 0))


def _from_full(record: Record) -> Record:
    """From the rest after the full charge that comes before the pulses."""
    full = int(np.argmax(record.charge_ah))
    discharging = np.flatnonzero(record.current[full:] < -1.0)
    if len(discharging) == 0:
        return record
    charging = np.flatnonzero(record.current[: full + discharging[0]] > 0.2)
    return _from(record, int(charging[-1]) + 1) if len(charging) else record


def _from(record: Record, start: int) -> Record:
    """The rest of the record from sample `start`; time and Ah counter from 0."""
    part = record.between(start)
    counter = None if part.net_capacity is None else part.net_capacity - part.net_capacity[0]
    return replace(part, time=part.time - part.time[0], net_capacity=counter)


_LG = _Source(
    name="lg_18650hg2",
    url="https://data.mendeley.com/public-api/zip/cp3473x7xv/download/3",
    page="https://data.mendeley.com/datasets/cp3473x7xv/3",
    place=_place_lg,
    kind="drive_1hz",
    prepare=_cycle,
    # Rest only; logger frozen; aborted and run at 23 degC.
    flawed=frozenset({"25degC/HWFET", "n10degC/Mixed4", *(f"40degC/Mixed{k}" for k in range(4, 9))}),
    toml="""\
# One cell and its drive cycles, 1 Hz. Columns: Battery Data Format machine names, current positive = charge.
[cell]
name = "LG 18650HG2"
chemistry = "NMC/graphite-SiO"
nominal_capacity_ah = 3.0
reference_capacity_ah = 2.78      # C/20 discharge at 25 degC; the one denominator of SOC
voltage_limits_volt = [2.5, 4.2]

[records]
files = "drive_1hz/*/*.parquet"   # folder = ambient temperature (n10degC = -10 degC), file = drive cycle
initial_soc = 1.0                 # net_capacity_ah counts from full charge

[split]                           # by whole drive cycle, never by window
train = ["Mixed*"]
validate = ["UDDS"]
test = ["LA92"]

[source]
licence = "CC-BY-4.0"
citation = "Kollmeyer, Vidal, Naguib, Skells (2020), LG 18650HG2 Li-ion Battery Data, Mendeley Data V3, \
doi:10.17632/cp3473x7xv.3"
""",
)

_PANASONIC = _Source(
    name="panasonic_18650pf",
    url="https://data.mendeley.com/public-api/zip/wykht8y7tg/download/1",
    page="https://data.mendeley.com/datasets/wykht8y7tg/1",
    place=_place_panasonic,
    kind="drive_1hz",
    prepare=_cycle_without_soak,
    toml="""\
[cell]
name = "Panasonic NCR18650PF"
chemistry = "NCA/graphite"
nominal_capacity_ah = 2.9
reference_capacity_ah = 2.9       # faded over the campaign: 1C 2.80 Ah at its start, 2.43 Ah at its end
voltage_limits_volt = [2.5, 4.2]

[records]
files = "drive_1hz/*/*.parquet"   # folder = ambient temperature (n10degC = -10 degC), file = drive cycle
initial_soc = 1.0

[split]
train = ["Cycle1", "Cycle2", "Cycle3"]
validate = ["Cycle4"]
test = ["US06"]

[source]
licence = "CC-BY-4.0"
citation = "Kollmeyer (2018), Panasonic 18650PF Li-ion Battery Data, Mendeley Data V1, doi:10.17632/wykht8y7tg.1"
""",
)

_LEAF = _Source(
    name="nissan_leaf",
    url="https://zenodo.org/api/records/2580327/files-archive",
    page="https://zenodo.org/records/2580327",
    place=_place_leaf,
    kind="native",
    prepare=_from_full,
    toml="""\
# Pulse tests of one pouch cell at three temperatures, at the tester's own rate; no temperature was logged.
[cell]
name = "Nissan Leaf 2013 (AESC)"
chemistry = "LMO-LNO/graphite"
nominal_capacity_ah = 33.1
reference_capacity_ah = 30.5      # from full charge to 3.0 V in the pulse test at 25 degC
voltage_limits_volt = [3.0, 4.2]

[records]
files = "native/*/*.parquet"      # cut at the full charge
initial_soc = 1.0

[split]
train = ["25degC/HPPC"]
validate = ["40degC/HPPC"]
test = ["10degC/HPPC"]

[source]
licence = "MIT"
citation = "Wiggins, Allu, Wang (2019), Battery cell data from a 2013 Nissan Leaf, ORNL, doi:10.5281/zenodo.2580327"
""",
)

_SOURCES = {source.name: source for source in (_LG, _PANASONIC, _LEAF)}
NAMES: tuple[str, ...] = tuple(_SOURCES)


def _source(name: str) -> _Source:
    if name not in _SOURCES:
        near = difflib.get_close_matches(name, NAMES, 1)
        raise CelltwinError(
            f"there is no public dataset '{name}'",
            got=name,
            expected=f"one of {', '.join(NAMES)}",
            fix=f"did you mean '{near[0]}'?" if near else None,
        )
    return _SOURCES[name]


# Download and check ----------------------------------------------------------------------------------------


class _Bar:
    """Progress in the form that pooch drives: `total`, update, reset, close."""

    def __init__(self, label: str):
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task = self.progress.add_task(label)
        self.progress.start()

    @property
    def total(self) -> float | None:
        return self.progress.tasks[0].total

    @total.setter
    def total(self, bytes_: int) -> None:
        self.progress.update(self.task, total=bytes_ or None)  # 0: the server does not say

    def update(self, bytes_: int) -> None:
        self.progress.update(self.task, advance=bytes_)

    def reset(self) -> None:
        self.progress.update(self.task, completed=0)

    def close(self) -> None:
        self.progress.stop()


def _download(url: str, archive: Path, source: _Source, checksums: Path, progress: bool) -> None:
    """Download to `archive`, which appears only when it is whole and no other than at an earlier download."""
    by_hand = f"try again later, or download the whole dataset from {source.page} and save it as {archive}"
    bar = _Bar(source.name) if progress else None
    with tempfile.TemporaryDirectory(prefix=".download-", dir=archive.parent) as work:
        partial = Path(work) / archive.name
        downloader = pooch.HTTPDownloader(progressbar=bar or False, timeout=_TIMEOUT_S)  # pyright: ignore[reportArgumentType]
        try:
            downloader(url, str(partial), None)
        except requests.RequestException as error:
            if error.response is not None:
                error.response.close()
            raise CelltwinError(
                f"the download of '{source.name}' failed",
                got=f"{error} from {url}",
                expected="a zip archive",
                fix=by_hand,
            ) from error
        finally:
            if bar is not None:
                bar.close()
        if not zipfile.is_zipfile(partial):
            with partial.open("rb") as file:
                head = file.read(40)
            raise CelltwinError(
                f"the download of '{source.name}' is no zip archive, or a part of one",
                got=f"{partial.stat().st_size} bytes that begin with {head!r}",
                expected="a whole zip archive",
                fix=by_hand,
            )
        _refuse_other(partial, source.name, checksums)
        partial.replace(archive)


def _refuse_other(archive: Path, name: str, checksums: Path) -> None:
    """Refuse an archive that differs from the one that was first used."""
    first = _known(checksums).get(name)
    got = _sha256(archive)
    if first not in (None, got):
        raise CelltwinError(
            f"the archive of '{name}' is not the one that was used before",
            got=got,
            expected=f"{first}, kept in {checksums}",
            fix=f"fetch again; where its authors changed it, remove '{name}' from {checksums.name}",
        )


def _remember(archive: Path, name: str, checksums: Path) -> None:
    known = _known(checksums) | {name: _sha256(archive)}
    partial = checksums.with_suffix(".partial")
    partial.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    partial.replace(checksums)


def _known(checksums: Path) -> dict[str, str]:
    return json.loads(checksums.read_text(encoding="utf-8")) if checksums.is_file() else {}


def _sha256(path: Path) -> str:
    return f"sha256:{pooch.file_hash(str(path), alg='sha256')}"


def _complete(folder: Path) -> bool:
    return (folder / "dataset.toml").is_file()


def _move(made: Path, folder: Path) -> None:
    """Put the finished dataset in its place in one step; another process may have been first."""
    try:
        made.replace(folder)
    except OSError as error:
        if not _complete(folder):
            raise CelltwinError(
                f"the folder of '{folder.name}' cannot be put in place",
                got=error,
                expected=f"nothing at {folder}",
                fix="move away what is there",
            ) from error


# Unpack and convert ----------------------------------------------------------------------------------------


def _convert(archive: Path, source: _Source, raw: Path, made: Path) -> None:
    """Make the dataset's folder `made` from its archive; `raw` is room for unpacked files."""
    again = f"delete {archive} and fetch again"
    try:
        places = _unpack(archive, source, raw)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted
        raise CelltwinError(
            f"the archive of '{source.name}' is damaged",
            got=error,
            expected="a zip archive that unpacks",
            fix=again,
        ) from error
    left_out = [line for place, path in places.items() if (line := _make(place, path, source, made))]
    if not (made / source.kind).is_dir():
        raise CelltwinError(
            f"the archive of '{source.name}' holds none of its records",
            got=left_out[0] if left_out else f"{len(places)} files known by name, none of them one of these",
            expected=f"the files of {source.page}",
            fix=again,
        )
    if left_out:
        (made / "LEFT_OUT.txt").write_text("\n".join(left_out) + "\n", encoding="utf-8")
    (made / "dataset.toml").write_text(source.toml, encoding="utf-8")


def _unpack(archive: Path, source: _Source, raw: Path) -> dict[str, Path]:
    """Unpack the wanted files to names of our own, and say where in the dataset each belongs."""
    places: dict[str, Path] = {}
    for member, file in _members(archive):
        place = source.place(member)
        if place is None or place.split("/", 1)[1] in source.flawed:
            continue
        while place in places:
            place += "_end"  # the test was repeated at the end of the campaign
        places[place] = raw / place / PurePosixPath(member).name
        places[place].parent.mkdir(parents=True)
        with places[place].open("wb") as target:
            shutil.copyfileobj(file, target)
    return places


def _members(archive: Path | IO[bytes], nesting: int = 0) -> Iterator[tuple[str, IO[bytes]]]:
    """Path and opened file of every member, also of archives within; by path. Refuses paths that lead outside."""
    with zipfile.ZipFile(archive) as opened:
        for info in sorted(opened.infolist(), key=lambda info: info.filename):
            path = info.filename.replace("\\", "/")
            if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in path.split("/"):
                raise CelltwinError(
                    "the archive is unsafe and was not unpacked",
                    got=f"a member '{info.filename}' that leads outside of it",
                    expected="members inside the archive",
                    fix="delete it from the downloads folder of the cache; tell its authors",
                )
            if info.is_dir():
                continue
            with opened.open(info) as file:
                if path.lower().endswith(".zip") and nesting < _MAX_NESTING:
                    with tempfile.TemporaryFile() as inner:
                        shutil.copyfileobj(file, inner)
                        yield from _members(inner, nesting + 1)
                else:
                    yield path, file


def _make(place: str, path: Path, source: _Source, made: Path) -> str | None:
    """Convert one file to made/<place>.parquet; a line that says why if it cannot be used."""
    kind, ambient, test = place.split("/")
    ambient_degC = float(ambient.removesuffix("degC").replace("n", "-"))
    try:
        record = load(path, name=test, ambient_degC=ambient_degC)
        if isinstance(record, PackRecord):
            return f"{place}: {path.name} is the log of a string, not of a cell"
        if kind == source.kind:
            record = source.prepare(record)
    except CelltwinError as error:
        return f"{place}: {error}"
    target = made / f"{place}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    record.save(target)
    return None
