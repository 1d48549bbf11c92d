"""One small rule for each primitive: from the tensors of its operands to its own, in ONNX.

A twin's programs know no batch: they take scalars and small arrays. In ONNX every tensor that depends on an input gets
the batch as its leading axis, and constants have none, so that one graph serves any number of cells at once:

    program: [n]  ->  graph: [batch, n]        constant: [n]  ->  initializer: [n]

The rules keep to that; broadcasting does most of it. A primitive without a rule is refused by name; `rule` makes one
known, for a model that is written elsewhere as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from celltwin.deploy.program import Constant, Equation, Program
from celltwin.errors import CelltwinError


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph, its shape without the batch; or an array that is known beforehand, without a batch."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    name: str = ""
    known: np.ndarray | None = None
    wish: str = ""  # for a name, of what is known

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


def known(value: Any, wish: str = "") -> Tensor:
    value = np.asarray(value)
    return Tensor(value.shape, value.dtype, known=value, wish=wish)


@dataclass
class Graph:
    """Nodes in order. Initializers and the count of names are shared with the graphs inside."""

    nodes: list[Any] = field(default_factory=list)
    initializers: dict[Any, Any] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    like: Tensor | None = None  # a tensor that has the batch
    place: str = ""  # in the source, of what is added now
    _batch: str = ""

    def inside(self, like: Tensor) -> Graph:
        """A graph for the body of a loop, in which `like` has the batch."""
        return Graph([], self.initializers, self.taken, like, self.place)

    def named(self, wish: str) -> str:
        name, number = wish, 2
        while name in self.taken:
            name, number = f"{wish}_{number}", number + 1
        self.taken.add(name)
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output; its name."""
        return self.ops(kind, inputs, [self.named(kind.lower())], **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> list[str]:
        """Add a node that gives these outputs."""
        from onnx import helper

        name = self.named(f"{self.place}: {kind}" if self.place else kind)
        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), name=name, **attributes))
        return list(outputs)

    def constant(self, value: Any, wish: str = "") -> str:
        """The name of an initializer; equal ones are held once."""
        from onnx import numpy_helper

        value = np.asarray(value)
        key = (value.tobytes(), value.shape, str(value.dtype))
        if key not in self.initializers:
            self.initializers[key] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape))
            self.initializers[key].name = self.named(wish or "constant")
        return self.initializers[key].name

    def whole(self, *numbers: int) -> str:
        """Whole numbers as ONNX takes shapes and axes."""
        return self.constant(np.asarray(numbers, np.int64), "numbers")

    def plain(self, tensor: Tensor) -> str:
        """The name of a tensor as it is, without a batch where it has none."""
        return tensor.name if tensor.known is None else self.constant(tensor.known, tensor.wish)

    def batched(self, tensor: Tensor) -> str:
        """The name of a tensor that has the batch; what is known is repeated."""
        if tensor.known is None:
            return tensor.name
        if not self._batch:
            assert self.like is not None, "a graph has an input"
            self._batch = self.op("Shape", self.like.name, start=0, end=1)
        shape = self._batch
        if tensor.shape:
            shape = self.op("Concat", self._batch, self.whole(*tensor.shape), axis=0)
        return self.op("Expand", self.constant(tensor.known, tensor.wish), shape)

    def shaped(self, tensor: Tensor, shape: Sequence[int]) -> str:
        """The name of a tensor, its shape without the batch changed to this one."""
        if tensor.known is not None:
            return self.constant(tensor.known.reshape(shape), tensor.wish)
        if tensor.shape == tuple(shape):
            return tensor.name
        return self.op("Reshape", tensor.name, self.whole(-1, *shape))


Rule = Callable[[Graph, Equation, list[Tensor]], str]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Make a rule known for the primitives of these names: it adds nodes and gives the name of the result."""

    def known(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return known


def write(graph: Graph, program: Program, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Add the nodes of a program, its inputs being these tensors; its outputs."""
    found: dict[int, Tensor] = {id(v): t for v, t in zip(program.inputs, inputs, strict=True)}

    def read(atom: Any) -> Tensor:
        return known(atom.value, atom.name) if isinstance(atom, Constant) else found[id(atom)]

    for equation in program.equations:
        tensors = apply(graph, equation, [read(a) for a in equation.inputs])
        found.update(zip(map(id, equation.outputs), tensors, strict=True))
    return [read(a) for a in program.outputs]


def apply(graph: Graph, equation: Equation, operands: list[Tensor]) -> list[Tensor]:
    """The tensors of an equation's outputs. Raises CelltwinError where its primitive has no rule."""
    graph.place = equation.place
    if equation.name == "scan":
        return _scan(graph, equation, operands)
    if all(t.known is not None for t in operands) or not _size(equation.outputs[0]):
        return [known(np.asarray(a)) for a in _evaluated(equation, operands)]
    if equation.name in ("reduce_sum", "dot_general") and not all(t.size for t in operands):
        return [known(np.zeros(v.shape, v.dtype)) for v in equation.outputs]
    if equation.name not in RULES:
        raise refused(equation, "is no operation that can be written as ONNX", ", ".join(sorted(RULES)))
    (output,) = equation.outputs
    return [Tensor(output.shape, output.dtype, RULES[equation.name](graph, equation, operands))]


def _size(var: Any) -> int:
    return int(np.prod(var.shape))


def _evaluated(equation: Equation, operands: list[Tensor]) -> list[Any]:
    import jax
    import jax.numpy as jnp

    values = [t.known if t.known is not None else np.zeros(t.shape, t.dtype) for t in operands]
    with jax.enable_x64(any(v.dtype.itemsize == 8 for v in (*values, *equation.outputs))):
        result = equation.primitive.bind(*map(jnp.asarray, values), **equation.params)
    return list(result) if equation.primitive.multiple_results else [result]


def refused(equation: Equation, what: str, expected: str) -> CelltwinError:
    return CelltwinError(
        f"'{equation.name}' {what}",
        got=f"it in {equation.place or 'the model'}",
        expected=expected,
        fix="write the step with other operations, or give celltwin.deploy.onnx_rules a rule for it",
    )


# --- element by element ----------------------------------------------------------------------------------------------

OPERATORS = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg", "eq": "Equal",
    "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "max": "Max", "min": "Min",
    "abs": "Abs", "sign": "Sign", "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid",
    "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh",
    "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "floor": "Floor", "ceil": "Ceil",
    "pow": "Pow", "erf": "Erf",
}  # fmt: skip
LOGICAL = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}


def _aligned(graph: Graph, equation: Equation, operands: list[Tensor]) -> list[str]:
    """Operands that broadcast against each other: scalars of a batch become [batch, 1, ...] beside arrays."""
    rank = len(equation.outputs[0].shape)
    return [
        graph.plain(t) if t.known is not None or len(t.shape) == rank else graph.shaped(t, (1,) * rank)
        for t in operands
    ]


@rule(*OPERATORS)
def _operator(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    return graph.op(OPERATORS[equation.name], *_aligned(graph, equation, operands))


@rule(*LOGICAL)
def _logical(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    if equation.outputs[0].dtype != np.bool_:
        raise refused(equation, "of whole numbers is no operation that can be written as ONNX", "one of truth values")
    return graph.op(LOGICAL[equation.name], *_aligned(graph, equation, operands))


@rule("ne")
def _unequal(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    return graph.op("Not", graph.op("Equal", *_aligned(graph, equation, operands)))


@rule("select_n")
def _select(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    if len(operands) != 3 or operands[0].dtype != np.bool_:
        raise refused(equation, "of more than two cases cannot be written as ONNX", "two cases")
    which, no, yes = _aligned(graph, equation, operands)
    return graph.op("Where", which, yes, no)


@rule("clamp")
def _clamp(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    low, value, high = _aligned(graph, equation, operands)
    return graph.op("Min", graph.op("Max", value, low), high)


@rule("is_finite")
def _is_finite(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    (dtype,) = {t.dtype for t in operands}
    return graph.op("LessOrEqual", graph.op("Abs", operands[0].name), graph.constant(np.finfo(dtype).max, "largest"))


@rule("convert_element_type")
def _convert(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    return graph.op("Cast", operands[0].name, to=element_type(equation.outputs[0].dtype))


def element_type(dtype: Any) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


@rule("square", "integer_pow", "rsqrt", "exp2", "log1p", "expm1", "rem", "round")
def _function(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    """Functions that ONNX says with others."""
    op, x = graph.op, _aligned(graph, equation, operands)[0]
    dtype = operands[0].dtype

    def number(value: float) -> str:
        return graph.constant(np.asarray(value, dtype), "number")

    match equation.name:
        case "square":
            return op("Mul", x, x)
        case "integer_pow":
            power = equation.params["y"]
            raised = op("Mul", x, x) if abs(power) == 2 else op("Pow", x, number(abs(power)))
            return op("Reciprocal", raised) if power < 0 else raised
        case "rsqrt":
            return op("Reciprocal", op("Sqrt", x))
        case "exp2":
            return op("Exp", op("Mul", x, number(np.log(2.0))))
        case "log1p":  # log(u) x / (u - 1) with the rounded u = 1 + x: Kahan's way to keep the digits of a small x
            u = op("Add", x, number(1.0))
            less = op("Sub", u, number(1.0))
            small = op("Equal", less, number(0.0))
            scaled = op("Mul", op("Log", u), op("Div", x, op("Where", small, number(1.0), less)))
            return op(
                "Where", op("Or", small, op("Greater", x, number(1e6))), op("Where", small, x, op("Log", u)), scaled
            )
        case "expm1":  # 2 tanh(x / 2) / (1 - tanh(x / 2)) near zero, where exp(x) - 1 would lose the digits
            half = op("Tanh", op("Mul", x, number(0.5)))
            near = op("Div", op("Add", half, half), op("Sub", number(1.0), half))
            return op("Where", op("Less", op("Abs", x), number(1.0)), near, op("Sub", op("Exp", x), number(1.0)))
        case "rem":
            return op("Mod", *_aligned(graph, equation, operands), fmod=1)
        case _:
            if int(equation.params["rounding_method"]) != 1:
                raise refused(equation, "away from zero cannot be written as ONNX", "rounding to the nearest even")
            return op("Round", x)


# --- views -----------------------------------------------------------------------------------------------------------


@rule("reshape", "squeeze", "expand_dims")
def _reshape(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    return graph.shaped(operands[0], equation.outputs[0].shape)


@rule("broadcast_in_dim")
def _broadcast(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    shape, (value,) = equation.outputs[0].shape, operands[:1]
    thin = [1] * len(shape)
    for axis, size in zip(equation.params["broadcast_dimensions"], value.shape, strict=True):
        thin[axis] = size
    name = graph.shaped(value, thin)
    return name if tuple(thin) == tuple(shape) else graph.op("Expand", name, graph.whole(1, *shape))


@rule("transpose")
def _transpose(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    return graph.op("Transpose", operands[0].name, perm=[0, *(int(n) + 1 for n in equation.params["permutation"])])


@rule("slice")
def _slice(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    start, stop = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(start)
    shape = operands[0].shape
    cut = [n for n, size in enumerate(shape) if (start[n], stop[n], strides[n]) != (0, size, 1)]
    if not cut:
        return operands[0].name
    where = ([start[n] for n in cut], [stop[n] for n in cut], [n + 1 for n in cut], [strides[n] for n in cut])
    return graph.op("Slice", operands[0].name, *(graph.whole(*map(int, numbers)) for numbers in where))


@rule("concatenate", "stack")
def _concatenate(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    axis = equation.params["axis" if equation.name == "stack" else "dimension"]

    def piece(tensor: Tensor) -> str:
        shape = (*tensor.shape[:axis], 1, *tensor.shape[axis:]) if equation.name == "stack" else tensor.shape
        if tensor.known is not None:
            return graph.batched(known(tensor.known.reshape(shape), tensor.wish))
        return graph.shaped(tensor, shape)

    return graph.op("Concat", *(piece(t) for t in operands if t.size), axis=axis + 1)


@rule("rev", "tile", "pad", "scatter", "gather", "dynamic_slice", "dynamic_update_slice")
def _moved(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    """Elements that change places: the primitive itself, run on their numbers, tells which goes where."""
    name = equation.name
    places = {"scatter": (1,), "gather": (1,), "dynamic_slice": range(1, 9), "dynamic_update_slice": range(2, 9)}
    where = [t for n, t in enumerate(operands) if n in places.get(name, ())]
    data = [t for n, t in enumerate(operands) if n not in places.get(name, ())]
    if any(t.known is None for t in where):
        return _picked(graph, equation, operands)
    values, begin = [], 0
    for n, tensor in enumerate(operands):
        if n in places.get(name, ()):
            values.append(tensor)
        else:
            values.append(known(np.arange(begin, begin + tensor.size, dtype=np.int32).reshape(tensor.shape)))
            begin += tensor.size
    source = np.asarray(_evaluated(equation, values)[0])
    if source.min() < 0 or source.max() >= begin:
        raise refused(equation, "beyond the end cannot be written as ONNX", "places that there are")
    flat = [
        graph.batched(known(t.known.ravel(), t.wish)) if t.known is not None else graph.shaped(t, (t.size,))
        for t in data
        if t.size
    ]
    whole = graph.op("Concat", *flat, axis=1) if len(flat) > 1 else flat[0]
    moved = graph.op("Gather", whole, graph.constant(source.ravel().astype(np.int64), "places"), axis=1)
    return graph.shaped(Tensor((source.size,), data[0].dtype, moved), source.shape)


def _picked(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    """Rows of the first axis at places that are only known when it runs, kept within the array."""
    value, where, *more = operands
    if equation.name == "gather":
        numbers, lead = equation.params["dimension_numbers"], len(where.shape) - 1
        rows = (
            tuple(numbers.collapsed_slice_dims) == tuple(numbers.start_index_map) == (0,)
            and tuple(numbers.offset_dims) == tuple(range(lead, len(equation.outputs[0].shape)))
            and tuple(equation.params["slice_sizes"]) == (1, *value.shape[1:])
        )
        most, count = value.shape[0] - 1, int(np.prod(where.shape))
        index = graph.shaped(where, (count, 1))
    else:
        length = equation.outputs[0].shape[0]
        zero = all(t.known is not None and not t.known.any() for t in more)
        rows = equation.name == "dynamic_slice" and equation.outputs[0].shape[1:] == value.shape[1:] and zero
        most, count = value.shape[0] - length, length
        index = graph.shaped(where, (1, 1))
    if not rows:
        raise refused(equation, "of more than whole rows cannot be written as ONNX", "rows of the first axis")
    number = lambda n: graph.constant(np.asarray(n, where.dtype), "row")  # noqa: E731
    index = graph.op("Max", graph.op("Min", index, number(most)), number(0))
    if equation.name == "dynamic_slice":
        index = graph.op("Add", index, graph.constant(np.arange(count, dtype=where.dtype)[None, :, None], "rows"))
    index = graph.op("Cast", index, to=element_type(np.int64))
    picked = graph.op("GatherND", graph.batched(value), index, batch_dims=1)
    return graph.shaped(Tensor((count, *value.shape[1:]), value.dtype, picked), equation.outputs[0].shape)


@rule("scatter-add")
def _scatter_add(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    """To known places: a product with the matrix of ones and zeros that carries each update to its place."""
    value, where, update = operands
    if where.known is None:
        raise refused(equation, "to places that are not known beforehand cannot be written as ONNX", "constant places")
    zero, ones = np.zeros(value.shape, value.dtype), np.eye(update.size, dtype=value.dtype)
    rows = [_evaluated(equation, [known(zero), where, known(one.reshape(update.shape))])[0] for one in ones]
    matrix = np.stack([np.asarray(row).ravel() for row in rows])
    carried = graph.op("MatMul", graph.shaped(update, (update.size,)), graph.constant(matrix, "carry"))
    carried = graph.shaped(Tensor((value.size,), value.dtype, carried), value.shape)
    return graph.op("Add", graph.plain(value), carried)


# --- sums ------------------------------------------------------------------------------------------------------------

REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_prod": "ReduceProd", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_and": "ReduceMin", "reduce_or": "ReduceMax",
}  # fmt: skip


@rule(*REDUCTIONS)
def _reduce(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    logical, name = operands[0].dtype == np.bool_, operands[0].name
    if logical:
        name = graph.op("Cast", name, to=element_type(np.int32))
    axes = graph.whole(*(int(n) + 1 for n in equation.params["axes"]))
    name = graph.op(REDUCTIONS[equation.name], name, axes, keepdims=0)
    return graph.op("Cast", name, to=element_type(np.bool_)) if logical else name


@rule("cumsum")
def _cumsum(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    axis = graph.constant(np.asarray(equation.params["axis"] + 1, np.int64), "axis")
    return graph.op("CumSum", operands[0].name, axis, reverse=int(bool(equation.params.get("reverse"))))


@rule("dot_general")
def _dot(graph: Graph, equation: Equation, operands: list[Tensor]) -> str:
    """A product of matrices [together, rows, inner] x [together, inner, columns], what has a batch on the left."""
    shape, numbers = equation.outputs[0].shape, zip(*equation.params["dimension_numbers"], strict=True)
    sides = [(tensor, list(inner), list(both)) for tensor, (inner, both) in zip(operands, numbers, strict=True)]
    swapped = operands[0].known is not None
    (left, left_inner, left_both), (right, right_inner, right_both) = sides[::-1] if swapped else sides
    rows = [n for n in range(len(left.shape)) if n not in left_inner + left_both]
    columns = [n for n in range(len(right.shape)) if n not in right_inner + right_both]

    def many(tensor: Tensor, axes: list[int]) -> int:
        return int(np.prod([tensor.shape[n] for n in axes]))

    together = [many(left, left_both)] if left_both else []
    inner, height, width = many(left, left_inner), many(left, rows), many(right, columns)
    # A vector times a constant matrix needs no axis of its own: the batch is its rows.
    vector = not together and height == 1 and right.known is not None
    a = _arranged(graph, left, [*left_both, *rows, *left_inner], [inner] if vector else [*together, height, inner])
    b = _arranged(graph, right, [*right_both, *right_inner, *columns], [*together, inner, width])
    product = graph.op("MatMul", a, b)
    made = [width] if vector else [*together, height, width]
    if swapped and height > 1 and width > 1:
        rank = len(made)
        product = graph.op("Transpose", product, perm=[*range(rank - 1), rank, rank - 1])
        made = [*together, width, height]
    return graph.shaped(Tensor(tuple(made), left.dtype, product), shape)


def _arranged(graph: Graph, tensor: Tensor, order: list[int], shape: list[int]) -> str:
    """A tensor with its axes in another order, then reshaped."""
    if tensor.known is not None:
        return graph.constant(tensor.known.transpose(order).reshape(shape), tensor.wish)
    name = tensor.name
    if order != sorted(order):
        name = graph.op("Transpose", name, perm=[0, *(n + 1 for n in order)])
    return graph.shaped(Tensor(tuple(tensor.shape[n] for n in order), tensor.dtype, name), shape)


# --- loops -----------------------------------------------------------------------------------------------------------


def _scan(graph: Graph, equation: Equation, operands: list[Tensor]) -> list[Tensor]:
    params, body = equation.params, equation.body
    assert body is not None
    consts, carried = int(params["num_consts"]), int(params["num_carry"])
    fixed, begun, rows = operands[:consts], operands[consts : consts + carried], operands[consts + carried :]

    def inner(graph: Graph, state: list[Tensor], sample: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        # What does not change is not handed over: a body sees the tensors around it.
        outputs = write(graph, body, [*fixed, *state, *(sample if rows else [])])
        return outputs[:carried], outputs[carried:]

    direction = int(bool(params["reverse"]))
    counted = rows or [known(np.zeros(int(params["length"]), np.float32))]  # a Scan counts by what it reads
    outputs = loop(graph, inner, begun, counted, [v.shape[1:] for v in equation.outputs[carried:]], direction)
    return [Tensor(v.shape, v.dtype, t) for v, t in zip(equation.outputs, outputs, strict=True)]


Body = Callable[[Graph, list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]


def loop(
    graph: Graph, body: Body, state: list[Tensor], rows: list[Tensor], said: list[Any], direction: int = 0
) -> list[str]:
    """A Scan over the first axis after the batch of `rows`; names of the last state and of what each round said.

    `said` are shapes, of one round and without the batch.
    """
    from onnx import helper

    def info(name: str, tensor: Tensor, shape: Sequence[int]) -> Any:
        return helper.make_tensor_value_info(name, element_type(tensor.dtype), ["batch", *shape])

    begun = [graph.batched(t) for t in state]
    read = [graph.batched(t) for t in rows]
    before = [Tensor(t.shape, t.dtype, graph.named("before")) for t in state]
    sample = [Tensor(t.shape[1:], t.dtype, graph.named("sample")) for t in rows]
    within = graph.inside((before + sample)[0])
    after, outputs = body(within, before, sample)
    named = [Tensor(t.shape, t.dtype, within.op("Identity", within.batched(t))) for t in [*after, *outputs]]
    inner = helper.make_graph(
        within.nodes,
        graph.named("step"),
        [info(t.name, t, t.shape) for t in [*before, *sample]],
        [info(t.name, t, t.shape) for t in named],
    )
    names = [graph.named("last") for _ in state] + [graph.named("said") for _ in said]
    return graph.ops(
        "Scan",
        [*begun, *read],
        names,
        body=inner,
        num_scan_inputs=len(read),
        scan_input_axes=[1] * len(read),
        scan_output_axes=[1] * len(said),
        scan_input_directions=[direction] * len(read),
        scan_output_directions=[direction] * len(said),
    )
