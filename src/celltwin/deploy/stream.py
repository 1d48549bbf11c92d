"""A twin that runs along with a cell: one sample in, one answer out, and a state that survives a restart.

    stream = Stream(twin)
    soc, std, valid = stream.push(Sample(time=12.0, voltage=3.71, current=-1.2, temperature=24.8))

The twin's emitted C does the work where there is a compiler (a few microseconds a sample), the compiled JAX step where
there is none (tens of microseconds); the state is the same bytes in both. Steps may be of any length; a sample that
is late, or whose time is not known, is counted and left out; a sensor that says nothing is NaN.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import itertools
import json
import math
import time as clock
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from celltwin import files
from celltwin.data import columns
from celltwin.data.columns import Told
from celltwin.data.record import Record
from celltwin.data.repair import MAX_VOLT
from celltwin.data.sheets import MAX_HEADER_LINE, encoding_of, find_header, split
from celltwin.deploy import c, native
from celltwin.errors import CelltwinError
from celltwin.interface import Estimate, Input, Measurement, Output, Start
from celltwin.twin import Twin

NAN = float("nan")
HOTTEST, LOOKED_AT = 150.0, 10  # degC; samples by which a wrong unit is told from a sensor's fault
POLL = 0.2  # s between looks at a growing file
EXPECTED = "test_time_second, voltage_volt, current_ampere, temperature_t1_celsius, or the like"
COLUMNS = {"voltage": "simulated_voltage_volt", "soc": "soc", "std": "soc_std", "valid": "in_domain"}


class Sample(NamedTuple):
    """What the sensors say at a time; NaN where they say nothing."""

    time: float  # s
    voltage: float  # V
    current: float  # A, positive = charge, held since the sample before
    temperature: float  # degC


class Stream:
    """A twin between two samples."""

    def __init__(self, twin: Twin, initial_soc: float = NAN, compiled: bool | None = None) -> None:
        """`initial_soc`: fraction at the first sample, where it is known; a voltage twin without reads it from the
        first voltage, which must then be at rest. `compiled`: through C (default: where it can be had).

        Raises CelltwinError where C is asked for and cannot be had.
        """
        self.twin, self.initial_soc = twin, initial_soc
        self.outputs = (*(Estimate if twin.task == "soc" else Output)._fields, "valid")
        self.time = NAN  # s, of the last sample
        self.late = self.unclear = 0  # samples left out: not after the last one; without a time
        self._measures = twin.task == "soc"
        if compiled is None:
            program = native.of(twin)
        else:
            program = native.Native(c.emit(twin, name="twin")) if compiled else None
        self._engine: Any = _Traced(twin) if program is None else _Compiled(program)
        self._silent = (*[NAN] * (len(self.outputs) - 1), 0)

    def push(self, sample: Sample) -> tuple[Any, ...] | None:
        """What the twin says, in the order of `outputs`; None for a sample that is left out.

        Until a first voltage is measured it says NaN. Raises CelltwinError where a voltage twin cannot tell where it
        starts.
        """
        time, voltage, current, temperature = sample
        dt = time - self.time
        if not dt > 0.0:
            if math.isfinite(self.time) or not math.isfinite(time):
                self.late, self.unclear = self.late + (dt <= 0.0), self.unclear + (dt != dt)
                return None
            if not math.isfinite(voltage):
                return self._silent
            self._begin(sample)
            dt = 0.0
        elif dt == math.inf:
            self.unclear += 1
            return None
        self.time = time
        if self._measures:
            return self._engine.step(voltage, current, temperature, dt)
        return self._engine.step(current, temperature, dt)

    def _begin(self, sample: Sample) -> None:
        soc = self.initial_soc
        if soc != soc and not self._measures:
            voltage, current, temperature = (np.full(2, value) for value in sample[1:])
            soc = self.twin.rested_soc(Record("the stream", np.arange(2.0), voltage, current, temperature))
        capacity = self.twin.cell.reference_capacity_ah
        self._engine.begin(Start(sample.voltage, sample.current, sample.temperature, soc, capacity))  # pyright: ignore[reportArgumentType]

    # --- restart ---------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write where the stream stands to a small file, atomically."""
        state = base64.b64encode(self._engine.words).decode() if math.isfinite(self.time) else None
        about = {"kind": "celltwin stream", "twin": self._identity, "time": files.plain(self.time), "state": state}
        files.write_json(path, {**about, "late": self.late, "unclear": self.unclear})

    def resume(self, path: str | Path) -> None:
        """Go on from what `save` wrote. Raises CelltwinError for a file of another twin, or a damaged one."""
        about = files.read_json(path)
        try:
            if about["kind"] != "celltwin stream":
                raise KeyError("kind")
            if about["twin"] != self._identity:
                raise CelltwinError(
                    f"{path} is of another twin",
                    got=about["twin"][:12],
                    expected=self._identity[:12],
                    fix="stream the twin that it belongs to, or begin anew with another --snapshot",
                )
            words = None if about["state"] is None else base64.b64decode(about["state"], validate=True)
            late, unclear = int(about["late"]), int(about["unclear"])
            time = NAN if about["time"] is None else float(about["time"])
            if words is not None:
                self._engine.words = words
        except (KeyError, TypeError, ValueError) as error:
            raise CelltwinError(f"{path} is no snapshot of a stream, or damaged", got=error, fix="delete it") from error
        self.late, self.unclear, self.time = late, unclear, time

    @property
    def _identity(self) -> str:
        """Hash of all that decides what the twin says."""
        digest = hashlib.sha256(f"{self.twin.name} {self.twin.cell}".encode())
        for leaf in jax.tree.leaves((self.twin.model, self.twin.domain)):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()


class _Compiled:
    """The emitted C."""

    def __init__(self, program: native.Native) -> None:
        self._native = program
        self._state: Any = self._native.blank()

    def begin(self, start: Start) -> None:
        self._state = self._native.begin(start)

    def step(self, *inputs: float) -> tuple[Any, ...]:
        return self._native.step(self._state, *inputs)

    @property
    def words(self) -> bytes:
        return bytes(self._state)

    @words.setter
    def words(self, words: bytes) -> None:
        if len(words) != self._native.size:
            raise ValueError(f"{len(words)} bytes of state, not {self._native.size}")
        self._state[:] = words


class _Traced:
    """The compiled JAX step; its state as the bytes that C keeps."""

    def __init__(self, twin: Twin) -> None:
        self._parts = (twin.runner, twin.domain)
        self._kind: Any = Measurement if twin.task == "soc" else Input
        shape = jax.eval_shape(twin.runner.init, Start(*(jnp.zeros(()) for _ in Start._fields)))
        self._state: Any = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shape)

    def begin(self, start: Start) -> None:
        self._state = _begin(self._parts, jax.tree.map(np.float32, start))

    def step(self, *inputs: float) -> tuple[Any, ...]:
        u = self._kind(*(np.float32(v) for v in inputs))
        self._state, output, valid = _advance(self._parts, self._state, u)
        return (*(float(v) for v in output), int(valid))

    @property
    def words(self) -> bytes:
        return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(self._state))

    @words.setter
    def words(self, words: bytes) -> None:
        leaves, structure = jax.tree.flatten(self._state)
        sizes = [np.asarray(leaf).nbytes for leaf in leaves]
        if len(words) != sum(sizes):
            raise ValueError(f"{len(words)} bytes of state, not {sum(sizes)}")
        ends = np.cumsum(sizes)
        parts = [
            np.frombuffer(words[end - size : end], leaf.dtype).reshape(leaf.shape)
            for leaf, size, end in zip(leaves, sizes, ends, strict=True)
        ]
        self._state = structure.unflatten(parts)


@jax.jit
def _begin(parts: Any, start: Start) -> Any:
    return parts[0].init(start)


@jax.jit
def _advance(parts: tuple[Any, Any], state: Any, u: Any) -> Any:
    return c.judged(*parts, state, u)


# --- where samples come from -----------------------------------------------------------------------------------------


def opened(path: Path) -> TextIO:
    """The text of a file, whatever its encoding."""
    with path.open("rb") as file:
        encoding = encoding_of(file.read(1 << 16))
    return path.open(encoding=encoding, errors="replace", newline="")


def follow(path: Path) -> Iterator[str]:
    """The lines of a file as it grows, each once it is whole; never ends."""
    rest = ""
    with opened(path) as file:
        while True:
            piece = file.readline()
            if not piece:
                clock.sleep(POLL)
                continue
            rest += piece
            if rest.endswith("\n"):
                yield rest
                rest = ""


def from_csv(lines: Iterable[str], sign: float = 1.0, told: Told = None) -> Iterator[Sample]:
    """Samples of delimited lines; one names the columns, in any way and unit that celltwin inspect knows, and may
    follow a preamble. Time is a number, of seconds or what the header says.

    `sign` -1 where positive current is discharge; `told` names columns that are not recognised. Raises CelltwinError
    where columns are missing.
    """
    lines = iter(lines)
    headers, separator = _header(lines, told)
    units: list[str] = []
    rows = (split(line, separator) for line in lines) if separator == " " else csv.reader(lines, delimiter=separator)
    take = None
    for row in rows:
        if not row:
            continue
        if columns.is_unit_row(row):
            units = row if take is None else units
            continue
        take = take or _taker(headers, sign, told, units)
        yield take(row)


def _header(lines: Iterator[str], told: Told) -> tuple[list[str], str]:
    """The names of the columns, and what separates them: the first line with time, voltage and current."""
    passed: list[str] = []
    for line in itertools.islice(lines, MAX_HEADER_LINE):
        _, separator, roles = find_header([line], told)
        names = split(line, separator)
        if roles.issuperset(columns.REQUIRED):
            return names, separator
        numbers = [at for at in range(len(names)) if math.isfinite(_number(names, at))]
        if passed and len(numbers) >= len(columns.REQUIRED):
            break  # numbers: it cannot come any more
        passed += [line.strip()] if line.strip() else []
    if not passed:
        raise CelltwinError(
            "the stream is empty", got="no line", expected="a line that names the columns", fix="check the input"
        )
    likeliest, _, roles = find_header(passed, told)
    raise CelltwinError(
        f"the stream has no column of {', '.join(role for role in columns.REQUIRED if role not in roles)}",
        got=passed[likeliest][:200],
        expected=EXPECTED,
        fix="rename the column, or tell which it is with --column ROLE=HEADER",
    )


def from_json(lines: Iterable[str], sign: float = 1.0, told: Told = None) -> Iterator[Sample]:
    """Samples of lines with one JSON object each, its keys named like the columns of a csv."""
    first: tuple[str, ...] = ()
    takers: dict[tuple[str, ...], Any] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            keys = first if takers and set(item) <= set(first) else tuple(item)
            values = [item.get(key) for key in keys]
        except (ValueError, TypeError, AttributeError) as error:
            raise CelltwinError(f"line {number} is no JSON object", got=line.strip()[:80]) from error
        if keys not in takers:
            first = first or keys
            takers[keys] = _taker(keys, sign, told, missing=bool(takers))
        yield takers[keys](values)


def from_can(path: Path, database: Path, signals: Mapping[str, str], sign: float = 1.0) -> Iterator[Sample]:
    """Samples of a CAN log that python-can reads, decoded by a DBC file: one at each frame that tells the voltage.

    `signals` names the signal of voltage, current and temperature; what other frames told last is held.
    """
    try:
        import can
        import cantools
    except ImportError as error:
        raise CelltwinError("CAN logs need python-can and cantools", fix="pip install 'celltwin[can]'") from error
    known: Any = cantools.database.load_file(str(database))
    names = {m.frame_id: {s.name for s in m.signals} for m in known.messages}
    for role, signal in signals.items():
        if not any(signal in each for each in names.values()):
            everything = ", ".join(sorted(set().union(*names.values())))
            raise CelltwinError(f"no message of {database} has the {role} signal", got=signal, expected=everything)
    held = dict.fromkeys(("voltage", "current", "temperature"), NAN)
    with can.LogReader(str(path)) as log:
        for frame in log:
            if not names.get(frame.arbitration_id, set()) & set(signals.values()):
                continue
            decoded = known.decode_message(frame.arbitration_id, frame.data)
            told = {role: float(decoded[signal]) for role, signal in signals.items() if signal in decoded}
            held |= told
            if "voltage" in told:
                yield Sample(frame.timestamp, held["voltage"], sign * held["current"], held["temperature"])


def _taker(headers: Sequence[str], sign: float, told: Told, units: Sequence[str] = (), missing: bool = False) -> Any:
    """What makes a sample of the cells below these headers; with `missing`, sensors may be left out."""
    if missing and told:
        told = {role: names for role, names in told.items() if columns.roles_in(headers, {role: names}) >= {role}}
    found = columns.recognise(list(headers), units, told)
    both = "current" not in found and found.keys() >= columns.BOTH_WAYS  # a current of its own in either direction
    lacking = [role for role in columns.REQUIRED if role not in found and not (role == "current" and both)]
    if lacking and not (missing and "time" in found):
        raise CelltwinError(
            f"the stream has no column of {', '.join(lacking)}",
            got=", ".join(headers),
            expected=EXPECTED,
        )
    chosen = [found[role][0] if role in found else None for role in ("time", "voltage", "current", "temperature")]

    def take(cells: Sequence[Any]) -> Sample:
        def read(column: columns.Column | None) -> float:
            return NAN if column is None else _number(cells, column.index) * column.factor + column.offset

        time, voltage, current, temperature = map(read, chosen)
        if both:
            current = columns.of_both_ways(read(found["charging"][0]), read(found["discharging"][0]))
        if math.isnan(time) and chosen[0] is not None:
            time = _timestamp(cells, chosen[0].index)
        return Sample(time, voltage, sign * float(current), temperature)

    return take


def _timestamp(cells: Sequence[Any], index: int) -> float:
    """Seconds of a date and time as ISO 8601 has it, without a zone in UTC; NaN for anything else."""
    try:
        moment = datetime.fromisoformat(cells[index].strip())
    except (IndexError, AttributeError, TypeError, ValueError):
        return NAN
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def believable(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples. Raises CelltwinError where all of the first are what no cell shows: another unit, and no fault."""
    strange = 0
    for number, sample in enumerate(samples, 1):
        strange += sample.voltage > MAX_VOLT or sample.temperature > HOTTEST
        if strange == number == LOOKED_AT:
            millivolt = sample.voltage > MAX_VOLT
            raise CelltwinError(
                f"the stream's {'voltage' if millivolt else 'temperature'} is in another unit",
                got=f"{sample.voltage:.4g} V" if millivolt else f"{sample.temperature:.4g} degC",
                expected=f"up to {MAX_VOLT:g} V" if millivolt else f"up to {HOTTEST:g} degC",
                fix="name the unit: --column " + ("voltage='HEADER [mV]'" if millivolt else "temperature='HEADER [K]'"),
            )
        yield sample


def _number(cells: Sequence[Any], index: int) -> float:
    """The number in a cell, with a decimal point or comma; NaN where there is none."""
    try:
        return float(cells[index])
    except (IndexError, TypeError):
        return NAN
    except ValueError:
        try:
            return float(cells[index].replace(",", "."))
        except (AttributeError, ValueError):
            return NAN
