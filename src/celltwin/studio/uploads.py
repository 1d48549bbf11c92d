"""What comes in from outside: names that lead nowhere else, sizes that do not fill the disk, and bad files."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq

from celltwin.data import importers
from celltwin.data.importers import Examined
from celltwin.data.sheets import OR_TELL
from celltwin.errors import CelltwinError

MEGABYTE = 1 << 20
UPLOADS_KEPT = 5  # times the largest upload is what one session may hold on disk
MOST_ROWS = 20_000_000  # of a parquet file, which may be far larger in memory than on disk
LONGEST_NAME = 60  # characters, so that four bytes each still make a file name


def safe_name(name: str) -> str:
    """The last part of a name as a file name of plain characters, whatever path, dots or signs the name holds."""
    last = re.split(r"[/\\]", name)[-1]
    plain = re.sub(r"[^\w.+() -]", "_", last).strip(" .")
    stem, suffix = Path(plain).stem, Path(plain).suffix[:12]
    return (stem[: LONGEST_NAME - len(suffix)] or "upload") + suffix


def examine(path: Path, current_sign: str | None = None, ambient_degC: float | None = None) -> Examined:
    """A log that somebody gave us. Raises CelltwinError for every file that cannot be read, whatever is in it."""
    try:
        if path.suffix.lower() == ".parquet" and (rows := pq.read_metadata(path).num_rows) > MOST_ROWS:
            raise CelltwinError(
                f"{path.name} is too long", got=f"{rows:,} rows", expected=f"at most {MOST_ROWS:,}", fix="cut it up"
            )
        return importers.examine(path, current_sign=current_sign, ambient_degC=ambient_degC)
    except CelltwinError:
        raise
    except Exception as error:  # a damaged file may upset any library that reads it
        raise unreadable(path.name, error) from error


def unreadable(name: str, error: Exception) -> CelltwinError:
    """An unexpected error of a file as one that its owner can put right."""
    first = (str(error).splitlines() or [""])[0][:200]
    return CelltwinError(
        f"{name} could not be read",
        got=f"{type(error).__name__}: {first}",
        expected="a whole file of a kind that celltwin knows",
        fix="export it again, as csv or parquet",
    )


# What the command line calls an option is a field on the page.
_FIELDS = {
    OR_TELL: "",
    "give --initial-soc": "set the SOC at the start of this log, in the tab Log",
    "leave out --current-sign discharge": "set the positive current of this log to 'as found' or 'charge'",
    importers.SAY_DISCHARGE: "set the positive current of this log to 'discharge'",
    "describe the cell and the records' initial_soc in a dataset.toml": (
        "enter the cell's capacity and the SOC at the start of this log, in the tab Log"
    ),
    "correct voltage_limits_volt in dataset.toml": "correct the voltage limits",
    "correct reference_capacity_ah in dataset.toml": "correct the reference capacity",
    "correct nominal_capacity_ah in dataset.toml": "correct the nominal capacity",
    "name some in [split] train of dataset.toml": "give at least one log to training",
    "remove the copy from the dataset's files": "give only one of the two a use",
}


def in_words_of_the_page(error: CelltwinError) -> list[tuple[str, str]]:
    """The parts of an error by name, `what` first, with fixes that the page offers."""
    fix = error.fix
    for option, field in _FIELDS.items():
        fix = fix and fix.replace(option, field)
    parts = [("what", error.what), ("got", error.got), ("expected", error.expected), ("fix", fix)]
    return [(name, str(value)) for name, value in parts if value is not None]
