"""A twin as ONNX: for whatever runs ONNX graphs, one cell or a fleet at once.

    NAME_init.onnx    start_*, each [batch]                      -> state_*, [batch, ...]
    NAME_step.onnx    state_*, and a sample, each [batch]        -> new_state_*, and what the twin says, each [batch]
    NAME.onnx         start_*, and a record, each [batch, time]  -> what the twin says, each [batch, time]; last state_*

The same programs as of the C are written down, by `deploy.onnx_rules`; the whole record is a `Scan` with the step as
its body. Batch and time are free. The graphs need standard operators alone; names, units and signs are in the model's
metadata and beside each input and output. What is said is `valid` where the sample lies in the training range.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from celltwin import __version__, files
from celltwin.deploy import c
from celltwin.deploy.onnx_rules import Graph, Tensor, element_type, known, loop, write
from celltwin.deploy.program import Var
from celltwin.errors import CelltwinError
from celltwin.interface import Start
from celltwin.twin import Twin

OPSET, IR = 18, 9  # of 2022: old enough for the runtimes in use, new enough for all that is written
VALID = "true inside the training range, on measured values; else an extrapolation"


def graphs(twin: Twin, name: str | None = None, precision: str = "single") -> dict[str, Any]:
    """The graphs of a twin by file name, `onnx.ModelProto` each, checked; numbers in single or double precision.

    Raises CelltwinError where the extra is not installed or an operation of the model has no rule.
    """
    try:
        import onnx
    except ImportError as error:
        raise CelltwinError(
            "the package onnx is not installed", expected="onnx, to write its graphs", fix="pip install celltwin[onnx]"
        ) from error
    name = name or re.sub(r"\W", "_", twin.name)
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise CelltwinError("the name is none for a file", got=name, expected="letters, digits and _", fix="--name")
    if precision not in c.PRECISIONS:
        raise CelltwinError("the precision is none", got=precision, expected=", ".join(c.PRECISIONS))
    traced = c.traced(twin, c.PRECISIONS[precision])
    made = {
        f"{name}_init.onnx": _init(traced),
        f"{name}_step.onnx": _step(traced),
        f"{name}.onnx": _record(traced),
    }
    models = {file: _model(twin, file.removesuffix(".onnx"), *parts) for file, parts in made.items()}
    for model in models.values():
        onnx.checker.check_model(model, full_check=True)
    return models


def export(twin: Twin, folder: str | Path, name: str | None = None, precision: str = "single") -> list[Path]:
    """Write the graphs of a twin; the files, each written atomically."""
    models, folder = graphs(twin, name, precision), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file, model in models.items():
        with files.replacing(folder / file) as temporary:
            temporary.write_bytes(model.SerializeToString())
    return [folder / file for file in models]


Named = dict[str, tuple[Tensor, tuple[Any, ...], str]]  # tensor, axes before its own, meaning


def _init(traced: c.Traced) -> tuple[Graph, Named, Named]:
    start = _starts(traced)
    graph = _graph(traced, start)
    state = write(graph, traced.init, [start[n][0] for n in start])
    return graph, start, _states(traced, state, "state_")


def _step(traced: c.Traced) -> tuple[Graph, Named, Named]:
    members = zip(traced.members, traced.step.inputs, strict=False)  # then the sample
    state = _states(traced, [_given(v, f"state_{m.name}") for m, v in members], "state_")
    sample = _samples(traced, ("batch",))
    graph = _graph(traced, state | sample)
    result = write(graph, traced.step, [*_members(traced, state), *(t for t, _, _ in sample.values())])
    count = len(traced.members)
    said = {n: (t, ("batch",), _meaning(n)) for n, t in zip(traced.outputs, result[count:], strict=True)}
    return graph, state | sample, _states(traced, result[:count], "new_state_") | said


def _record(traced: c.Traced) -> tuple[Graph, Named, Named]:
    start, record, count = _starts(traced), _samples(traced, ("batch", "time")), len(traced.members)
    graph = _graph(traced, start | record)
    begun = write(graph, traced.init, [t for t, _, _ in start.values()])

    def body(inside: Graph, state: list[Tensor], sample: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        whole = iter(state)
        result = write(inside, traced.step, [*(next(whole) if t.size else t for t in begun), *sample])
        return [t for t in result[:count] if t.size], result[count:]

    # A row of the record is one sample of each channel: the shape of a sample, after time.
    rows = [Tensor((0, *t.shape), t.dtype, t.name) for t, _, _ in record.values()]
    names = loop(graph, body, [t for t in begun if t.size], rows, [()] * len(traced.outputs))
    kept = [t for t in begun if t.size]
    last = [Tensor(t.shape, t.dtype, name) for t, name in zip(kept, names, strict=False)]
    kinds = [v.dtype for v in traced.step.outputs[count:]]
    said = {
        n: (Tensor((), np.dtype(kind), name), ("batch", "time"), _meaning(n))
        for n, kind, name in zip(traced.outputs, kinds, names[len(kept) :], strict=True)
    }
    whole = iter(last)
    return graph, start | record, said | _states(traced, [next(whole) if t.size else t for t in begun], "state_")


def _given(var: Var, name: str) -> Tensor:
    """An input of the graph; what has no elements is no input."""
    return Tensor(var.shape, var.dtype, name) if np.prod(var.shape) else known(np.zeros(var.shape, var.dtype))


def _starts(traced: c.Traced) -> Named:
    return {
        f"start_{n}": (_given(v, f"start_{n}"), ("batch",), f"at wake-up: {_meaning(n)}")
        for n, v in zip(Start._fields, traced.init.inputs, strict=True)
    }


def _samples(traced: c.Traced, axes: tuple[str, ...]) -> Named:
    variables = traced.step.inputs[len(traced.members) :]
    return {n: (_given(v, n), axes, _meaning(n)) for n, v in zip(traced.inputs, variables, strict=True)}


def _states(traced: c.Traced, tensors: list[Tensor], prefix: str) -> Named:
    named = zip(traced.members, tensors, strict=True)
    return {prefix + m.name: (t, ("batch",), "of the state, to be handed back") for m, t in named if t.size}


def _members(traced: c.Traced, named: Named) -> list[Tensor]:
    """The members of the state in order, those without elements too."""
    variables = zip(traced.members, traced.step.inputs, strict=False)
    return [named[f"state_{m.name}"][0] if f"state_{m.name}" in named else _given(v, "") for m, v in variables]


def _meaning(name: str) -> str:
    return VALID if name == "valid" else c.MEANING[name]


def _graph(traced: c.Traced, inputs: Named) -> Graph:
    """An empty graph; the names of inputs and outputs are taken."""
    states = {prefix + m.name for m in traced.members for prefix in ("state_", "new_state_")}
    return Graph(taken=states | set(inputs) | set(traced.outputs), like=next(t for t, _, _ in inputs.values()))


def _model(twin: Twin, name: str, graph: Graph, inputs: Named, outputs: Named) -> Any:
    from onnx import helper

    def info(name: str, tensor: Tensor, axes: tuple[Any, ...], meaning: str) -> Any:
        return helper.make_tensor_value_info(name, element_type(tensor.dtype), [*axes, *tensor.shape], meaning)

    graph.place = ""
    for name_, (tensor, _, _) in outputs.items():
        graph.ops("Identity", [graph.batched(tensor)], [name_])
    made = helper.make_graph(
        graph.nodes,
        name,
        [info(n, *about) for n, about in inputs.items()],
        [info(n, *about) for n, about in outputs.items()],
        list(graph.initializers.values()),
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="celltwin"
    )
    model.producer_version = __version__
    helper.set_model_props(model, _about(twin))
    return model


def _about(twin: Twin) -> dict[str, str]:
    """What a file says of itself."""
    cell, card = twin.cell, twin.card
    about = {
        "twin": twin.name,
        "title": card.get("title"),
        "task": twin.task,
        "cell": cell.name,
        "reference_capacity_ah": cell.reference_capacity_ah,
        "voltage_limits_volt": list(cell.voltage_limits_volt),
        "current_sign": "positive = charge",
        "units": {**c.MEANING, "valid": VALID},
        "training_range": twin.domain.ranges(),
        "dataset": card.get("dataset"),
        "licence": card.get("licence"),
        "citation": card.get("citation"),
        "seed": card.get("seed"),
        "celltwin": __version__,
    }
    plain = {key: files.plain(value) for key, value in about.items() if value is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}
