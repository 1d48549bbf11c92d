"""One small rule for each primitive: from the values of its operands to its own.

A primitive without a rule is refused by name; `rule` makes one known, for a model that is written elsewhere as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from celltwin.deploy.emit import (
    Block,
    Code,
    Filled,
    Index,
    Indices,
    Joined,
    Known,
    Lazy,
    Stored,
    Value,
    kind_of,
    strides_of,
    unwrapped,
)
from celltwin.deploy.program import Constant, Equation, Program
from celltwin.errors import CelltwinError

Rule = Callable[[Code, Equation, list[Value]], list[Value]]
RULES: dict[str, Rule] = {}
AT_ONCE = 4  # columns of a matrix that one pass over a product adds
LONG = 10  # operations in one expression, beyond which a value is stored and not written again
NARROW = 4  # elements of a product, under which each is summed by itself


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Make a rule known for the primitives of these names."""

    def known(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return known


def write(code: Code, program: Program, inputs: Sequence[Value]) -> list[Value]:
    """Add the statements of a program to `code`, its inputs being these values; its outputs."""
    uses = program.uses()
    found: dict[int, Value] = {id(v): value for v, value in zip(program.inputs, inputs, strict=True)}

    def read(atom: Any) -> Value:
        if isinstance(atom, Constant):
            return Known(atom.shape, kind_of(atom.dtype), 0, atom)
        return found[id(atom)]

    for equation in program.equations:
        values = apply(code, equation, [read(a) for a in equation.inputs])
        for var, value in zip(equation.outputs, values, strict=True):
            often = uses.get(id(var), 0) > 1
            late = isinstance(value, Filled) or (isinstance(value, Joined) and often)
            if late or (value.weight and (often or value.weight > LONG)):
                value = code.store(value, equation.place)
            found[id(var)] = value
    return [read(a) for a in program.outputs]


def apply(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    """The values of an equation's outputs. Raises CelltwinError where its primitive has no rule."""
    if equation.name not in RULES:
        raise _refused(equation, "is no operation that can be written as C", ", ".join(sorted(RULES)))
    return RULES[equation.name](code, equation, operands)


def _refused(equation: Equation, what: str, expected: str) -> CelltwinError:
    return CelltwinError(
        f"'{equation.name}' {what}",
        got=f"it in {equation.place or 'the model'}",
        expected=expected,
        fix="write the step with other operations, or give celltwin.deploy.rules a rule for it",
    )


def _out(equation: Equation) -> tuple[tuple[int, ...], str]:
    return equation.outputs[0].shape, kind_of(equation.outputs[0].dtype)


# --- element by element ----------------------------------------------------------------------------------------------

OPERATORS = {
    "add": "({} + {})", "add_any": "({} + {})", "sub": "({} - {})", "mul": "({} * {})", "div": "({} / {})",
    "neg": "(-{})", "eq": "({} == {})", "ne": "({} != {})", "lt": "({} < {})", "le": "({} <= {})", "gt": "({} > {})",
    "ge": "({} >= {})", "lt_to": "({} < {})", "le_to": "({} <= {})", "and": "({} && {})", "or": "({} || {})",
    "xor": "({} != {})", "not": "(!{})", "is_finite": "(isfinite({}) != 0)",
    "square": "square({})", "sign": "sign_of({})", "logistic": "logistic({})",
}  # fmt: skip
FUNCTIONS = {
    "exp": "exp", "exp2": "exp2", "log": "log", "log1p": "log1p", "expm1": "expm1", "tanh": "tanh", "sin": "sin",
    "cos": "cos", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan", "atan2": "atan2", "sinh": "sinh",
    "cosh": "cosh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "sqrt": "sqrt", "cbrt": "cbrt",
    "floor": "floor", "ceil": "ceil", "pow": "pow", "rem": "fmod", "erf": "erf", "erfc": "erfc",
}  # fmt: skip
COSTLY = 6  # operations that a function counts as


@rule(*OPERATORS, *FUNCTIONS, "max", "min", "abs", "rsqrt", "round", "integer_pow", "clamp", "select_n",
      "convert_element_type")  # fmt: skip
def _elementwise(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    shape, kind = _out(equation)
    template, cost = _template(code, equation, operands)
    joined = [v for v in operands if isinstance(v, Joined)]
    if joined and len({v.axis for v in joined}) == 1:
        axis = joined[0].axis
        ends = sorted({end for v in joined for end in v.ends()})
        pieces = []
        for begin, end in itertools.pairwise([0, *ends]):
            parts = [_stretch(code, v, axis, begin, end, equation) if v.shape else v for v in operands]
            size = (*shape[:axis], end - begin, *shape[axis + 1 :])
            pieces.append(_applied(template, cost, size, kind, parts))
        return [Joined(shape, kind, max(p.weight for p in pieces), axis, tuple(pieces))]
    return [_applied(template, cost, shape, kind, [_readable(code, v, equation) for v in operands])]


def _applied(template: str, cost: int, shape: tuple[int, ...], kind: str, operands: list[Value]) -> Value:
    """The value of an operation, element by element."""

    def read(index: Indices, block: Block) -> str:
        return template.format(*(v.at(_shared(index, v), block) for v in operands))

    return Lazy(shape, kind, cost + sum(v.weight for v in operands), read)


def _stretch(code: Code, value: Value, axis: int, begin: int, end: int, equation: Equation) -> Value:
    """The part of a value from begin to end along an axis."""
    inside, offset = value, begin
    if isinstance(value, Joined) and value.axis == axis and (found := value.within(begin, end)):
        inside, offset = found[0], begin - found[1]
    inside = _readable(code, inside, equation)
    if inside.shape[axis] == 1 and value.shape[axis] == 1:
        return inside  # the same everywhere
    shape = (*inside.shape[:axis], end - begin, *inside.shape[axis + 1 :])

    def read(index: Indices, block: Block) -> str:
        return inside.at((*index[:axis], index[axis] + offset, *index[axis + 1 :]), block)

    return Lazy(shape, value.kind, inside.weight, read)


def _shared(index: Indices, value: Value) -> Indices:
    """Where an operand is read: one of a single element (or axis of length one) there, whatever the index."""
    if not value.shape:
        return ()
    return tuple(i if n > 1 else Index() for i, n in zip(index, value.shape, strict=True))


def _template(code: Code, equation: Equation, operands: list[Value]) -> tuple[str, int]:
    """The text of the operation with places for its operands, and how many operations it counts as."""
    name, real = equation.name, operands[0].kind == "real"
    if name in ("and", "or", "not") and equation.outputs[0].dtype != np.bool_:
        raise _refused(equation, "of whole numbers is no operation that can be written as C", "one of truth values")
    if name == "integer_pow":
        power = equation.params["y"]
        text = {1: "{}", 2: "square({})"}.get(abs(power), f"power({{}}, {abs(power)})")
        return (f"({code.number(np.float32(1))} / {text})" if power < 0 else text), abs(power)
    if name == "select_n":
        if len(operands) != 3:
            raise _refused(equation, "of more than two cases cannot be written as C", "two cases")
        return "({0} ? {2} : {1})", 1
    if name == "clamp":
        low, high = ("maximum", "minimum") if operands[1].kind == "real" else ("larger", "smaller")
        return f"{high}({low}({{1}}, {{0}}), {{2}})", 2
    if name == "convert_element_type":
        before, after = operands[0].kind, kind_of(equation.outputs[0].dtype)
        if equation.outputs[0].dtype == np.bool_:
            return "({} != 0)", 1
        return ("{}", 0) if before == after else (f"({code.type_of(after)}){{}}", 1)
    if name in ("max", "min"):
        return {"max": ("larger", "maximum"), "min": ("smaller", "minimum")}[name][real] + "({}, {})", 1
    if name == "abs":
        return (code.function("fabs") if real else "abs") + "({})", 1
    if name == "rsqrt":
        return f"({code.number(np.float32(1))} / {code.function('sqrt')}({{}}))", COSTLY
    if name == "round":
        return code.function("rint") + "({})", COSTLY
    if name == "sign" and not real:
        raise _refused(equation, "of whole numbers cannot be written as C", "a real operand")
    if name in FUNCTIONS and real:
        return f"{code.function(FUNCTIONS[name])}({', '.join(['{}'] * len(operands))})", COSTLY
    if name == "rem":
        return "({} % {})", 1
    if name not in OPERATORS:
        raise _refused(equation, "of whole numbers cannot be written as C", "a real operand")
    return OPERATORS[name], 1 if name not in ("logistic",) else COSTLY


def _readable(code: Code, value: Value, equation: Equation) -> Value:
    """The value, as far as it can be read element by element."""
    return code.store(value, equation.place) if isinstance(value, (Joined, Filled)) and value.shape else value


# --- views -----------------------------------------------------------------------------------------------------------


def _view(code: Code, equation: Equation, value: Value, index_of: Callable[[Indices], Indices]) -> list[Value]:
    """A value that reads another elsewhere."""
    shape, kind = _out(equation)
    value = _readable(code, value, equation)
    return [Lazy(shape, kind, value.weight, lambda index, block: value.at(index_of(index), block))]


@rule("broadcast_in_dim")
def _broadcast(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    value, axes = operands[0], equation.params["broadcast_dimensions"]
    shape, _ = _out(equation)
    if value.weight and int(np.prod(shape)) > value.size:
        value = code.store(value, equation.place)

    def inner(index: Indices) -> Indices:
        return tuple(index[axis] if n > 1 else Index() for axis, n in zip(axes, value.shape, strict=True))

    return _view(code, equation, value, inner)


@rule("squeeze")
def _squeeze(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    gone = [axis % len(operands[0].shape) for axis in equation.params["dimensions"]]

    def inner(index: Indices) -> Indices:
        rest = iter(index)
        return tuple(Index() if axis in gone else next(rest) for axis in range(len(operands[0].shape)))

    return _view(code, equation, operands[0], inner)


@rule("expand_dims")
def _expand(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    added = equation.params["dimensions"]
    return _view(code, equation, operands[0], lambda index: tuple(i for n, i in enumerate(index) if n not in added))


@rule("transpose")
def _transpose(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    back = np.argsort(equation.params["permutation"])
    return _view(code, equation, operands[0], lambda index: tuple(index[n] for n in back))


@rule("rev")
def _reverse(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    turned, shape = equation.params["dimensions"], operands[0].shape

    def inner(index: Indices) -> Indices:
        return tuple(i * -1 + (shape[n] - 1) if n in turned else i for n, i in enumerate(index))

    return _view(code, equation, operands[0], inner)


@rule("slice")
def _slice(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    start, stop = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(start)
    value, start = operands[0], list(start)
    while isinstance(value, Joined) and (found := value.within(start[value.axis], stop[value.axis])):
        stop = [s - found[1] * (n == value.axis) for n, s in enumerate(stop)]
        start[value.axis] -= found[1]
        value = found[0]

    def inner(index: Indices) -> Indices:
        return tuple(i * step + begin for i, step, begin in zip(index, strides, start, strict=True))

    return _view(code, equation, value, inner)


@rule("reshape")
def _reshape(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    value, (shape, kind) = operands[0], _out(equation)
    kept = [n for n in value.shape if n > 1]
    if kept == [n for n in shape if n > 1]:  # only axes of length one come or go

        def inner(index: Indices) -> Indices:
            rest = iter([i for i, n in zip(index, shape, strict=True) if n > 1])
            return tuple(next(rest) if n > 1 else Index() for n in value.shape)

        return _view(code, equation, value, inner)
    flat = code.store(value, equation.place)
    if not (isinstance(flat, Stored) and flat.contiguous):
        flat = code.area(value)
        block = Block(code)
        code.fill(flat, value, block)
        code.add(block, equation.place)
    return [Stored(shape, kind, 0, flat.name, strides_of(shape), flat.offset)]


@rule("iota")
def _iota(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    (shape, kind), axis = _out(equation), equation.params["dimension"]
    cast = "" if kind == "int" else f"({code.real})"
    return [Lazy(shape, kind, 1, lambda index, block: f"{cast}({index[axis]})")]


# --- joining, placing, picking ---------------------------------------------------------------------------------------


@rule("concatenate")
def _concatenate(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    shape, kind = _out(equation)
    pieces = tuple(v for v in operands if v.size)
    return [Joined(shape, kind, max(v.weight for v in pieces), equation.params["dimension"], pieces)]


@rule("stack")
def _stack(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    (shape, kind), axis = _out(equation), equation.params["axis"]

    def thick(value: Value) -> Value:
        value = _readable(code, value, equation)
        size = (*value.shape[:axis], 1, *value.shape[axis:])
        return Lazy(size, kind, value.weight, lambda i, block: value.at((*i[:axis], *i[axis + 1 :]), block))

    return [Joined(shape, kind, max(v.weight for v in operands), axis, tuple(map(thick, operands)))]


@rule("tile")
def _tile(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    value = code.store(operands[0], equation.place)
    for axis, often in enumerate(equation.params["reps"]):
        if often > 1:
            shape = (*value.shape[:axis], value.shape[axis] * int(often), *value.shape[axis + 1 :])
            value = Joined(shape, value.kind, 0, axis, (value,) * int(often))
    return [value]


@rule("pad")
def _pad(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    (shape, kind), (value, filler) = _out(equation), operands
    config = [tuple(map(int, c)) for c in equation.params["padding_config"]]
    if any(c < 0 for each in config for c in each):
        raise _refused(equation, "that cuts off cannot be written as C", "padding of zero or more")

    def fill(target: Stored, block: Block) -> None:
        if any(any(each) for each in config):
            with block.loops(shape) as index:
                block.add(f"{target.at(index, block)} = {filler.at((), block)};")
        assert target.strides is not None
        offset = target.offset + sum(low * s for (low, _, _), s in zip(config, target.strides, strict=True))
        strides = tuple(s * (1 + inside) for (_, _, inside), s in zip(config, target.strides, strict=True))
        code.fill(replace(target, shape=value.shape, offset=offset, strides=strides), value, block)

    value = _readable(code, value, equation)
    return [Filled(shape, kind, 1, fill)]


@rule("scatter", "scatter-add")
def _scatter(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    value, where, update = operands
    numbers, (shape, kind) = equation.params["dimension_numbers"], _out(equation)
    points = numbers.update_window_dims == () and sorted(numbers.inserted_window_dims) == list(range(len(shape)))
    if not (isinstance(where, Known) and points):
        raise _refused(equation, "to places that are not known beforehand cannot be written as C", "constant places")
    sign = "=" if equation.name == "scatter" else "+="
    value, update = (_readable(code, v, equation) for v in (value, update))

    def fill(target: Stored, block: Block) -> None:
        code.fill(target, value, block)
        places = where.constant.value
        for at in itertools.product(*map(range, places.shape[:-1])):
            place = [Index()] * len(shape)
            for axis, number in zip(numbers.scatter_dims_to_operand_dims, places[at], strict=True):
                place[axis] = Index(int(number))
            text = update.at(tuple(map(Index, at)), block)
            block.add(f"{target.at(tuple(place), block)} {sign} {text};")

    return [Filled(shape, kind, 1, fill)]


def _inside(value: Value, index: Indices, most: int, block: Block) -> Index:
    """An index that a value holds, kept within 0 and `most`."""
    if isinstance(value, Known) and not any(i.terms for i in index):
        return Index(min(max(int(value.constant.value[tuple(i.constant for i in index)]), 0), most))
    return Index(0, ((f"within({value.at(index, block)}, {most})", 1),))


@rule("gather")
def _gather(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    value, where = operands
    numbers, (shape, kind) = equation.params["dimension_numbers"], _out(equation)
    lead = len(where.shape) - 1
    rows = (
        numbers.collapsed_slice_dims == (0,)
        and numbers.start_index_map == (0,)
        and numbers.offset_dims == tuple(range(lead, len(shape)))
        and tuple(equation.params["slice_sizes"]) == (1, *value.shape[1:])
    )
    if not rows:
        raise _refused(equation, "of more than whole rows cannot be written as C", "rows of the first axis")
    value = code.store(value, equation.place)
    where = _readable(code, where, equation)

    def read(index: Indices, block: Block) -> str:
        row = _inside(where, (*index[:lead], Index()), value.shape[0] - 1, block)
        return value.at((row, *index[lead:]), block)

    return [Lazy(shape, kind, 2 + where.weight, read)]


@rule("dynamic_slice")
def _dynamic_slice(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    value, *starts = operands
    shape, kind = _out(equation)
    value = code.store(value, equation.place)

    def read(index: Indices, block: Block) -> str:
        most = [n - m for n, m in zip(value.shape, shape, strict=True)]
        begin = [_inside(s, (), m, block) for s, m in zip(starts, most, strict=True)]
        return value.at(tuple(b + i for b, i in zip(begin, index, strict=True)), block)

    return [Lazy(shape, kind, 2, read)]


@rule("dynamic_update_slice")
def _dynamic_update(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    value, update, *starts = operands
    shape, kind = _out(equation)
    value, update = (_readable(code, v, equation) for v in (value, update))

    def fill(target: Stored, block: Block) -> None:
        code.fill(target, value, block)
        most = [n - m for n, m in zip(shape, update.shape, strict=True)]
        begin = [_inside(s, (), m, block) for s, m in zip(starts, most, strict=True)]
        with block.loops(update.shape) as index:
            place = tuple(b + i for b, i in zip(begin, index, strict=True))
            block.add(f"{target.at(place, block)} = {update.at(index, block)};")

    return [Filled(shape, kind, 1, fill)]


# --- sums ------------------------------------------------------------------------------------------------------------

REDUCTIONS = {
    "reduce_sum": ("{0} += {1};", 0.0),
    "reduce_prod": ("{0} *= {1};", 1.0),
    "reduce_max": ("{0} = maximum({0}, {1});", -np.inf),
    "reduce_min": ("{0} = minimum({0}, {1});", np.inf),
    "reduce_and": ("{0} = {0} && {1};", 1),
    "reduce_or": ("{0} = {0} || {1};", 0),
}


@rule(*REDUCTIONS)
def _reduce(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    (shape, kind), axes = _out(equation), equation.params["axes"]
    value = _readable(code, operands[0], equation)
    line, start = REDUCTIONS[equation.name]
    if kind == "int" and "imum" in line:
        line, start = line.replace("maximum", "larger").replace("minimum", "smaller"), int(np.sign(start) * 2**31 - 1)

    def read(index: Indices, block: Block) -> str:
        def inner(along: Indices) -> Indices:
            kept, gone = iter(index), iter(along)
            return tuple(next(gone) if n in axes else next(kept) for n in range(len(value.shape)))

        first = np.asarray(start, np.float64 if kind == "real" else np.int32)
        return _summed(
            code, block, kind, [value.shape[n] for n in axes], line, first, lambda i: value.at(inner(i), block)
        )

    count = value.size // max(1, int(np.prod(shape)))
    return [Lazy(shape, kind, count * (1 + value.weight), read)]


def _summed(
    code: Code, block: Block, kind: str, shape: Sequence[int], line: str, start: Any, read: Callable[[Indices], str]
) -> str:
    """Add the loop that gathers elements into a variable; its name."""
    name = code.variable("sum")
    block.add(f"{code.type_of(kind)} {name} = {code.number(start)};")
    if 0 not in shape:
        with block.loops(shape) as index:
            block.add(line.format(name, read(index)))
    return name


@rule("cumsum")
def _cumsum(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    (shape, kind), axis = _out(equation), equation.params["axis"]
    if equation.params.get("reverse"):
        raise _refused(equation, "from the end cannot be written as C", "one from the start")
    value = _readable(code, operands[0], equation)

    def fill(target: Stored, block: Block) -> None:
        with block.loops((*shape[:axis], *shape[axis + 1 :])) as others:
            name = code.variable("sum")
            block.add(f"{code.type_of(kind)} {name} = {code.number(np.zeros((), equation.outputs[0].dtype))};")
            with block.loop(shape[axis]) as i:
                place = (*others[:axis], i, *others[axis:])
                block.add(f"{name} += {value.at(place, block)};")
                block.add(f"{target.at(place, block)} = {name};")

    return [Filled(shape, kind, 1, fill)]


@rule("dot_general")
def _dot(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    (shape, kind), sides = _out(equation), [_ready(code, v, equation) for v in operands]
    contracted, batched = equation.params["dimension_numbers"]
    lengths = [sides[0].shape[n] for n in contracted[0]]
    free = [
        [n for n in range(len(v.shape)) if n not in contracted[i] and n not in batched[i]] for i, v in enumerate(sides)
    ]
    batch = len(batched[0])

    def inner(side: int, index: Indices, along: Indices) -> Indices:
        """Where an operand is read for an element of the product."""
        begin = batch if side == 0 else batch + len(free[0])
        where: dict[int, Index] = dict(zip(contracted[side], along, strict=True))
        where |= dict(zip(batched[side], index[:batch], strict=True))
        where |= dict(zip(free[side], index[begin : begin + len(free[side])], strict=True))
        return tuple(where[n] for n in range(len(sides[side].shape)))

    if int(np.prod(shape)) < NARROW or not (free[0] or free[1]):  # else the last axis is a free one, not of a batch

        def read(index: Indices, block: Block) -> str:
            def product(along: Indices) -> str:
                return " * ".join(v.at(inner(i, index, along), block) for i, v in enumerate(sides))

            return _summed(code, block, kind, lengths, "{0} += {1};", np.zeros((), equation.outputs[0].dtype), product)

        return [Lazy(shape, kind, 2 * int(np.prod(lengths)), read)]

    wide = 1 if free[1] else 0  # the operand whose last free axis runs along the product's last axis
    order = [*batched[wide], *contracted[wide], *free[wide]]
    rows, scale = sides[wide], None
    if isinstance(rows, Known):
        stored = code.quantised(rows.constant, order)
        rows, scale = stored if stored else (code.table(rows.constant, order), None)
    cast = "" if scale is None else f"({code.real})"

    zero = code.number(np.zeros((), equation.outputs[0].dtype))
    count = AT_ONCE if lengths and lengths[0] >= 2 * AT_ONCE else 1
    whole = lengths[0] // count * count if lengths else 0

    def fill(target: Stored, block: Block) -> None:
        # Column by column, a few at once: the innermost loop has no sum to wait for, and compilers make vectors of it.
        def columns(outer: Indices, first: Index, rest: Indices, many: int) -> None:
            terms: list[tuple[str, Indices]] = []
            for n in range(many):
                along = (first + n, *rest) if lengths else ()
                other = sides[1 - wide].at(inner(1 - wide, (*outer, Index()), along), block)
                terms.append((f"x{code.open_loops}{n or ''}", along))
                block.add(f"const {code.type_of(kind)} {terms[-1][0]} = {unwrapped(other)};")
            with block.loop(shape[-1]) as last:
                texts = (rows.at(inner(wide, (*outer, last), along), block) for _, along in terms)
                total = " + ".join(f"{cast}{text} * {name}" for text, (name, _) in zip(texts, terms, strict=True))
                block.add(f"{target.at((*outer, last), block)} += {total};")

        with block.loops(shape[:-1]) as outer:
            with block.loop(shape[-1]) as last:
                block.add(f"{target.at((*outer, last), block)} = {zero};")
            with block.loops(lengths[1:]) as rest:
                for begin, end, many in ((0, whole or 1, count), (whole, lengths[0] if lengths else 0, 1)):
                    if begin < end:
                        with block.braces(end - begin <= many), block.loop(end - begin, many) as first:
                            columns(outer, first + begin, rest, many)
            if scale is not None:
                with block.loop(shape[-1]) as last:
                    block.add(f"{target.at((*outer, last), block)} *= {scale.at((last,), block)};")

    return [Filled(shape, kind, 2 * int(np.prod(lengths)), fill)]


def _ready(code: Code, value: Value, equation: Equation) -> Value:
    """An operand of a product: read often, so stored."""
    return code.store(value, equation.place) if value.weight or isinstance(value, (Joined, Filled)) else value


# --- loops -----------------------------------------------------------------------------------------------------------


@rule("scan")
def _scan(code: Code, equation: Equation, operands: list[Value]) -> list[Value]:
    """A loop of known length: what it carries lies in arrays, and every round writes its row of the outputs."""
    params, body = equation.params, equation.body
    assert body is not None
    consts, carried = int(params["num_consts"]), int(params["num_carry"])
    fixed, begun, rows = operands[:consts], operands[consts : consts + carried], operands[consts + carried :]
    fixed, rows = ([code.store(v, equation.place) for v in each] for each in (fixed, rows))
    block = Block(code)

    def room(shape: tuple[int, ...], kind: str) -> Stored:
        return code.area(Stored(shape or (1,), kind, 0, ""))

    def whole(stored: Stored, shape: tuple[int, ...]) -> Stored:
        return replace(stored, shape=shape, strides=stored.strides if shape else ())

    carry = [whole(room(v.shape, v.kind), v.shape) for v in begun]
    outputs = [whole(room(v.shape, kind_of(v.dtype)), v.shape) for v in equation.outputs[carried:]]
    for target, value in zip(carry, begun, strict=True):
        code.fill(target, code.store(value, equation.place), block)
    length = int(params["length"])
    with block.loop(length) as step:
        at = step * -1 + (length - 1) if params["reverse"] else step
        before, code.statements = code.statements, []
        inputs: list[Value] = [*fixed, *carry]
        for value in rows:
            inputs.append(_row(value, at))
        results = [code.store(v, "") for v in write(code, body, inputs)]
        # All new values before any of them is written: one may be made from the old value of another.
        kept = []
        for value in results[:carried]:
            copy = whole(room(value.shape, value.kind), value.shape)
            inner = Block(code, 0)
            code.fill(copy, value, inner)
            code.add(inner, "")
            kept.append(copy)
        for target, value in zip([*carry, *outputs], [*kept, *results[carried:]], strict=True):
            inner = Block(code, 0)
            goal = target if len(target.shape) == len(value.shape) else _row(target, at)
            assert isinstance(goal, Stored)
            code.fill(goal, value, inner)
            code.add(inner, "")
        for statement in code.statements:
            for line in statement.lines:
                block.add(line)
        code.statements = before
    code.add(block, equation.place)
    return [*carry, *outputs]


def _row(value: Value, at: Index) -> Value:
    """One row of an array."""
    if isinstance(value, Stored) and value.strides is not None:
        offset = value.offset + at * value.strides[0]
        return replace(value, shape=value.shape[1:], strides=value.strides[1:], offset=offset)
    return Lazy(value.shape[1:], value.kind, value.weight, lambda index, block: value.at((at, *index), block))
