"""Run any voltage model as a cycler runs a cell: constant current, power, voltage or resistance, until a limit.

done = operate(model, ["discharge at 1C until 2.5 V", Rest(600), "charge at 1 A until 4.2 V",
                       ConstantVoltage(4.2, until=Limits(current=0.05))], cell)
done.record    # a Record: save, plot or score it as a measured one
done.log       # why and when each operation ended
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from celltwin.data.record import SECONDS_PER_HOUR, Cell, Record
from celltwin.errors import CelltwinError
from celltwin.interface import Input, Start
from celltwin.physics.charge import full_of
from celltwin.physics.cycler import (
    DURATION,
    RUNNING,
    STOPPED,
    Progress,
    Samples,
    Trial,
    advance_chunk,
    rows_of,
)
from celltwin.physics.demand import (
    ConstantCurrent,
    ConstantPower,
    ConstantResistance,
    ConstantVoltage,
    Limits,
    Operation,
    Rest,
)
from celltwin.physics.outcome import Ended, Operated, failure_of, log_of
from celltwin.physics.phrase import parse
from celltwin.physics.rest import at_rest

__all__ = [
    "ConstantCurrent",
    "ConstantPower",
    "ConstantResistance",
    "ConstantVoltage",
    "Ended",
    "Limits",
    "Operated",
    "Operation",
    "Rest",
    "operate",
    "parse",
    "rested",
]

LARGEST = 100.0  # 1/h: no current beyond this many capacities an hour is looked for


def rested(model: Any, cell: Cell, soc: float = 1.0, temperature: float = 25.0, dtype: Any = np.float32) -> Start:
    """The start of a cell long at rest at `soc` (fraction) and `temperature` (degC): it shows the model's own OCV."""
    middle = float(np.mean(cell.voltage_limits_volt))
    given = (soc, temperature, cell.reference_capacity_ah, middle)
    charged, degrees, capacity, begin = (jnp.asarray(x, dtype) for x in given)
    _, voltage = _at_rest(model, charged, degrees, capacity, begin)
    return Start(voltage, jnp.zeros((), dtype), degrees, charged, capacity)


def operate(
    model: Any,
    operations: Sequence[Operation | str],
    cell: Cell,
    *,
    soc: float = 1.0,
    temperature: float = 25.0,
    start: Start | Operated | None = None,
    period: float = 1.0,
    stop: Limits | None = None,
    longest: float = 30 * 86400.0,
    name: str = "operated",
    dtype: Any = np.float32,
) -> Operated:
    """Run `operations`, one after the other, on a voltage model, and record every sample.

    Strings are read by `parse`. The cell starts rested at `soc` (fraction) and `temperature` (degC), from a `start`, or
    where another run ended. `temperature` is also what the model is given throughout: the ambient of a model that
    simulates its own temperature. `period` is the sampling in s; an operation may have its own of both. The current is
    held over each step, and voltage and power are met at its end. The last sample of an operation lies on its limit.
    At a limit of `stop` (pairs: no direction is known) the whole run ends, whatever was still to do.

    Raises CelltwinError for an operation that makes no sense, that asks more than the cell can give, that has not
    ended after `longest` seconds, or that goes on where no cell is: a tenth below empty or above full.
    """
    todo = [parse(each, cell) if isinstance(each, str) else each for each in operations]
    if not todo:
        raise CelltwinError("nothing to do", got="no operation", expected="one at least")
    rows, exact = rows_of(todo, stop or Limits(), cell, temperature, period, longest, dtype)
    degrees = rows.temperature[0]
    if isinstance(start, Operated):
        soc, begin = float(start.record.soc[-1]), _move(model, start.state, degrees)
    else:
        if start is None:
            start = rested(model, cell, soc, temperature, dtype)
        else:
            soc = float(start.soc)
        begin = _first(model, start, degrees)
    if np.isfinite(rows.levels[:, 6:8]).any() and not hasattr(begin[1], "temperature"):
        raise CelltwinError(
            "an operation ends at a temperature that the model does not simulate",
            got=type(model).__name__,
            expected="a model with a temperature of its own",
            fix="wrap it: ThermalTwin(model, thermal)",
        )
    zero = jnp.zeros((), dtype)
    now = Progress(
        state=begin[0],
        trial=Trial(zero, zero, begin[0], begin[1], jnp.zeros(9, bool)),
        charge=full_of(zero, jnp.ones((), dtype)),
        operation=jnp.zeros((), np.int32),
        step=jnp.zeros((), np.int32),
        status=jnp.asarray(RUNNING),
        reasons=jnp.full(len(rows.steps), DURATION),
    )
    largest, count = jnp.asarray(LARGEST * cell.reference_capacity_ah, dtype), jnp.asarray(len(todo))
    pieces = [jax.tree.map(lambda x: np.asarray(x)[None], Samples(begin[1], zero, zero, now.operation))]
    while now.status == RUNNING and now.operation < len(todo):
        now, samples, written = advance_chunk(model, rows, count, now, largest)
        pieces.append(jax.tree.map(lambda x, n=int(written): np.asarray(x)[:n], samples))
    seen = jax.tree.map(lambda *columns: np.concatenate(columns), *pieces)
    dt = np.where(seen.dt == rows.period[seen.operation], exact[seen.operation, 0], seen.dt.astype(float))
    dt = np.where(seen.dt == rows.last[seen.operation], exact[seen.operation, 1], dt)
    dt[0] = 0.0
    time = np.cumsum(dt)
    if int(now.status) not in (RUNNING, STOPPED):
        raise failure_of(now, todo, float(time[-1]), longest)
    if len(time) < 2:
        raise CelltwinError(
            "every operation had met its limit before it began",
            got=f"{todo[0]} and {len(todo) - 1} more",
            expected="one that moves the cell",
            fix="start elsewhere: soc, or a start",
        )
    current = seen.current.astype(float) + 0.0  # no -0 at rest
    charge = np.cumsum(current * dt) / SECONDS_PER_HOUR
    record = Record(
        name,
        time,
        seen.output.voltage,
        current,
        getattr(seen.output, "temperature", rows.temperature[seen.operation]),
        charge,
        ambient_degC=float(temperature),
        cell=cell,
        initial_soc=soc,
        source=f"simulated by celltwin with {type(model).__name__}",
    )
    log = log_of(todo[: int(now.operation)], record, seen.operation, np.asarray(now.reasons))
    return Operated(record, log, seen.output, now.state)


_at_rest = jax.jit(at_rest)


@jax.jit
def _move(model: Any, state: Any, degrees: Any) -> tuple[Any, Any]:
    """A step of no length without current."""
    zero = jnp.zeros_like(degrees)
    return model.step(state, Input(zero, degrees, zero))


@jax.jit
def _first(model: Any, start: Start, degrees: Any) -> tuple[Any, Any]:
    return _move(model, model.init(start), degrees)
