"""A model called from NumPy as if it were a plain function: compiled once, little beyond its arithmetic.

    simulator = Simulator(model, lengths=[3600])
    output = simulator(start, Input(current, temperature, dt))  # output.voltage, output.soc: NumPy, [time]

For optimisers, controllers and servers, which simulate short records over and over. A call of a compiled JAX function
costs for every array that goes in or comes out; so here one array goes in, one comes out, and the model itself is part
of the program. For whole data sets see `interface.simulate_records`, for thousands of circuits `fleet`.

JAX hands what it takes for long work to another thread, which costs tens of microseconds where the processor is busy.
`jax.config.update("jax_cpu_enable_async_dispatch", False)`, before its first use, spares them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.errors import CelltwinError
from celltwin.interface import Input, Output, Start, simulate

SHORTEST = 64  # samples; shorter records are padded to it


class Simulator:
    """Closed-loop simulation of records by one model, in single precision.

    Programs are compiled for `lengths`, when first needed, and for lengths a quarter of an octave apart: a record is
    padded to the next. Sign and units are those of `Start` and `Input`.
    """

    def __init__(self, model: Any, lengths: Iterable[int] = ()):
        self._lengths: list[int] = []
        for length in lengths:
            insort(self._lengths, int(length))
        self._padded: dict[int, int] = {}
        first = self._first = len(Start._fields)

        def packed(numbers: Array) -> Array:
            columns = numbers[first:].reshape(len(Input._fields), -1)
            return jnp.stack(simulate(model, Start(*numbers[:first]), Input(*columns)))

        self.program = jax.jit(packed)  # [start, current, temperature, dt] as one array to [voltage, soc]

    def __call__(self, start: Start, inputs: Input) -> Output:
        """Voltage in V and state of charge, [time], for a start of numbers and inputs of arrays [time] or numbers.

        Raises CelltwinError where the columns of the inputs differ in length or none has any, and where the start is
        not of numbers.
        """
        numbers, time = self.packed(start, inputs)
        voltage, soc = np.asarray(self.program(numbers))
        return Output(voltage[:time], soc[:time])

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
        numbers = np.zeros(self._first + len(inputs) * length, np.float32)
        try:
            numbers[: self._first] = start
        except (ValueError, TypeError) as error:
            raise _misshapen("a start", start, "numbers") from error
        at = self._first
        # Beyond the end: steps of no length, which come after everything that is given back.
        for column in inputs:
            numbers[at : at + time] = column
            at += length
        return numbers, time

    def padded(self, time: int) -> int:
        """The next length that there is, or will be, a program for."""
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
