"""Files as sheets: headers, units and cells, whatever the container; what they mean is decided elsewhere."""

from __future__ import annotations

import csv
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as pa_csv
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from celltwin.data.columns import REQUIRED, Told, in_unit_of, is_unit_row, refuse_missing, roles_in
from celltwin.errors import CelltwinError

MAX_HEADER_LINE = 500  # a tester's preamble is shorter
SEPARATORS = ("\t", ";", ",", "|")
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7-Zip"}
_EXAMPLES = {"time": "Time (s)", "voltage": "Voltage (V)", "current": "Current (A)"}
OR_TELL = ", or tell which it is with --column ROLE=HEADER ([records.columns] in a dataset.toml)"


@dataclass(frozen=True)
class Sheet:
    """Headers, the row of units below them (may be empty) and the cells of any columns by their index."""

    headers: list[str]
    cells: Callable[[list[int]], list[pa.Array]]
    units: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def unreadable(path: Path, what: str, got: object, fix: str) -> CelltwinError:
    return CelltwinError(f"{path.name}: {what}", got=got, expected="a log of time, voltage and current", fix=fix)


def encoding_of(head: bytes) -> str:
    """The encoding of a text by its first bytes."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        head[: max(1, len(head) - 3)].decode("utf-8")  # its last character may be cut
    except UnicodeDecodeError as error:
        return "utf-8-sig" if error.end >= len(head) - 6 else "latin-1"
    return "utf-8-sig"


# --- text -----------------------------------------------------------------------------------------


def decode(path: Path) -> str:
    """The text of a file, whatever its encoding; refuses binary files."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace").removeprefix("\ufeff")
    head = data[:8192]
    packed = next((by for magic, by in PACKED.items() if head.startswith(magic)), None)
    if packed:
        raise unreadable(path, f"is packed by {packed}", path.suffix, "unpack it, and name the log that was in it")
    if sum(byte < 9 or 13 < byte < 32 for byte in head) > 0.01 * len(head):
        raise unreadable(path, "is neither text nor a known binary format", f"{head[:8]!r}...", "export it as csv")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def split(line: str, separator: str) -> list[str]:
    """Cells of one line; a blank as separator stands for any run of blanks."""
    if separator == " ":
        return line.split()
    return [cell.strip() for cell in next(csv.reader(StringIO(line), delimiter=separator), [])]


def find_header(lines: list[str], told: Told = None) -> tuple[int, str, set[str]]:
    """Line and separator of the header, and the roles in it: the first line with time, voltage and current,
    else the best.
    """
    best: tuple[int, str, set[str]] = (0, ",", set())
    for number, line in enumerate(lines):
        if not re.search(r"[^\W\d]", line):
            continue
        for separator in (*SEPARATORS, " "):
            if separator not in line:
                continue
            roles = roles_in(split(line, separator), told)
            if roles.issuperset(REQUIRED):
                return number, separator, roles
            if len(roles) > len(best[2]):
                best = number, separator, roles
    return best


def read_text(path: Path, told: Told = None, headers: list[str] | None = None) -> Sheet:
    """Any delimited text whose header may follow a preamble. With `headers`, the file has none of its own."""
    text = decode(path).replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n", MAX_HEADER_LINE)[:MAX_HEADER_LINE]
    if headers is not None:
        return _body(path, text, ",", headers, [], [])
    number, separator, _ = find_header(lines, told)
    names = split(lines[number], separator)
    _require(path, names, told)
    rest = text.split("\n", number + 1)[number + 1 :]
    body = rest[0] if rest else ""
    units = split(body.partition("\n")[0], separator)
    if is_unit_row(units):
        return _body(path, body.partition("\n")[2], separator, names, units, [])
    return _body(path, body, separator, names, [], [])


def _require(path: Path, names: list[str], told: Told) -> None:
    roles = roles_in(names, told)
    missing = [role for role in REQUIRED if role not in roles]
    if len(missing) == len(REQUIRED):
        raise unreadable(
            path,
            "has no line of column names that is understood",
            f"'{', '.join(name for name in names if name)[:200]}' as the likeliest",
            f"name the columns, for example {', '.join(_EXAMPLES.values())}{OR_TELL}",
        )
    if missing:
        refuse_missing(names, {role: wanted for role, wanted in (told or {}).items() if role in missing})
        rivals = in_unit_of(missing[0], names) if missing[0] != "time" else []
        raise CelltwinError(
            f"{path.name}: no {' and no '.join(missing)} column",
            got=", ".join(name for name in names if name)[:200],
            expected="columns of time, voltage and current",
            fix=f"tell which of {', '.join(map(repr, rivals))} it is: --column {missing[0]}='{rivals[0]}'"
            if len(rivals) > 1
            else f"add or rename a column, for example '{_EXAMPLES[missing[0]]}'{OR_TELL}",
        )


def _body(path: Path, body: str, separator: str, headers: list[str], units: list[str], notes: list[str]) -> Sheet:
    if separator == " ":
        body, separator = re.sub(r"[ \t]+", "\t", re.sub(r"(?m)^[ \t]+|[ \t]+$", "", body)), "\t"
    sample = [split(line, separator) for line in body.split("\n", 50)[:50] if line.strip()]
    if not sample:
        raise unreadable(path, "has a header and no data", "0 rows", "export the measured rows as well")
    width = Counter(map(len, sample)).most_common(1)[0][0]
    if any(cell for row in sample if len(row) == width for cell in row[len(headers) :]):
        raise unreadable(
            path,
            "has more cells in a row than columns",
            f"{width} cells, {len(headers)} columns",
            "a decimal comma needs another separator, such as ';'",
        )
    bad: list[str] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        bad.append(row.text or "")
        return "skip"

    def cells(wanted: list[int]) -> list[pa.Array]:
        if wanted and max(wanted) >= width:
            raise unreadable(
                path,
                "has rows that are too short",
                f"{width} cells, {len(headers)} columns",
                "export the file again",
            )
        names = [str(index) for index in range(width)]
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(body.encode()),
                read_options=pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=1 << 24),
                parse_options=pa_csv.ParseOptions(delimiter=separator, invalid_row_handler=skip),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=[str(index) for index in wanted],
                ),
            )
        except pa.ArrowInvalid as error:
            raise unreadable(path, "cannot be read as text", str(error)[:200], "export the file again") from error
        if len(bad) > len(table):
            raise unreadable(
                path,
                "has rows of many widths",
                f"{len(bad)} of {len(bad) + len(table)} rows do not hold {width} cells",
                "export the file again",
            )
        if bad:
            notes.append(f"skipped {count(len(bad), 'line')} that did not hold {width} cells, first '{bad[0][:60]}'")
        return [column.combine_chunks() for column in table.columns]

    return Sheet(headers, cells, units, notes)


def count(n: int | np.integer, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


# --- binary ---------------------------------------------------------------------------------------


def read_parquet(path: Path, told: Told = None) -> Sheet:
    """A flat Parquet table."""
    try:
        file = pq.ParquetFile(path, memory_map=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, "is not a whole Parquet file", str(error)[:200], "copy or export it again") from error
    with file:
        headers = file.schema_arrow.names
        _require(path, headers, told)
        try:
            table = file.read()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise unreadable(path, "is damaged", str(error)[:200], "copy or export it again") from error
    return _sheet_of(table, headers)


def read_frame(frame: Any, name: str, told: Told = None) -> Sheet:
    """A table in memory that Arrow understands: of pandas, polars, Arrow itself."""
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False) if _is_pandas(frame) else pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise unreadable(
            Path(name), "is no table", f"{type(frame).__name__}: {str(error)[:200]}", "give a DataFrame or Arrow table"
        ) from error
    headers = [str(header) for header in table.column_names]
    _require(Path(name), headers, told)
    return _sheet_of(table, headers)


def _sheet_of(table: pa.Table, headers: list[str]) -> Sheet:
    return Sheet(headers, lambda wanted: [_plain_column(table.column(index)) for index in wanted])


def _is_pandas(frame: Any) -> bool:
    return type(frame).__module__.partition(".")[0] == "pandas"


def _plain_column(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return (
        array.cast(pa.string())
        if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type)
        else array
    )


def read_matlab(path: Path, told: Told = None) -> Sheet:
    """A MATLAB file up to version 7: vectors of one length, in a struct or at the top level."""
    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=False)
    except NotImplementedError as error:
        raise unreadable(path, "is a MATLAB 7.3 file", "HDF5", "save it with save(..., '-v7')") from error
    except (
        MatReadError,
        ValueError,
        TypeError,
        EOFError,
        OSError,
        IndexError,
        KeyError,
        zlib.error,
    ) as error:
        raise unreadable(path, "is not a whole MATLAB file", str(error)[:200], "copy or save it again") from error
    structs = [vars(value) for value in content.values() if hasattr(value, "_fieldnames")]
    for candidate in [*structs, content]:
        vectors = {name: np.atleast_1d(value) for name, value in candidate.items() if not name.startswith("_")}
        if not roles_in(vectors, told).issuperset(REQUIRED):
            continue
        length = Counter(len(vector) for vector in vectors.values() if vector.ndim == 1).most_common(1)[0][0]
        vectors = {name: vector for name, vector in vectors.items() if vector.shape == (length,)}
        _require(path, list(vectors), told)
        return _of_arrays(vectors)
    names = [name for candidate in structs or [content] for name in candidate if not name.startswith("_")]
    _require(path, names, told)
    raise unreadable(path, "holds no log", ", ".join(names), "save vectors Time, Voltage and Current in one struct")


def _of_arrays(vectors: dict[str, np.ndarray]) -> Sheet:
    arrays = list(vectors.values())
    return Sheet(list(vectors), lambda wanted: [_arrow(arrays[index]) for index in wanted])


def _arrow(vector: np.ndarray) -> pa.Array:
    return pa.array(vector.astype(str) if vector.dtype == object else vector.astype(vector.dtype.newbyteorder("=")))


def read_cycler(path: Path, told: Told = None) -> Sheet:
    """A native cycler file (Neware, BioLogic, BaSyTec, Landt, Novonix) through the optional package
    batterydf.
    """
    try:
        import bdf  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise unreadable(
            path,
            "is not a format read here, and the cycler formats are not installed",
            path.suffix,
            "pip install 'celltwin[cyclers]'",
        ) from error
    with warnings.catch_warnings(), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            frame = bdf.read(path, validate=False)
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
            raise unreadable(
                path,
                "is in no format known here or to batterydf",
                str(error)[:200],
                "export it as csv with the units in the header",
            ) from error
    headers = [str(name) for name in frame.columns]
    _require(path, headers, told)
    return Sheet(headers, lambda wanted: [pa.array(frame.iloc[:, index].to_numpy()) for index in wanted])
