"""A twin called from NumPy as if it were a plain function: compiled once, little beyond its arithmetic.

    simulator = Simulator(twin)
    output = simulator(start, Input(current, temperature, dt))  # output.voltage, output.soc: NumPy, [time]

For optimisers, controllers and servers, which simulate short records over and over. Where there is a C compiler, the
twin's own C is compiled for this processor, and a call costs a few microseconds beyond its arithmetic. A compiled
function of JAX costs tens, for every array that goes in or comes out and for work that is handed to another thread; it
runs where there is no compiler, and long records of a circuit, which is faster over a whole record at once than in a
loop. One array goes in then and one comes out, and the model itself is part of the program. For whole data sets see
`interface.simulate_records`, for thousands of circuits `fleet`.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.deploy import native
from celltwin.errors import CelltwinError
from celltwin.interface import Input, Output, Start, simulate
from celltwin.physics.hysteretic import HystereticThevenin
from celltwin.physics.thevenin import Thevenin
from celltwin.twin import Twin

SHORTEST = 64  # samples; JAX is given no shorter records, but pads them
AT_ONCE = 256  # samples; above, a circuit is simulated faster at once than sample by sample
FIRST, COLUMNS = len(Start._fields), len(Input._fields)


class Simulator:
    """Closed-loop simulation of records by one voltage twin, in single precision.

    The C is compiled here, in a second; programs of JAX for `lengths`, when first needed, and for lengths a quarter of
    an octave apart: a record is padded to the next. Sign and units are those of `Start` and `Input`. Raises
    CelltwinError for what is no twin, and for one of the state of charge.
    """

    def __init__(self, twin: Twin, lengths: Iterable[int] = ()):
        if not isinstance(twin, Twin):
            raise CelltwinError("only a twin is simulated", got=type(twin).__name__, expected="Simulator(twin)")
        twin.refuse_unless("voltage")
        self._native = native.of(twin)
        circuit = isinstance(twin.model, Thevenin | HystereticThevenin)
        self._longest = 0 if self._native is None else AT_ONCE if circuit else sys.maxsize  # samples, in C
        self._lengths: list[int] = []
        for length in lengths:
            insort(self._lengths, int(length))
        self._padded: dict[int, int] = {}
        model = twin.runner

        def packed(numbers: Array) -> Array:
            columns = numbers[FIRST:].reshape(COLUMNS, -1)
            return jnp.stack(simulate(model, Start(*numbers[:FIRST]), Input(*columns)))

        self._jitted = jax.jit(packed)

    def __call__(self, start: Start, inputs: Input) -> Output:
        """Voltage in V and state of charge, [time], for a start of numbers and inputs of arrays [time] or numbers.

        Raises CelltwinError where the columns of the inputs differ in length or none has any, and where the start is
        not of numbers.
        """
        numbers, time = self.packed(start, inputs)
        said = self.program(numbers)
        return Output(said[0, :time], said[1, :time])

    def program(self, numbers: np.ndarray) -> Any:
        """The simulation alone: of a start and the columns of the inputs as one array to [voltage, soc, ...], NumPy."""
        length = (len(numbers) - FIRST) // COLUMNS
        if self._native is not None and length <= self._longest:
            return self._native.whole(numbers, length)
        return np.asarray(self._jitted(numbers))

    def packed(self, start: Start, inputs: Input) -> tuple[np.ndarray, int]:
        """What the program takes, as one array, and the number of samples before the padding."""
        # Every line here is some of the few microseconds: no sets, no views, no generators.
        shapes = [column.shape if type(column) is np.ndarray else np.shape(column) for column in inputs]
        columns = [shape for shape in shapes if shape]
        if not columns or len(columns[0]) != 1 or not columns[0][0] or columns.count(columns[0]) != len(columns):
            raise _misshapen("inputs", inputs, "columns [time] of one length of at least 1, or numbers")
        time = columns[0][0]
        length = self._padded.get(time)
        if length is None:
            length = self._padded[time] = self.padded(time)
        numbers = np.zeros(FIRST + COLUMNS * length, np.float32)
        try:
            numbers[:FIRST] = start
        except (ValueError, TypeError) as error:
            raise _misshapen("a start", start, "numbers") from error
        at = FIRST
        # Beyond the end: steps of no length, which come after everything that is given back.
        for column in inputs:
            numbers[at : at + time] = column
            at += length
        return numbers, time

    def padded(self, time: int) -> int:
        """Samples of the record that is simulated: as many in C, of JAX's the next that there is a program for."""
        if time <= self._longest:
            return time
        octave = max(SHORTEST, 1 << (time - 1).bit_length()) // 8
        regular = octave * next(q for q in (5, 6, 7, 8) if q * octave >= time)
        at = bisect_left(self._lengths, time)
        return min(regular, *self._lengths[at : at + 1]) if at < len(self._lengths) else regular


def _misshapen(what: str, given: Start | Input, expected: str) -> CelltwinError:
    shapes = zip(given._fields, map(np.shape, given), strict=True)
    return CelltwinError(
        f"{what} of the wrong shape",
        got=", ".join(f"{name} {list(shape)}" for name, shape in shapes),
        expected=expected,
        fix="one array [time] a column, of one record",
    )
