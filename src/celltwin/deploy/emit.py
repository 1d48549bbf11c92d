"""Equations as C: values that know how to read one of their elements, and loops that store them.

A value is stored only where it pays: what is used once and cheap is written where it is used, inside the loop of its
user. Slices, transposes and broadcasts are never stored, they only read elsewhere. Stored arrays share a few work
areas, so that the stack holds what is needed at once and no more.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from celltwin.deploy.program import Constant

LETTERS = "ijklmnopq"
QUANTISED = 64  # elements of a matrix, from which on its weights may be stored as integers

HELPERS = {
    "maximum": "static REAL maximum(REAL a, REAL b) { return (a > b || a != a) ? a : b; }",
    "minimum": "static REAL minimum(REAL a, REAL b) { return (a < b || a != a) ? a : b; }",
    "larger": "static int larger(int a, int b) { return a > b ? a : b; }",
    "smaller": "static int smaller(int a, int b) { return a < b ? a : b; }",
    "within": "static int within(int a, int most) { return a < 0 ? 0 : (a > most ? most : a); }",
    "sign_of": "static REAL sign_of(REAL a) { return (a > 0) ? ONE : ((a < 0) ? -ONE : a); }",
    "square": "static REAL square(REAL a) { return a * a; }",
    "power": """static REAL power(REAL a, int n)
{
    REAL p = ONE;
    for (int i = 0; i < n; ++i) { p *= a; }
    return p;
}""",
    # Without branches, so that compilers make vectors of loops over them; within 4 units in the last place.
    "power_of_two": """/* 2^n of a whole n from -126 to 127, by its bits. */
static inline float power_of_two(float n)
{
    union { uint32_t bits; float value; } p;
    p.bits = (uint32_t)((int32_t)n + 127) << 23;
    return p.value;
}""",
    "between": """static inline float between(float low, float a, float high)
{
    const float b = a > low ? a : low;
    return b < high ? b : high;
}""",
    "exponential": """/* e^x = 2^n e^r with r from -ln(2)/2 to ln(2)/2: exact to rounding, and never less than 1e-38. */
static inline float exponential(float x)
{
    const float inside = between(-87.0f, x, 88.37f);
    const float n = (inside * 1.44269504f + 12582912.0f) - 12582912.0f;
    const float r = (inside - n * 0.693145752f) - n * 1.42860677e-6f;
    const float series = 1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666667f
        + r * (8.33333333e-3f + r * (1.38888889e-3f + r * 1.98412698e-4f))))));
    const float y = series * power_of_two(n);
    const float far = x > 88.7f ? INFINITY : y;
    return x == x ? far : x;
}""",
    "exponential_less_one": """/* e^x - 1 likewise, exact near x = 0 too. */
static inline float exponential_less_one(float x)
{
    const float inside = between(-87.0f, x, 88.37f);
    const float n = (inside * 1.44269504f + 12582912.0f) - 12582912.0f;
    const float r = (inside - n * 0.693145752f) - n * 1.42860677e-6f;
    const float series = r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666667f
        + r * (8.33333333e-3f + r * (1.38888889e-3f + r * 1.98412698e-4f))))));
    const float scale = power_of_two(n);
    const float y = scale * series + (scale - 1.0f);
    const float far = x > 88.7f ? INFINITY : y;
    return x == x ? far : x;
}""",
    "hyperbolic_tangent": """static inline float hyperbolic_tangent(float x)
{
    const float e = exponential_less_one(-2.0f * fabsf(x));
    const float y = -e / (e + 2.0f);
    return x < 0.0f ? -y : y;
}""",
    "logarithm_of_one_more": """/* ln(1 + x): the logarithm of what 1 + x is rounded to, and what the rounding left. */
static inline float logarithm_of_one_more(float x)
{
    const float u = 1.0f + x;
    union { float value; uint32_t bits; } m;
    m.value = between(1.0e-8f, u, 3.4e38f);
    const int32_t n = (int32_t)(m.bits - 0x3f3504f3u) >> 23;
    m.bits -= (uint32_t)n << 23;
    const float f = m.value - 1.0f;
    const float s = f / (2.0f + f);
    const float z = s * s;
    const float series = 2.0f * s * (1.0f + z * (0.333333333f + z * (0.2f + z * (0.142857143f + z * 0.111111111f))));
    const float y = ((float)n * 0.693147181f + series) + (x - (u - 1.0f)) / u;
    const float low = u > 0.0f ? y : (u < 0.0f ? NAN : -INFINITY);
    return x < 3.4e38f ? low : x;
}""",
    "logistic": """static inline REAL logistic(REAL x) { return ONE / (ONE + EXP(-x)); }""",
}
QUICK = {  # functions of math.h in single precision, and what takes their place
    "exp": "exponential",
    "expm1": "exponential_less_one",
    "tanh": "hyperbolic_tangent",
    "log1p": "logarithm_of_one_more",
}
HELPER = re.compile(r"\b(" + "|".join(HELPERS) + r")\(")
AREA = re.compile(r"@(\d+)@")


@dataclass(frozen=True)
class Index:
    """A sum of loop variables times whole numbers, and a whole number."""

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    def __add__(self, other: Index | int) -> Index:
        other = other if isinstance(other, Index) else Index(other)
        terms = dict(self.terms)
        for name, factor in other.terms:
            terms[name] = terms.get(name, 0) + factor
        return Index(self.constant + other.constant, tuple((n, f) for n, f in terms.items() if f))

    def __mul__(self, factor: int) -> Index:
        return Index(self.constant * factor, tuple((n, f * factor) for n, f in self.terms if factor))

    def __str__(self) -> str:
        parts = [(name if f == 1 else f"{f} * {name}") for name, f in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("+ -", "- ")


Indices = tuple[Index, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """An array of `kind` real or int. `weight`: operations that reading one element takes, 0 of what lies somewhere."""

    shape: tuple[int, ...]
    kind: str
    weight: int

    def at(self, index: Indices, block: Block) -> str:
        """The C expression of one element; `block` takes what must be said before it."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True, eq=False)
class Stored(Value):
    """Elements of an array or struct member, `strides` apart; without strides one plain variable."""

    name: str
    strides: tuple[int, ...] | None = None
    offset: Index = Index()

    def at(self, index: Indices, block: Block) -> str:
        return self.name if self.strides is None else f"{self.name}[{self.place(index)}]"

    def place(self, index: Indices) -> Index:
        assert self.strides is not None
        total = self.offset
        for i, stride in zip(index, self.strides, strict=True):
            total = total + i * stride
        return total

    @property
    def contiguous(self) -> bool:
        return self.strides is not None and all(
            n == 1 or s == t for n, s, t in zip(self.shape, self.strides, strides_of(self.shape), strict=True)
        )


@dataclass(frozen=True, eq=False)
class Known(Value):
    """A constant: a number where its place is known or all are alike, else an element of a table."""

    constant: Constant

    def at(self, index: Indices, block: Block) -> str:
        value = self.constant.value
        if value.size == 1 or (value == value.flat[0]).all():
            return block.code.number(value.flat[0])
        if not any(i.terms for i in index):
            return block.code.number(value[tuple(i.constant for i in index)])
        return block.code.table(self.constant).at(index, block)


@dataclass(frozen=True, eq=False)
class Lazy(Value):
    """An element worked out where it is read."""

    read: Callable[[Indices, Block], str]

    def at(self, index: Indices, block: Block) -> str:
        return self.read(index, block)


@dataclass(frozen=True, eq=False)
class Filled(Value):
    """An array that must be stored as a whole: `fill` writes it."""

    fill: Callable[[Stored, Block], None]


@dataclass(frozen=True, eq=False)
class Joined(Value):
    """Pieces one after the other along an axis."""

    axis: int
    pieces: tuple[Value, ...]

    def at(self, index: Indices, block: Block) -> str:
        place = index[self.axis]
        assert not place.terms, "a joined value is stored before it is read in a loop"
        begin = place.constant
        for piece in self.pieces:
            if begin < piece.shape[self.axis]:
                return piece.at((*index[: self.axis], Index(begin), *index[self.axis + 1 :]), block)
            begin -= piece.shape[self.axis]
        raise IndexError(place)

    def ends(self) -> list[int]:
        """Where its pieces end."""
        return list(itertools.accumulate(piece.shape[self.axis] for piece in self.pieces))

    def within(self, start: int, stop: int) -> tuple[Value, int] | None:
        """The piece that holds all from start to stop, and where it begins."""
        begin = 0
        for piece in self.pieces:
            end = begin + piece.shape[self.axis]
            if begin <= start and stop <= end:
                return piece, begin
            begin = end
        return None


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


class Block:
    """Lines of C at one depth of nesting."""

    def __init__(self, code: Code, depth: int = 1) -> None:
        self.code, self.depth, self.lines = code, depth, []

    def add(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    @contextmanager
    def loop(self, count: int, step: int = 1) -> Iterator[Index]:
        """Around what is added meanwhile; no loop is written for one round."""
        if count <= step:
            yield Index()
            return
        name = self.code.letter()
        forward = f"++{name}" if step == 1 else f"{name} += {step}"
        self.add(f"for (int {name} = 0; {name} < {count}; {forward}) {{")
        self.depth += 1
        self.code.open_loops += 1
        yield Index(0, ((name, 1),))
        self.code.open_loops -= 1
        self.depth -= 1
        self.add("}")

    @contextmanager
    def braces(self, wanted: bool) -> Iterator[None]:
        """A block of its own around what is added meanwhile, where it is wanted."""
        if not wanted:
            yield
            return
        self.add("{")
        self.depth += 1
        yield
        self.depth -= 1
        self.add("}")

    @contextmanager
    def loops(self, shape: Sequence[int]) -> Iterator[Indices]:
        """Nested loops over all elements of a shape."""
        if not shape:
            yield ()
            return
        with self.loop(shape[0]) as first, self.loops(shape[1:]) as rest:
            yield (first, *rest)


@dataclass
class Statement:
    """Lines that belong together, and where in the source they come from."""

    lines: list[str]
    place: str

    def areas(self) -> set[int]:
        return {int(n) for line in self.lines for n in AREA.findall(line)}


@dataclass
class Code:
    """What is written so far of the functions of one file."""

    precision: str = "single"  # or double
    weights: str = "real"  # or int16, int8: how matrices are stored
    tables: dict[Any, tuple[str, np.ndarray, str]] = field(default_factory=dict)  # name, elements, C type
    taken: set[str] = field(default_factory=set)
    statements: list[Statement] = field(default_factory=list)
    areas: dict[int, tuple[int, str]] = field(default_factory=dict)  # size and kind of arrays that are stored
    scalars: int = 0
    open_loops: int = 0

    # --- names and numbers -----------------------------------------------------------------------------------------

    @property
    def real(self) -> str:
        return {"single": "float", "double": "double"}[self.precision]

    def type_of(self, kind: str) -> str:
        return self.real if kind == "real" else "int"

    def letter(self) -> str:
        return LETTERS[self.open_loops]

    def function(self, name: str) -> str:
        """A function of math.h in this precision, or what takes its place."""
        return QUICK.get(name, f"{name}f") if self.precision == "single" else name

    def number(self, value: Any) -> str:
        """A number as C takes it: the shortest text that reads back the same."""
        value = np.asarray(value)
        if value.dtype.kind != "f":
            return str(int(value))
        value = value.astype(np.float32 if self.precision == "single" else np.float64)[()]
        if np.isnan(value):
            return "NAN" if self.precision == "single" else "(double)NAN"
        if np.isinf(value):
            return ("-" if value < 0 else "") + ("INFINITY" if self.precision == "single" else "(double)INFINITY")
        text = np.format_float_scientific(value, trim="0", exp_digits=1)
        plain = np.format_float_positional(value, trim="0")
        text = plain if len(plain) <= len(text) + 2 else text
        text += "f" if self.precision == "single" else ""
        return f"({text})" if text.startswith("-") else text

    def named(self, wish: str) -> str:
        """A name like the one that is wished for, taken by nobody else."""
        wish = re.sub(r"\W", "_", wish) or "table"
        name, number = wish, 2
        while name in self.taken:
            name, number = f"{wish}_{number}", number + 1
        self.taken.add(name)
        return name

    def table(self, constant: Constant, order: Sequence[int] | None = None) -> Stored:
        """A constant as a table, its axes in another order where one is given."""
        order = tuple(order or range(len(constant.shape)))
        key = (constant.value.tobytes(), constant.shape, str(constant.dtype), order)
        if key not in self.tables:
            values = constant.value.transpose(order)
            kind = self.real if values.dtype.kind == "f" else "int"
            self.tables[key] = (self.named(constant.name or "table"), values, kind)
        name, values, _ = self.tables[key]
        strides = [0] * len(order)
        for axis, stride in zip(order, strides_of(values.shape), strict=True):
            strides[axis] = stride
        return Stored(constant.shape, kind_of(constant.dtype), 0, name, tuple(strides))

    def quantised(self, constant: Constant, order: Sequence[int]) -> tuple[Stored, Stored] | None:
        """A matrix as integers and the scales of its last axis; None where weights are stored as they are."""
        if self.weights == "real" or constant.value.size < QUANTISED or constant.dtype.kind != "f":
            return None
        values = constant.value.transpose(order)
        most = {"int8": 127, "int16": 32767}[self.weights]
        scale = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0) / most
        scale = np.where(scale > 0, scale, 1.0).astype(values.dtype)
        whole = np.round(values / scale).astype(np.int32)
        named = Constant(whole.transpose(np.argsort(order)), constant.name or "weights")
        stored = self.table(named, order)
        key = next(k for k, v in self.tables.items() if v[0] == stored.name)
        self.tables[key] = (stored.name, whole, f"{self.weights}_t")
        return stored, self.table(Constant(scale, f"{stored.name}_scale"))

    # --- storing ---------------------------------------------------------------------------------------------------

    def add(self, block: Block, place: str) -> None:
        if block.lines:
            self.statements.append(Statement(block.lines, place))

    def area(self, value: Value) -> Stored:
        """Room for an array."""
        if not value.size:
            return Stored(value.shape, value.kind, 0, "", strides_of(value.shape))
        number = len(self.areas)
        self.areas[number] = (value.size, value.kind)
        return Stored(value.shape, value.kind, 0, f"@{number}@", strides_of(value.shape))

    def store(self, value: Value, place: str) -> Value:
        """The value, worked out once: a variable or an array."""
        if isinstance(value, (Stored, Known)):
            return value
        block = Block(self)
        if value.size == 1 and not isinstance(value, Filled):
            text = value.at((Index(),) * len(value.shape), block)
            if not re.fullmatch(r"\w+", text):
                name = self.variable()
                block.add(f"const {self.type_of(value.kind)} {name} = {unwrapped(text)};")
                text = name
            self.add(block, place)
            return Stored(value.shape, value.kind, 0, text)
        target = self.area(value)
        self.fill(target, value, block)
        self.add(block, place)
        return target

    def copied(self, value: Value) -> Stored:
        """The value in a variable or array of its own."""
        block = Block(self)
        if value.size > 1 or isinstance(value, Filled):
            target = self.area(value)
            self.fill(target, value, block)
        else:
            target = Stored(value.shape, value.kind, 0, self.variable())
            text = unwrapped(value.at((Index(),) * len(value.shape), block))
            block.add(f"const {self.type_of(value.kind)} {target.name} = {text};")
        self.add(block, "")
        return target

    def variable(self, kind: str = "v") -> str:
        """A name for the next local variable."""
        self.scalars += 1
        return f"{kind}{self.scalars - 1}"

    def fill(self, target: Stored, value: Value, block: Block) -> None:
        """Write every element of a value."""
        if not value.size:
            return
        if isinstance(value, Filled):
            value.fill(target, block)
        elif isinstance(value, Joined):
            begin = 0
            for piece in value.pieces:
                self.fill(part(target, value.axis, begin, piece.shape[value.axis]), piece, block)
                begin += piece.shape[value.axis]
        else:
            with block.loops(value.shape) as index:
                block.add(f"{target.at(index, block)} = {unwrapped(value.at(index, block))};")

    # --- areas -----------------------------------------------------------------------------------------------------

    def body(self) -> list[str]:
        """The lines of the function: statements with their arrays dealt out to work areas, and these declared."""
        last: dict[int, int] = {}
        for at, statement in enumerate(self.statements):
            last.update(dict.fromkeys(statement.areas(), at))
        rooms: list[tuple[int, str]] = []  # size, kind
        free: list[int] = []
        held: dict[int, int] = {}
        for at, statement in enumerate(self.statements):
            for number in sorted(statement.areas() - held.keys()):
                size, kind = self.areas[number]
                held[number] = _room(rooms, free, size, kind)
            free += [held[n] for n in statement.areas() if last[n] == at]
        lines = [f"    {self.type_of(kind)} w{i}[{size}];" for i, (size, kind) in enumerate(rooms)]
        place = ""
        for statement in self.statements:
            if statement.place and statement.place != place:
                place = statement.place
                lines += ["", f"    /* {place} */"]
            lines += [AREA.sub(lambda m: f"w{held[int(m[1])]}", line) for line in statement.lines]
        self.statements, self.areas, self.scalars = [], {}, 0
        return lines


def _room(rooms: list[tuple[int, str]], free: list[int], size: int, kind: str) -> int:
    """A free work area that is large enough, the smallest such; else the largest free one, larger; else a new one."""
    fitting = [i for i in free if rooms[i][1] == kind]
    enough = [i for i in fitting if rooms[i][0] >= size]
    if not fitting:
        rooms.append((size, kind))
        return len(rooms) - 1
    chosen = min(enough, key=lambda i: rooms[i][0]) if enough else max(fitting, key=lambda i: rooms[i][0])
    rooms[chosen] = (max(rooms[chosen][0], size), kind)
    free.remove(chosen)
    return chosen


def part(stored: Stored, axis: int, begin: int, count: int) -> Stored:
    """A stretch of a stored array along an axis."""
    assert stored.strides is not None
    shape = (*stored.shape[:axis], count, *stored.shape[axis + 1 :])
    return replace(stored, shape=shape, offset=stored.offset + Index(begin * stored.strides[axis]))


def unwrapped(text: str) -> str:
    """Without the brackets around the whole."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1]


def kind_of(dtype: Any) -> str:
    return "real" if np.dtype(dtype).kind == "f" else "int"
