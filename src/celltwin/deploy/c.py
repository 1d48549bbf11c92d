"""A twin as C99: one header and one source with `init` and `step`, for a BMS that has a compiler and nothing else.

The C is written from the jaxpr of the very `init` and `step` that Python runs, so every model, filter and hybrid is
covered, one of another package too. It needs math.h and stdint.h and no more: no heap, no recursion, loops of fixed
length, state in a struct of the caller's, weights `static const`. In single precision exp, tanh and their like are
functions of our own, without branches: compilers turn loops over them into vector instructions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from celltwin import __version__, files
from celltwin.data.domain import Domain
from celltwin.deploy.emit import HELPER, HELPERS, Block, Code, Statement, Stored, Value, kind_of, strides_of
from celltwin.deploy.program import Program, name_of, trace
from celltwin.deploy.replay import MAKEFILE, replay
from celltwin.deploy.rules import write
from celltwin.errors import CelltwinError
from celltwin.interface import Estimate, Input, Measurement, Output, Start, measured
from celltwin.twin import Twin

WRITTEN = re.compile(r"^\s*state->\w+(\[[^=]*\])? [-+*]?= ")  # the left-hand side of a line
PRECISIONS = {"single": np.float32, "double": np.float64}
WEIGHTS = ("real", "int16", "int8")
MEANING = {
    "voltage": "V",
    "current": "A, positive = charge",
    "temperature": "degC at the cell's surface",
    "dt": "s since the previous sample; 0 at the first",
    "soc": "state of charge, a fraction",
    "std": "standard deviation of soc, a fraction",
    "capacity": "Ah, the cell's reference capacity",
}
RESERVED = """
auto break case char const continue default do double else enum extern float for goto if inline int long register
restrict return short signed sizeof static struct switch typedef union unsigned void volatile while NAN INFINITY
state start input output valid main
"""
KEYWORDS = frozenset(RESERVED.split())


class _Parts(NamedTuple):
    """What the emitted functions depend on: everything in it becomes constants."""

    model: Any
    domain: Domain


@dataclass(frozen=True)
class Member:
    """One member of the state struct."""

    name: str
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class Traced:
    """A twin's `init` and `step` as programs: of a start to a state; of a state and a sample to both anew."""

    init: Program
    step: Program
    members: tuple[Member, ...]  # of the state, in the order of the programs
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A twin as C: texts, and what a caller must know to use it."""

    name: str
    header: str
    source: str
    state: tuple[Member, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    precision: str

    @property
    def real(self) -> str:
        return {"single": "float", "double": "double"}[self.precision]


def traced(twin: Twin, dtype: Any = np.float32) -> Traced:
    """The programs of a twin, in this precision: what every export writes down."""
    estimates = twin.task == "soc"
    with jax.enable_x64(dtype == np.float64):
        parts = jax.tree.map(lambda leaf: _cast(leaf, dtype), _Parts(twin.runner, twin.domain))
        start = Start(*(jnp.zeros((), dtype) for _ in Start._fields))
        inputs = (Measurement if estimates else Input)(
            *(jnp.zeros((), dtype) for _ in (Measurement if estimates else Input)._fields)
        )
        state = jax.eval_shape(lambda p, s: p.model.init(s), parts, start)
        state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
        init = trace(lambda p, s: p.model.init(s), parts, start)
        step = trace(lambda p, *rest: judged(*p, *rest), parts, state, inputs)
    outputs = (*(Estimate if estimates else Output)._fields, "valid")
    return Traced(init, step, _members(state), inputs._fields, outputs)


def emit(twin: Twin, name: str | None = None, precision: str = "single", weights: str = "real") -> Source:
    """The C of a twin. Raises CelltwinError where an option or an operation of the model is not known.

    `name` begins every public name (default: the twin's). `weights` int16 or int8 stores matrices as integers with one
    scale an output, at some loss of accuracy.
    """
    name = _checked(name or re.sub(r"\W", "_", twin.name), precision, weights)
    program = traced(twin, PRECISIONS[precision])
    members = program.members
    code = Code(precision, weights, taken=set(KEYWORDS) | set(HELPERS))
    begin = _function(code, program.init, _scalars(Start._fields), members, ())
    go = _function(code, program.step, [*_fields(members), *_scalars(program.inputs)], members, program.outputs)
    made = Source(name, "", "", members, program.inputs, program.outputs, precision)
    return replace(made, header=_header(twin, made, weights), source=_source(made, code, begin, go))


def export(
    twin: Twin, folder: str | Path, name: str | None = None, precision: str = "single", weights: str = "real"
) -> list[Path]:
    """Write header, source, a `main.c` that replays a csv, and a Makefile; the files, each written atomically."""
    made = emit(twin, name, precision, weights)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        f"{made.name}.h": made.header,
        f"{made.name}.c": made.source,
        "main.c": replay(made.name, made.real, made.inputs, made.outputs, twin.cell.reference_capacity_ah),
        "Makefile": MAKEFILE.replace("NAME", made.name),
    }
    for file, text in texts.items():
        files.write_text(folder / file, text)
    return [folder / file for file in texts]


def _checked(name: str, precision: str, weights: str) -> str:
    if not re.fullmatch(r"[A-Za-z]\w*", name) or name in KEYWORDS:
        raise CelltwinError("the name is none that C takes", got=name, expected="letters, digits and _", fix="--name")
    for what, got, expected in (("precision", precision, PRECISIONS), ("weights", weights, WEIGHTS)):
        if got not in expected:
            raise CelltwinError(f"there is no such {what}", got=got, expected=", ".join(expected))
    return name


def _cast(leaf: Any, dtype: Any) -> Any:
    array = np.asarray(leaf)
    return jnp.asarray(array, dtype if array.dtype.kind == "f" else array.dtype)


def judged(model: Any, domain: Domain, state: Any, u: Any) -> Any:
    """The step, and whether it can be trusted: inside the training domain, on a voltage that was measured."""
    state, output = model.step(state, u)
    valid = domain.contains(u.current, u.temperature, output.soc, u.dt)
    if isinstance(u, Measurement):
        valid = valid & measured(u.voltage)
    return state, output, valid


def _scalars(names: tuple[str, ...]) -> list[Value]:
    return [Stored((), "real", 0, name) for name in names]


def _fields(members: tuple[Member, ...]) -> list[Stored]:
    """The members of the state as they are read and written."""
    return [Stored(m.shape, m.kind, 0, f"state->{m.name}", strides_of(m.shape) if m.shape else None) for m in members]


def _members(state: Any) -> tuple[Member, ...]:
    """The state's leaves by name, without what wraps the model where that leaves them apart."""
    named, _ = jax.tree_util.tree_flatten_with_path(state)
    whole = [name_of(path) for path, _ in named]
    names = [re.sub(r"^(inner_|model_)+", "", name) for name in whole]
    names = [w if names.count(n) > 1 or n in KEYWORDS else n for n, w in zip(names, whole, strict=True)]
    return tuple(
        Member(f"value_{name}".rstrip("_") if re.match(r"\d|$", name) else name, tuple(leaf.shape), kind_of(leaf.dtype))
        for name, (_, leaf) in zip(names, named, strict=True)
    )


def _function(
    code: Code, program: Program, inputs: list[Value], members: tuple[Member, ...], outputs: tuple[str, ...]
) -> list[str]:
    """The body of a function that leaves the members of the state, and then the outputs, as the program says."""
    values = write(code, program, inputs)
    targets = _fields(members)
    targets += [Stored((), "int" if n == "valid" else "real", 0, f"output->{n}") for n in outputs]
    last: list[str] = []
    for target, value in zip(targets, values, strict=True):
        if isinstance(value, Stored) and value.name == target.name:
            continue  # as it was
        block = Block(code)
        code.fill(target, value, block)
        if any("state->" in WRITTEN.sub("", line) for line in block.lines):
            # What is made from the state is made before any of it is written.
            value = code.copied(value)
            block = Block(code)
            code.fill(target, value, block)
        last += block.lines
    code.statements.append(Statement(last, "the new state, and what is said"))
    return code.body()


def _parameters(inputs: tuple[str, ...], struct: str, real: str, body: list[str]) -> list[str]:
    """Locals for the members of an input struct that the body reads."""
    text = "\n".join(body)
    used = [n for n in inputs if re.search(rf"(?<![>\w]){n}\b", text)]
    lines = [f"    const {real} {n} = {struct}->{n};" for n in used]
    return lines if used else [f"    (void){struct};"]


def _source(made: Source, code: Code, begin: list[str], go: list[str]) -> str:
    real, name = made.real, made.name
    begin = [*_parameters(Start._fields, "start", real, begin), *begin]
    go = [*_parameters(made.inputs, "input", real, go), *go]
    body = "\n".join([*begin, *go])
    helpers = _helpers(body, code, real)
    lines = [f'#include "{name}.h"', "", "#include <math.h>"]
    if code.weights != "real" or any("uint32_t" in text for text in helpers):
        lines.append("#include <stdint.h>")
    lines += ["", "/* Parameters, and what follows from them alone. */", ""]
    for table, values, kind in code.tables.values():
        if re.search(rf"\b{table}\b", body):
            lines += _table(code, table, values, kind)
    for text in helpers:
        lines += [text, ""]
    lines += [
        f"void {name}_init({name}_state *state, const {name}_start *start)",
        "{",
        *begin,
        "}",
        "",
        f"void {name}_step({name}_state *state, const {name}_input *input, {name}_output *output)",
        "{",
        *go,
        "}",
        "",
    ]
    return "\n".join(lines)


def _helpers(body: str, code: Code, real: str) -> list[str]:
    """The text of the helpers that a body calls, and of those that they call."""
    one, exp = code.number(np.float64(1)), code.function("exp")
    texts = {n: t.replace("REAL", real).replace("ONE", one).replace("EXP", exp) for n, t in HELPERS.items()}
    called: set[str] = set()
    waiting = {m[1] for m in HELPER.finditer(body)}
    while waiting:
        called |= waiting
        waiting = {m[1] for name in waiting for m in HELPER.finditer(texts[name])} - called
    return [text for name, text in texts.items() if name in called]


def _table(code: Code, name: str, values: np.ndarray, kind: str) -> list[str]:
    """A table, its original shape in a comment."""
    shape = " x ".join(map(str, values.shape))
    numbers = [code.number(v).strip("()") for v in values.ravel()]
    rows, row = [], "   "
    for number in numbers:
        if len(row) + len(number) > 110:
            rows, row = [*rows, row], "   "
        row += f" {number},"
    return [f"static const {kind} {name}[{values.size}] = {{ /* {shape} */", *rows, row, "};", ""]


def _header(twin: Twin, made: Source, weights: str) -> str:
    name, real, cell, card = made.name, made.real, twin.cell, twin.card
    size = sum(int(np.prod(m.shape)) for m in made.state)
    about = [
        f"{twin.name}: {card.get('title', '')}".rstrip(": "),
        f"of the cell {cell.name}, {cell.nominal_capacity_ah:g} Ah, {cell.voltage_limits_volt[0]:g} to "
        f"{cell.voltage_limits_volt[1]:g} V",
        f"trained on: {card.get('dataset', 'unknown')}, seed {card.get('seed', 'unknown')}; licence of the data: "
        f"{card.get('licence') or 'unknown'}",
        f"source of the data: {card.get('citation') or 'unknown'}",
        "training range: " + ", ".join(_range(c, r) for c, r in twin.domain.ranges().items()),
        f"written by celltwin {__version__}, {made.precision} precision, weights as {weights}; state {size} numbers",
        "",
        "Call init once, at wake-up, then step for every sample, with the time since the one before.",
        "Compile without -ffast-math: charge is counted with compensated sums, and NaN has a meaning.",
    ]
    if twin.task == "soc":
        about += ["A sensor that says nothing is NaN: the step then only predicts. start.soc is NaN if none is stored."]
    lines = ["/*", *(f" * {_plain(line)}".rstrip() for line in about), " */", f"#ifndef {name.upper()}_H"]
    lines += [f"#define {name.upper()}_H", ""]
    lines += _struct(real, f"{name}_start", "What is known at wake-up.", Start._fields)
    lines += _struct(real, f"{name}_input", "One sample; the current was held over the step.", made.inputs)
    lines += ["/* The caller's to keep, and to save over a restart as it is. */", "typedef struct {"]
    for member in made.state:
        length = int(np.prod(member.shape))
        if not length:
            continue
        dimension = f"[{length}]" if member.shape else ""
        comment = f" /* {' x '.join(map(str, member.shape))} */" if len(member.shape) > 1 else ""
        lines.append(f"    {real if member.kind == 'real' else 'int'} {member.name}{dimension};{comment}")
    lines += [f"}} {name}_state;", ""]
    lines += _struct(real, f"{name}_output", "What the twin says.", made.outputs)
    lines += [
        f"void {name}_init({name}_state *state, const {name}_start *start);",
        f"void {name}_step({name}_state *state, const {name}_input *input, {name}_output *output);",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _struct(real: str, name: str, what: str, members: tuple[str, ...]) -> list[str]:
    lines = [f"/* {what} */", "typedef struct {"]
    for member in members:
        if member == "valid":
            lines.append(
                "    int valid; /* 1 inside the training range, on measured values; else 0: an extrapolation */"
            )
        else:
            lines.append(f"    {real} {member}; /* {MEANING[member]} */")
    return [*lines, f"}} {name};", ""]


def _range(channel: str, limits: tuple[float, float]) -> str:
    unit = {"current": "A", "temperature": "degC", "soc": "", "dt": "s", "voltage": "V"}[channel]
    return f"{channel} {limits[0]:.3g} to {limits[1]:.3g} {unit}".rstrip()


def _plain(text: str) -> str:
    """Text that may stand in a comment."""
    return text.replace("*/", "* /").replace("/*", "/ *").replace("°", " deg").encode("ascii", "replace").decode()
