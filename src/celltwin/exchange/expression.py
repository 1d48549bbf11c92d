"""Arithmetic in x that a file gives as text, computed term by term: nothing of it is run as Python."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from celltwin.errors import CelltwinError

OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name) for name in ("exp", "log", "sqrt", "sin", "cos", "sinh", "cosh", "tanh")
}


def evaluate(text: str, x: np.ndarray, what: str) -> np.ndarray:
    """The value of an expression at every x; `what` names it in errors. Raises CelltwinError."""

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=int() | float() as number) if number is not True and number is not False:
                return np.float64(number)
            case ast.Name(id="x"):
                return x
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(operand))
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](value(argument))
        raise ValueError(f"'{ast.unparse(node)}'")

    try:
        with np.errstate(all="ignore"):
            found = np.asarray(value(ast.parse(text.strip(), mode="eval")) + np.zeros(np.shape(x)), np.float64)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, OverflowError) as error:
        raise CelltwinError(
            f"{what} cannot be computed",
            got=f"{text[:60]!r}: {error}",
            expected=f"numbers, x, + - * / ** and {', '.join(FUNCTIONS)}",
        ) from error
    if not np.isfinite(found).all():
        raise CelltwinError(
            f"{what} is not a number everywhere", got=text[:60], expected=f"numbers for x = {x.min():g} to {x.max():g}"
        )
    return found
