"""The compiled loop of a cycler: any voltage model under any demands, one step a sample, limits met within the step.

In each step the current that meets the demand is found by Newton's method on the model's own `step`, held inside
a bracket and bisected where the tangent leads nowhere. A step in which a limit is reached is shortened by bisection
until it ends on the limit; the next operation begins there. All operations run in one program, in chunks of samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.data.record import Cell
from celltwin.interface import Input
from celltwin.physics.charge import HIGHEST, LOWEST, Charge, advance
from celltwin.physics.demand import REASONS, Limits, Operation, Rest, duration_of, levels_of

CHUNK = 4096  # samples that one compiled call returns
TRIES = 60  # of a current, at most; two or three are usual
DURATION = REASONS.index("duration")
RUNNING, STOPPED, INFEASIBLE, UNENDING, BEYOND = range(5)  # status of a run


SIDES = np.array([-1, 1, -1, 1, -1, 1, -1, 1, 1])  # of the reasons: is the level below or above?


class Row(NamedTuple):
    """One operation in numbers; as arguments of `advance_chunk`, [operations]."""

    equation: Any  # [4], see demand
    scale: Any  # of the equation's error
    levels: Any  # [9]
    fatal: Any  # [9] where a level ends not the operation but the run
    period: Any  # s
    last: Any  # s, length of the last step
    steps: Any  # after which the clock ends it, or patience does
    timed: Any  # is it the clock?
    temperature: Any  # degC


def rows_of(
    todo: Sequence[Operation],
    stop: Limits,
    cell: Cell,
    temperature: float,
    period: float,
    longest: float,
    dtype: Any,
) -> tuple[Row, np.ndarray]:
    """The operations as numbers, and the exact period and last step of each, [operations, 2] in s."""
    columns: list[tuple[Any, ...]] = []
    exact: list[tuple[float, float]] = []
    always = np.array(levels_of(Rest(1.0, until=stop)))
    for each in todo:
        own, every, clock = np.array(levels_of(each)), each.period or period, duration_of(each)
        fatal = SIDES * always < SIDES * own
        steps = max(1, math.ceil((clock or longest) / every - 1e-9))
        last = every if clock is None else clock - (steps - 1) * every
        a, b, _, _ = each.equation
        scale = abs(each.value) if b else cell.voltage_limits_volt[1] / 4.0 if a else max(abs(each.value), 1.0)
        degrees = temperature if each.temperature is None else each.temperature
        levels = np.where(fatal, always, own)
        columns.append((each.equation, scale, levels, fatal, every, last, steps, clock is not None, degrees))
        exact.append((every, last))
    # Padded to a power of two, so that protocols of many lengths share a program.
    columns += [columns[-1]] * (2 ** max(3, math.ceil(math.log2(len(todo)))) - len(todo))
    kinds = (dtype, dtype, dtype, bool, dtype, dtype, np.int32, bool, dtype)
    return Row(*(np.array(c, kind) for c, kind in zip(zip(*columns, strict=True), kinds, strict=True))), np.array(exact)


class Trial(NamedTuple):
    """What one step of one length gave."""

    current: Array  # A
    error: Array  # of the equation, in terms of its scale; infinite where no current was found
    state: Any
    output: Any
    reached: Array  # [9] True where a limit is met


class Progress(NamedTuple):
    """Where the run stands between two chunks."""

    state: Any
    trial: Trial  # the last sample's, or what failed
    charge: Charge  # Ah, within the operation
    operation: Any  # index
    step: Any  # within the operation
    status: Any
    reasons: Any  # [operations] index of REASONS, for those that have ended


class Samples(NamedTuple):
    """What was recorded, [time]."""

    output: Any
    current: Any  # A
    dt: Any  # s
    operation: Any  # index


def _find(model: Any, state: Any, row: Row, dt: Array, guess: Array, largest: Array) -> tuple[Array, Array, Any]:
    """Current (A) that meets the row's equation at the end of a step, its error, and what the step then gives."""
    a, b, c, d = row.equation
    tolerance = max(40.0 * float(jnp.finfo(guess.dtype).eps), 1e-10)

    def attempt(current: Array) -> tuple[Array, Array, Any]:
        def voltage_of(current: Array) -> tuple[Array, Any]:
            after = model.step(state, Input(current, row.temperature, dt))
            return after[1].voltage, after

        voltage, slope, after = jax.jvp(voltage_of, (current,), (jnp.ones_like(current),), has_aux=True)
        error = voltage * (a + b * current) + c + d * current
        return error / row.scale, (slope * (a + b * current) + b * voltage + d) / row.scale, after

    def search(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        tries, current, low, high, stride, _, _, _ = carry
        error, rise, after = attempt(current)
        # Beyond the current of the largest power, more current gives less: the answer lies above, as with too little.
        below = (error < 0) | ((b != 0) & (rise <= 0))
        low, high = jnp.where(below, current, low), jnp.where(below, high, current)
        newton = current - error / rise
        moved = jnp.abs(newton - current)
        use = (rise > 0) & (newton > low) & (newton < high) & (moved < 0.7 * stride)
        following = jnp.where(use, newton, 0.5 * (low + high))
        # One step of Newton at least, even where the guess would do: else a slow decay becomes a staircase.
        met = (jnp.abs(error) <= tolerance) & ((tries > 0) | (error == 0))
        exhausted = following == current
        error = jnp.where(met | (exhausted & (jnp.abs(error) <= 10.0 * tolerance)), error, jnp.inf)
        done = met | exhausted
        return (
            tries + 1,
            jnp.where(done, current, following),
            low,
            high,
            jnp.where(use, moved, high - low),
            done,
            error,
            after,
        )

    def unfinished(carry: tuple[Any, ...]) -> Any:
        return (carry[0] < TRIES) & ~carry[5]

    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(attempt, guess)[2])
    wide = jnp.full_like(guess, jnp.inf)
    found = jax.lax.while_loop(unfinished, search, (0, guess, -largest, largest, wide, jnp.array(False), wide, blank))
    return found[1], found[6], found[7]


def _try(model: Any, now: Progress, row: Row, dt: Array, largest: Array) -> Trial:
    a, b, c, d = row.equation
    voltage = now.trial.output.voltage
    # What meets the equation at the last voltage; where a voltage is held there is no such thing, but the last current.
    fixed = d + b * voltage
    guess = jnp.where(fixed == 0, now.trial.current, -(c + a * voltage) / jnp.where(fixed == 0, 1, fixed))
    current, error, (state, output) = _find(model, now.state, row, dt, guess, largest)
    magnitude, degrees = jnp.abs(current), getattr(output, "temperature", row.temperature)
    charge = jnp.abs(advance(now.charge, current, dt).soc)
    seen = [output.voltage] * 2 + [magnitude] * 2 + [output.soc] * 2 + [degrees] * 2 + [charge]
    return Trial(current, error, state, output, SIDES * (jnp.stack(seen) - row.levels) >= 0)


def _failed(trial: Trial) -> Array:
    return jnp.isinf(trial.error)


def _select(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _shorten(model: Any, now: Progress, row: Row, whole: Array, largest: Array) -> tuple[Array, Array, Trial]:
    """A step that ends on the first limit inside `whole`: its length, was a limit met without any time, and the step.

    A demand that can no longer be met is looked for like a limit: on a long step, one may come before the other.
    """
    least = 2.0 * float(jnp.finfo(whole.dtype).eps) * whole

    def bisect(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        count, dt, low, high, _, _, best = carry
        trial = _try(model, now, row, dt, largest)
        over = trial.reached.any() | _failed(trial)
        first = count == 0
        best = _select(first | over, trial, best)
        low, high = jnp.where(first | over, low, dt), jnp.where(over, dt, high)
        at_once = over & (count == 1)
        done = (first & ~over) | at_once | (~first & (high - low <= least))
        return count + 1, jnp.where(first, 0.0, 0.5 * (low + high)), low, high, done, at_once, best

    blank = jax.tree.map(jnp.zeros_like, now.trial)
    begin = (0, whole, 0.0 * whole, whole, jnp.array(False), jnp.array(False), blank)
    _, _, _, high, _, at_once, best = jax.lax.while_loop(lambda carry: ~carry[4], bisect, begin)
    return high, at_once, best


@jax.jit
def advance_chunk(
    model: Any, rows: Row, count: Array, now: Progress, largest: Array
) -> tuple[Progress, Samples, Array]:
    """Run on for at most CHUNK samples, of which the number returned last are valid."""

    def sample(carry: tuple[Progress, Samples, Array]) -> tuple[Progress, Samples, Array]:
        now, samples, written = carry
        row: Row = jax.tree.map(lambda column: column[now.operation], rows)
        final = now.step + 1 == row.steps
        dt, at_once, trial = _shorten(model, now, row, jnp.where(final, row.last, row.period), largest)
        # What can never be met, but would pass a limit first, is a limit met at once.
        limit = trial.reached.any() & (at_once | ~_failed(trial))
        failed = _failed(trial) & ~limit
        ended = limit | (final & row.timed & ~failed)
        kept = ~at_once & ~failed
        seen = Samples(trial.output, trial.current, dt, now.operation)
        samples = jax.tree.map(lambda column, value: column.at[written].set(value), samples, seen)
        reason = jnp.where(limit, jnp.argmax(trial.reached), DURATION)
        stopped = (trial.reached & row.fatal).any() & limit
        charge = advance(now.charge, jnp.where(kept, trial.current, 0.0), dt)
        status = jnp.where(final & ~ended, UNENDING, jnp.where(stopped, STOPPED, RUNNING))
        soc, current = trial.output.soc, trial.current
        beyond = ((soc < LOWEST) & (current < 0)) | ((soc > HIGHEST) & (current > 0))
        status = jnp.where(beyond & ~ended, BEYOND, status)
        now = Progress(
            state=_select(kept, trial.state, now.state),
            trial=_select(kept | failed, trial, now.trial),
            charge=_select(ended, jax.tree.map(jnp.zeros_like, charge)._replace(capacity=charge.capacity), charge),
            operation=now.operation + ended,
            step=jnp.where(ended, 0, now.step + kept),
            status=jnp.where(failed, INFEASIBLE, status),
            reasons=now.reasons.at[now.operation].set(jnp.where(ended, reason, now.reasons[now.operation])),
        )
        return now, samples, written + kept

    def running(carry: tuple[Progress, Samples, Array]) -> Array:
        now, _, written = carry
        return (written < CHUNK) & (now.operation < count) & (now.status == RUNNING)

    one = Samples(now.trial.output, now.trial.current, rows.period[0], now.operation)
    empty = jax.tree.map(lambda leaf: jnp.zeros((CHUNK, *leaf.shape), leaf.dtype), one)
    return jax.lax.while_loop(running, sample, (now, empty, jnp.zeros((), np.int32)))
