"""A function as a plain list of equations, with all that depends on parameters alone worked out beforehand.

    traced = jaxpr of f(parameters, *arguments)  ->  calls inlined  ->  known part evaluated  ->  what is left

What is left takes inputs and constants to outputs and is what `deploy.c` writes down. Constants keep the name of the
parameter that they come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import source_info_util  # where in the source an equation comes from: no public way
from jax.extend import core

from celltwin.errors import CelltwinError

# Equations that only call others, and what their parameters call the others.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
# Equations that leave the numbers as they are.
IDENTITIES = ("stop_gradient", "copy", "copy_p", "reduce_precision", "optimization_barrier")
# Equations that repeat their operand: not worth a larger constant.
REPEATS = ("broadcast_in_dim", "tile")


class Var:
    """The result of one equation, or an input."""

    def __init__(self, aval: Any, place: str = "") -> None:
        self.shape: tuple[int, ...] = tuple(aval.shape)
        try:
            self.dtype = np.dtype(aval.dtype)
        except TypeError as error:
            raise CelltwinError(
                "the model's step holds what is no number", got=aval.dtype, expected="floats, integers and truth values"
            ) from error
        self.place = place


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that is known before anything runs, and the parameters that it comes from."""

    value: np.ndarray
    name: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def dtype(self) -> np.dtype:
        return self.value.dtype


Atom = Var | Constant


@dataclass(frozen=True, eq=False)
class Equation:
    """outputs = name(inputs), at a place in the source."""

    name: str
    inputs: tuple[Any, ...]
    outputs: tuple[Var, ...]
    params: dict[str, Any]
    place: str
    primitive: Any = None
    body: Program | None = None  # of a loop


@dataclass
class Program:
    """Equations in order, from inputs to outputs."""

    inputs: list[Var]
    outputs: list[Any]
    equations: list[Equation] = field(default_factory=list)

    def uses(self) -> dict[int, int]:
        """How often each Var (by id) is read."""
        counts: dict[int, int] = {}
        for atom in [*(a for e in self.equations for a in e.inputs), *self.outputs]:
            counts[id(atom)] = counts.get(id(atom), 0) + 1
        return counts


def trace(function: Callable[..., Any], parameters: Any, *arguments: Any) -> Program:
    """The program of `function(parameters, *arguments)` as a function of the arguments' leaves."""
    named, structure = jax.tree_util.tree_flatten_with_path(parameters)
    names, leaves = [name_of(path) for path, _ in named], [leaf for _, leaf in named]
    flat, around = jax.tree.flatten(arguments)

    def flattened(leaves: Any, flat: Any) -> Any:
        return jax.tree.leaves(function(structure.unflatten(leaves), *around.unflatten(flat)))

    closed = jax.make_jaxpr(flattened)(leaves, flat)
    known = [Constant(np.asarray(leaf), name) for leaf, name in zip(leaves, names, strict=True)]
    inputs = [Var(v.aval) for v in closed.jaxpr.invars[len(leaves) :]]
    equations: list[Equation] = []
    outputs = _inline(closed, [*known, *inputs], equations)
    return _worked_out(Program(inputs, outputs, _needed(equations, outputs)))


def name_of(path: Sequence[Any]) -> str:
    """The path of a leaf in a tree as one identifier: `static_ocv_table`."""
    parts = [str(getattr(key, "name", getattr(key, "idx", getattr(key, "key", key)))) for key in path]
    return re.sub(r"^(model_)+", "", re.sub(r"[\W_]+", "_", "_".join(parts), flags=re.ASCII).strip("_"))


def _inline(closed: Any, arguments: Sequence[Any], equations: list[Equation]) -> list[Any]:
    """Append what a jaxpr does to its arguments, calls resolved; its outputs."""
    jaxpr, consts = (closed.jaxpr, closed.consts) if hasattr(closed, "consts") else (closed, ())
    found: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
    found |= {var: Constant(np.asarray(value)) for var, value in zip(jaxpr.constvars, consts, strict=True)}

    def read(atom: Any) -> Any:
        return (
            Constant(np.asarray(atom.val, getattr(atom.aval, "dtype", None)))
            if isinstance(atom, core.Literal)
            else found[atom]
        )

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        name, place = eqn.primitive.name, _place(eqn)
        if name in CALLS:
            outputs = _inline(eqn.params[CALLS[name]], inputs, equations)
        elif name in IDENTITIES:
            outputs = inputs
        elif name == "split":
            outputs = [Var(v.aval, place) for v in eqn.outvars]
            axis, begin = eqn.params["axis"], 0
            for size, output in zip(eqn.params["sizes"], outputs, strict=True):
                start, stop = [0] * len(output.shape), list(inputs[0].shape)
                start[axis], stop[axis] = begin, begin + int(size)
                begin += int(size)
                params = {"start_indices": tuple(start), "limit_indices": tuple(stop), "strides": None}
                equations.append(Equation("slice", (inputs[0],), (output,), params, place, jax.lax.slice_p))
        else:
            outputs = [Var(v.aval, place) for v in eqn.outvars]
            body = _loop_body(eqn) if name == "scan" else None
            equations.append(
                Equation(name, tuple(inputs), tuple(outputs), dict(eqn.params), place, eqn.primitive, body)
            )
        found.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _loop_body(eqn: Any) -> Program:
    closed = eqn.params["jaxpr"]
    inputs = [Var(v.aval) for v in closed.jaxpr.invars]
    equations: list[Equation] = []
    outputs = _inline(closed, inputs, equations)
    return _worked_out(Program(inputs, outputs, _needed(equations, outputs)))


def _place(eqn: Any) -> str:
    """`module: function` of the source that made an equation, the innermost that is not JAX's own."""
    for frame in source_info_util.user_frames(eqn.source_info.traceback):
        function = frame.function_name.replace("<locals>.", "").replace("<lambda>", "")
        module = Path(frame.file_name).stem
        return f"{module}: {function}".rstrip(" .:")
    return ""


def _needed(equations: list[Equation], outputs: Sequence[Any]) -> list[Equation]:
    """Without the equations that no output depends on, and with equal ones once."""
    same: dict[Any, Equation] = {}
    renamed: dict[int, Any] = {}
    unique: list[Equation] = []
    for each in equations:
        inputs = tuple(renamed.get(id(a), a) for a in each.inputs)
        each = Equation(each.name, inputs, each.outputs, each.params, each.place, each.primitive, each.body)
        key = None if each.body else (each.name, tuple(_key(a) for a in inputs), _text(each.params))
        first = same.setdefault(key, each) if key else each
        if first is each:
            unique.append(each)
        else:
            renamed.update((id(a), b) for a, b in zip(each.outputs, first.outputs, strict=True))
    live = {id(renamed.get(id(a), a)) for a in outputs}
    if isinstance(outputs, list):
        outputs[:] = [renamed.get(id(a), a) for a in outputs]
    kept: list[Equation] = []
    for each in reversed(unique):
        if any(id(v) in live for v in each.outputs):
            kept.append(each)
            live |= {id(a) for a in each.inputs}
    return kept[::-1]


def _key(atom: Any) -> Any:
    if isinstance(atom, Constant) and atom.value.size == 1:
        return (atom.value.tobytes(), atom.shape, str(atom.dtype))
    return id(atom)


def _text(params: dict[str, Any]) -> str:
    return repr(sorted((k, repr(v)) for k, v in params.items()))


def _worked_out(program: Program) -> Program:
    """The program with every equation of constants evaluated: at once, by JAX, in the precision of the constants."""
    made: dict[int, tuple[Equation, tuple[str, ...]]] = {}
    left: list[Equation] = []
    for each in program.equations:
        if each.body is None and all(isinstance(a, Constant) or id(a) in made for a in each.inputs):
            made[id(each.outputs[0])] = (each, _origins(each, made))
        else:
            left.append(each)
    wanted = [a for a in [*(a for e in left for a in e.inputs), *program.outputs] if id(a) in made]
    repeats: list[Equation] = []  # constants that are better repeated where they are used
    ends: dict[int, Var] = {}
    while wanted:
        var = wanted.pop()
        each, _ = made[id(var)]
        if each.name in REPEATS and each.outputs[0].shape != () and _size(each.inputs[0]) < _size(var):
            if each not in repeats:
                repeats.append(each)
                wanted += [a for a in each.inputs if id(a) in made]
        else:
            ends[id(var)] = var
    left = [*sorted(repeats, key=program.equations.index), *left]
    values = _evaluate([made[key][0] for key in made], list(ends.values()))
    constants = {key: Constant(value, "_".join(made[key][1])) for key, value in zip(ends, values, strict=True)}

    def read(atom: Any, place: str = "") -> Any:
        if isinstance(atom, Constant) and not atom.name:
            return Constant(atom.value, _function_of(place))
        return constants.get(id(atom), atom)

    equations = [
        Equation(e.name, tuple(read(a, e.place) for a in e.inputs), e.outputs, e.params, e.place, e.primitive, e.body)
        for e in left
    ]
    return Program(program.inputs, [read(a) for a in program.outputs], equations)


def _size(atom: Any) -> int:
    return int(np.prod(atom.shape))


def _origins(equation: Equation, made: dict[int, tuple[Equation, tuple[str, ...]]]) -> tuple[str, ...]:
    """Names of the parameters that a constant comes from, the first two."""
    names: list[str] = []
    for atom in equation.inputs:
        names += made[id(atom)][1] if id(atom) in made else [atom.name] if atom.name else []
    return tuple(dict.fromkeys(names))[:2] or (_function_of(equation.place),)


def _function_of(place: str) -> str:
    """The name of the function in a place."""
    return place.rpartition(": ")[2].rpartition(".")[2].strip("_")


def _evaluate(equations: list[Equation], wanted: list[Var]) -> list[np.ndarray]:
    """The values of `wanted`, by one compiled function of the constants."""
    if not wanted:
        return []
    live, used = {id(v) for v in wanted}, []
    for each in reversed(equations):
        if id(each.outputs[0]) in live:
            used.append(each)
            live |= {id(a) for a in each.inputs}
    used.reverse()
    given = list({id(a): a for e in used for a in e.inputs if isinstance(a, Constant)}.values())

    def compute(values: list[Any]) -> list[Any]:
        known: dict[int, Any] = dict(zip(map(id, given), values, strict=True))
        for each in used:
            result = each.primitive.bind(*(known[id(a)] for a in each.inputs), **each.params)
            known[id(each.outputs[0])] = result[0] if each.primitive.multiple_results else result
        return [known[id(v)] for v in wanted]

    return [np.asarray(v) for v in jax.jit(compute)([a.value for a in given])]
