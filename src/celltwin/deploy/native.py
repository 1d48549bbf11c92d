"""An emitted twin compiled on this machine and called from Python.

It is how the C is checked, how a stream is quick, and what `celltwin.simulator` calls.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from celltwin.deploy.c import Source, emit
from celltwin.errors import CelltwinError
from celltwin.interface import Start
from celltwin.twin import Twin

log = logging.getLogger("celltwin")

# Without contraction to fused operations every processor gives the same bits.
FLAGS = ("-std=c99", "-O3", "-fno-trapping-math", "-ffp-contract=off", "-fPIC", "-shared")
# For this processor, where the compiler knows it. With vectors of 512 bits gcc 12 stores to misaligned places: a crash.
TUNED = (("-march=native", "-mprefer-vector-width=256"), ("-march=native",), ())

SHIM = """
void NAME_run(NAME_state *state, const REAL *inputs, long samples, REAL *outputs);
void NAME_whole(const REAL *numbers, long samples, REAL *outputs);
long NAME_size(void);

long NAME_size(void) { return (long)sizeof(NAME_state); }

void NAME_run(NAME_state *state, const REAL *inputs, long samples, REAL *outputs)
{
    for (long k = 0; k < samples; ++k) {
        NAME_input input;
        NAME_output output;
READ
        NAME_step(state, &input, &output);
WRITE
        inputs += INPUTS;
        outputs += OUTPUTS;
    }
}

void NAME_whole(const REAL *numbers, long samples, REAL *outputs)
{
    const REAL *const columns = numbers + STARTS;
    NAME_start start;
    NAME_state state;
START
    NAME_init(&state, &start);
    for (long k = 0; k < samples; ++k) {
        NAME_input input;
        NAME_output output;
TAKE
        NAME_step(&state, &input, &output);
GIVE
    }
}
"""


def compiler() -> list[str] | None:
    """The command of a C compiler: `CC`, else cc, gcc or clang; None where there is none."""
    if os.environ.get("CC", "").strip():
        return shlex.split(os.environ["CC"])
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    return [found] if found else None


class Native:
    """A compiled twin. Its state is a block of memory that `begin` makes and `step` and `run` advance."""

    def __init__(self, source: Source, flags: tuple[str, ...] | None = None) -> None:
        """Compiles the source, with further `flags` or for this processor.

        Raises CelltwinError where there is no compiler or it fails.
        """
        self.source = source
        self._real = {"float": ctypes.c_float, "double": ctypes.c_double}[source.real]
        library = _library(source, TUNED if flags is None else [flags])
        name = source.name
        self._size = getattr(library, f"{name}_size")
        self._init, self._step, self._run, self._whole = (
            getattr(library, f"{name}_{what}") for what in ("init", "step", "run", "whole")
        )
        self._size.restype = ctypes.c_long
        for function in (self._init, self._step, self._run, self._whole):
            function.restype = None
        self._run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p)
        self._whole.argtypes = (ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p)
        real, valid = self._real, ("valid", ctypes.c_int)
        self._start_struct = _struct("Start", [(n, real) for n in Start._fields])
        self._input, self._output = (
            _struct("Input", [(n, real) for n in source.inputs])(),
            _struct("Output", [*((n, real) for n in source.outputs if n != "valid"), valid])(),
        )
        self._input_at, self._output_at = ctypes.byref(self._input), ctypes.byref(self._output)
        self._said = attrgetter(*source.outputs)
        self.size = int(self._size())

    @property
    def dtype(self) -> Any:
        return np.float32 if self.source.precision == "single" else np.float64

    def blank(self) -> ctypes.Array[Any]:
        """Room for a state."""
        return ctypes.create_string_buffer(self.size)

    def begin(self, start: Start) -> ctypes.Array[Any]:
        """The state after `init`."""
        state = self.blank()
        given = self._start_struct(*(float(v) for v in start))
        self._init(state, ctypes.byref(given))
        return state

    def step(self, state: Any, *inputs: float) -> tuple[float, ...]:
        """Advance the state by one sample, values in the order of `source.inputs`; what the twin says, in its order."""
        given = self._input
        for name, value in zip(self.source.inputs, inputs, strict=True):
            setattr(given, name, value)
        self._step(state, self._input_at, self._output_at)
        return self._said(self._output)

    def run(self, state: Any, inputs: np.ndarray) -> np.ndarray:
        """Advance the state by samples [time, inputs]; what the twin says, [time, outputs]."""
        inputs = np.ascontiguousarray(inputs, self.dtype)
        said = np.empty((len(inputs), len(self.source.outputs)), self.dtype)
        self._run(ctypes.addressof(state), inputs.ctypes.data, len(inputs), said.ctypes.data)
        return said

    def whole(self, numbers: np.ndarray, samples: int) -> np.ndarray:
        """What the twin says over a whole record, [outputs, time].

        `numbers` are the start, then each column of the inputs, [samples]. Raises ValueError for fewer or more.
        """
        numbers = np.ascontiguousarray(numbers, self.dtype)
        if numbers.shape != (len(Start._fields) + samples * len(self.source.inputs),):
            raise ValueError(f"{numbers.shape} numbers for {samples} samples of {len(self.source.inputs)} inputs")
        said = np.empty((len(self.source.outputs), samples), self.dtype)
        self._whole(numbers.ctypes.data, samples, said.ctypes.data)
        return said


def of(twin: Twin) -> Native | None:
    """The twin's C for this processor, in single precision; None, for JAX to do it, where there is no compiler or,
    with a warning in the log, where its C cannot be had."""
    if compiler() is None:
        return None
    try:
        return Native(emit(twin, name="twin"))
    except CelltwinError as error:
        log.warning("%s runs by JAX, several times slower sample by sample: %s", twin.name, error)
        return None


def _struct(name: str, fields: list[tuple[str, Any]]) -> Any:
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def shim(source: Source) -> str:
    """Functions that run many samples in one call, to be compiled with the source."""
    inputs, outputs = list(enumerate(source.inputs)), list(enumerate(source.outputs))
    lines = {
        "READ": [f"        input.{name} = inputs[{i}];" for i, name in inputs],
        "WRITE": [f"        outputs[{i}] = ({source.real})output.{name};" for i, name in outputs],
        "START": [f"    start.{name} = numbers[{i}];" for i, name in enumerate(Start._fields)],
        "TAKE": [f"        input.{name} = columns[{i} * samples + k];" for i, name in inputs],
        "GIVE": [f"        outputs[{i} * samples + k] = ({source.real})output.{name};" for i, name in outputs],
    }
    numbers = {"STARTS": len(Start._fields), "INPUTS": len(inputs), "OUTPUTS": len(outputs)}
    words = {key: "\n".join(text) for key, text in lines.items()} | {key: str(n) for key, n in numbers.items()}
    words |= {"REAL": source.real, "NAME": source.name}
    return re.sub(r"REAL|NAME|[A-Z]{4,}", lambda word: words.get(word[0], word[0]), SHIM)


def _library(source: Source, choices: Sequence[tuple[str, ...]]) -> ctypes.CDLL:
    """The source as a loaded shared library, with the first choice of flags that the compiler takes."""
    command = compiler()
    if command is None:
        raise CelltwinError("there is no C compiler", expected="cc, gcc or clang", fix="install one, or set CC")
    try:
        with tempfile.TemporaryDirectory(prefix="celltwin-") as folder:
            here = Path(folder)
            (here / f"{source.name}.h").write_text(source.header, encoding="utf-8")
            (here / f"{source.name}.c").write_text(source.source + shim(source), encoding="utf-8")
            library = here / f"{source.name}.so"
            said = ""
            for flags in choices:
                whole = [*command, *FLAGS, *flags, "-o", str(library), str(here / f"{source.name}.c"), "-lm"]
                done = subprocess.run(whole, capture_output=True, text=True)
                if done.returncode == 0:
                    return ctypes.CDLL(str(library))  # stays mapped when the file is gone
                said = done.stderr.strip()
    except OSError as error:  # no such command, no folder to write to, a library for another machine
        raise CelltwinError(
            "the C compiler is of no use", got=error, expected=" ".join(command), fix="set CC to one for this machine"
        ) from error
    raise CelltwinError("the C compiler failed", got=said[:400], expected=" ".join(command))
