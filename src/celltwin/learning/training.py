"""One engine that trains any model through its own closed-loop simulation, and any estimator through its own run.

Two optimisers, in rounds. *Adam* by truncated backpropagation through time: lanes run through the records chunk
by chunk and carry the model's state from one chunk to the next; each lane stands at another place of another
record, so that one update sees all states of charge and temperatures. *L-BFGS* on whole records at once, scaled by
a stochastic estimate of the Gauss-Newton diagonal: for models of few parameters, where it finds in a hundred passes
what Adam does not find in thousands. After each round the model simulates the validation records from their first
sample to their last; the best round is kept, and a checkpoint is written from which a killed run goes on to the same
result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from celltwin import files
from celltwin.data.domain import Fixed
from celltwin.data.record import Record
from celltwin.data.splits import Split
from celltwin.errors import CelltwinError
from celltwin.interface import Batch, Start, inputs_of, run, simulate
from celltwin.learning.physics import Physics
from celltwin.learning.plan import Plan
from celltwin.learning.tasks import TASKS, Task


class Progress(NamedTuple):
    """What is known after a round."""

    round: int
    rounds: int
    train: float  # in the task's unit, from the mean loss, the prior included
    validate: float  # in the task's unit; NaN without validation records
    seconds: float


class Interrupted(Exception):
    """Training was asked to stop; its checkpoint holds the last whole round."""


class Fitted(NamedTuple):
    """A trained model and how it got there."""

    model: Any
    history: list[Progress]
    seconds: float


FROM_THE_FIRST = 0.25  # share of the episodes that start with the record, where a cell is at rest


def trainable(model: Any) -> Any:
    """A tree of booleans: True for the arrays that training may change, those not inside a `Fixed` part."""
    return jax.tree.map(
        lambda leaf: False if isinstance(leaf, Fixed) else eqx.is_inexact_array(leaf),
        model,
        is_leaf=lambda node: isinstance(node, Fixed),
    )


def parameters(model: Any) -> int:
    """Number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, trainable(model))))


def fit(
    model: Any,
    split: Split,
    plan: Plan,
    *,
    task: str = "voltage",
    origin: str | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    tick: Callable[[float], None] = lambda share: None,
    stop: threading.Event | None = None,
) -> Fitted:
    """Train `model` on the training records of `split`; keep the round that does best on its validation records.

    `task` is what the model is to say, a name in `learning.tasks`. `origin` identifies where a model that was trained
    before comes from: it is kept as it is where no round does better on the validation records.

    Without validation records the last round is kept. With `checkpoint`, the state is written after each round, and
    with `resume` a run goes on from there: it ends where it would have ended. `report` is told after each round, `tick`
    hears the share done in between.

    Raises Interrupted soon after `stop` is set; CelltwinError where the loss is not a number from the start, or the
    checkpoint is of another run.
    """
    mask = trainable(model)
    params, frozen = eqx.partition(model, mask)
    began = time.monotonic()
    aim = TASKS[task]
    adam = _Adam(frozen, split.train, plan, aim) if plan.adam_rounds else None
    lbfgs = _Lbfgs(frozen, split.train, plan, aim) if plan.lbfgs_rounds else None
    state = _State(params, params, adam.start(params) if adam else None)
    history: list[Progress] = []
    spent, best = 0.0, float("inf")
    identity = {"plan": plan.model_dump(), "records": [r.content_hash for r in split.train + split.validate]}
    if origin is not None:
        identity["origin"] = origin
        best = _number(aim.validate(model, split.validate), float("inf"))
    if checkpoint is not None and resume and checkpoint.exists():
        about = files.load_about(checkpoint)
        if about["identity"] != files.plain(identity):
            raise CelltwinError(
                f"{checkpoint} was written with another plan or other records",
                fix="train without --resume, or with the configuration and data of the interrupted run",
            )
        state = files.load_tree(checkpoint, state)
        rows: list[dict[str, Any]] = about["history"]
        history = [Progress(**{k: _number(v) for k, v in row.items()}) for row in rows]
        spent = history[-1].seconds
        best = _number(about["best"], float("inf"))

    rounds = plan.adam_rounds + plan.lbfgs_rounds

    def at(number: int) -> Callable[[float], None]:
        def during(share: float) -> None:
            if stop is not None and stop.is_set():
                raise Interrupted
            tick((number + share) / rounds)

        return during

    for number in range(len(history), rounds):
        if _stale(history, plan):
            break
        if adam and number < plan.adam_rounds:
            params, optimiser, loss = adam.round(state.params, state.optimiser, number, at(number))
            candidate = optimiser.average
        else:
            assert lbfgs is not None
            start = state.best if number == plan.adam_rounds else state.params
            params, loss = lbfgs.round(start, number, at(number))
            candidate, optimiser = params, state.optimiser
        if not history and not np.isfinite(loss):
            raise CelltwinError("training diverged in its first round", got=f"loss {loss}", fix="lower learning_rate")
        validated = aim.validate(eqx.combine(candidate, frozen), split.validate)
        score = validated if split.validate else -float(number)
        # A simulation that diverges scores NaN, which is never better.
        if score < best or not (history or np.isfinite(best)):
            best = score if np.isfinite(score) else float("inf")
            state = state._replace(best=candidate)
        state = state._replace(params=params, optimiser=optimiser)
        seconds = spent + time.monotonic() - began
        history.append(Progress(number + 1, rounds, aim.figure(loss), validated, seconds))
        if checkpoint is not None:
            about = {"identity": identity, "history": [p._asdict() for p in history], "best": best}
            files.save_tree(checkpoint, state, about)
        report(history[-1])
    return Fitted(eqx.combine(state.best, frozen), history, history[-1].seconds if history else 0.0)


def _number(value: Any, otherwise: float = float("nan")) -> Any:
    """A value, `otherwise` where it is NaN or the null that JSON holds for what is not finite."""
    return otherwise if value is None or value != value else value


class _State(NamedTuple):
    params: Any
    best: Any
    optimiser: Any


def _stale(history: list[Progress], plan: Plan) -> bool:
    """Has validation not improved for `patience` rounds (of L-BFGS, once that is at work)? Then training ends."""
    current = np.array([p.validate for p in history[plan.adam_rounds :] or history])
    if len(current) <= plan.patience or np.isnan(current).all():
        return False
    return int(np.nanargmin(current)) < len(current) - plan.patience


def _penalty(model: Any) -> jax.Array:
    """The model's own prior on its parameters, in V^2 of mean squared error."""
    return model.penalty() if hasattr(model, "penalty") else jnp.zeros(())


class _Lanes(NamedTuple):
    """Adam's state: the optimiser's, the averaged weights, and each lane's model state."""

    optax: Any
    average: Any
    updates: jax.Array
    models: Any


class _Adam:
    def __init__(self, frozen: Any, records: Sequence[Record], plan: Plan, task: Task):
        self.frozen, self.plan, self.task = frozen, plan, task
        self.physics = Physics(records, plan, task.name)
        self.lanes = plan.lanes
        total = plan.adam_rounds * plan.updates
        warm = max(1, int(plan.warm_up * total))
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, plan.learning_rate, warm, max(total, warm + 1), plan.learning_rate / 100
        )
        self.optimiser = optax.chain(optax.clip_by_global_norm(plan.clip), optax.adam(schedule))
        batch = task.stack(records, plan.chunk)
        shape = (len(records), -1, plan.chunk)
        whole = (batch.inputs, batch.target, batch.mask)
        self.data = jax.tree.map(lambda a: jnp.asarray(a.reshape(shape)), whole)
        self.starts = _chunk_starts(records, plan.chunk, batch)
        self.chunks = np.array([-(-len(record) // plan.chunk) for record in records])
        self.update = jax.jit(self._update)

    def start(self, params: Any) -> _Lanes:
        first = jax.tree.map(lambda a: a[np.zeros(self.lanes, int), 0], self.starts)
        models = jax.vmap(eqx.combine(params, self.frozen).init)(first)
        return _Lanes(self.optimiser.init(params), params, jnp.zeros((), jnp.int32), models)

    def places(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """For each update of a round, [updates, lanes]: record, chunk, whether a lane starts anew there, its sensors.

        Each lane follows its own endless, shuffled sequence of records; its very first starts somewhere inside, and
        so do most of the others where the plan has episodes, that end before the record does.
        """
        plan, first = self.plan, number * self.plan.updates
        out = np.zeros((3, plan.updates, self.lanes), np.int32)
        sensors: list[np.ndarray] = []
        for lane in range(self.lanes):
            draw = np.random.default_rng([plan.seed, lane])
            order: list[tuple[int, int, int]] = []
            worn: list[np.ndarray] = []
            while len(order) < first + plan.updates:
                for record in draw.permutation(len(self.chunks)):
                    chunks = self.chunks[record]
                    begin, end = draw.integers(chunks) if not order else 0, chunks
                    if plan.episode:
                        begin = 0 if draw.random() < FROM_THE_FIRST else draw.integers(chunks)
                        end = min(chunks, begin + 1 + int(draw.exponential(plan.episode)))
                    order += [(record, c, c == begin) for c in range(begin, end)]
                    worn += [self.task.sensors(draw)] * (end - begin)
            out[:, :, lane] = np.array(order[first : first + plan.updates]).T
            sensors.append(np.array(worn[first : first + plan.updates]))
        return out[0], out[1], out[2].astype(bool), np.stack(sensors, axis=1)

    def round(
        self, params: Any, lanes: _Lanes, number: int, tick: Callable[[float], None]
    ) -> tuple[Any, _Lanes, float]:
        losses = []
        for record, chunk, fresh, sensors in zip(*self.places(number), strict=True):
            params, lanes, loss = self.update(params, lanes, self.data, self.starts, record, chunk, fresh, sensors)
            losses.append(loss)
            tick(len(losses) / self.plan.updates)
        # A chunk that exploded moved nothing (see _update) and tells nothing.
        finite = [float(loss) for loss in losses if np.isfinite(loss)]
        return params, lanes, float(np.mean(finite)) if finite else float("nan")

    def _update(self, params, lanes, data, starts, record, chunk, fresh, sensors):
        inputs, target, mask = jax.tree.map(lambda a: a[record, chunk], data)
        start, inputs = self.task.distort(Start(*(a[record, chunk] for a in starts)), inputs, sensors)

        def loss(params):
            model = eqx.combine(params, self.frozen)
            begun = jax.vmap(model.init)(start)
            state = jax.tree.map(lambda new, old: jnp.where(_as(fresh, new), new, old), begun, lanes.models)
            state, output = jax.vmap(lambda s, u: run(model, s, u))(state, inputs)
            prior = _penalty(model) + self.physics(model)
            return self.task.loss(output, target, mask) + self.task.scale * prior, state

        (value, models), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        # A single exploding chunk must neither move the weights nor poison the carried state.
        fine = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
        gradient = jax.tree.map(lambda g: jnp.where(fine, g, 0.0), gradient)
        models = jax.tree.map(
            lambda new, old: jnp.where(jnp.isfinite(new), new, jnp.zeros_like(old)), models, lanes.models
        )
        step, state = self.optimiser.update(gradient, lanes.optax, params)
        params = optax.apply_updates(params, step)
        # The average forgets its first updates quickly, when there are few to average.
        keep = jnp.minimum(self.plan.averaging, lanes.updates / (lanes.updates + 10.0))
        average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, lanes.average, params)
        return params, _Lanes(state, average, lanes.updates + 1, models), value


class _Lbfgs:
    PROBES = 4  # random vectors behind the estimate of the Gauss-Newton diagonal
    DIVERGED = 1e12  # what the line search is told where the loss is not a number

    def __init__(self, frozen: Any, records: Sequence[Record], plan: Plan, task: Task):
        if task.name != "voltage":
            raise CelltwinError("L-BFGS minimises squares of a voltage error", got=task.name, fix="lbfgs_rounds = 0")
        self.frozen, self.plan, self.unit = frozen, plan, task.scale
        self.physics = Physics(records, plan, task.name)
        self.batch = jax.tree.map(jnp.asarray, task.stack(records, 100))
        self.samples = float(np.sum(self.batch.mask))
        self.programs: tuple[Callable, Callable, Callable] | None = None  # compiled once for all rounds

    def round(self, params: Any, number: int, tick: Callable[[float], None]) -> tuple[Any, float]:
        origin, unravel = ravel_pytree(params)
        if self.programs is None:
            self.programs = self._compile(unravel, origin.size)
        value_and_grad, probe, prior_curvature = self.programs

        keys = jax.random.split(jax.random.key(self.plan.seed + 7919 * number), self.PROBES)
        curvature = np.mean([np.square(np.asarray(probe(origin, self.batch, k), np.float64)) for k in keys], axis=0)
        curvature = self.unit * curvature / self.samples + np.maximum(np.asarray(prior_curvature(origin)), 0.0)
        scale = 1.0 / np.sqrt(curvature + np.quantile(curvature, 0.3) + 1e-12)
        origin = np.asarray(origin, np.float64)

        calls = 0

        def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal calls
            tick(min(calls / (1.1 * self.plan.iterations), 1.0))
            calls += 1
            x = origin + np.clip(z * scale, -5.0, 5.0)
            value, gradient = value_and_grad(jnp.asarray(x, self.batch.target.dtype), self.batch, self.samples)
            if not (np.isfinite(value) and np.isfinite(gradient).all()):
                return self.DIVERGED, np.zeros_like(z)
            return float(value), np.asarray(gradient, np.float64) * scale

        options = {"maxiter": self.plan.iterations, "maxfun": 2 * self.plan.iterations, "maxcor": 50}
        found = minimize(objective, np.zeros_like(origin), jac=True, method="L-BFGS-B", options=options)
        x = origin + np.clip(found.x * scale, -5.0, 5.0)
        loss = float(found.fun) if found.fun < self.DIVERGED else float("nan")
        return unravel(jnp.asarray(x, self.batch.target.dtype)), loss

    def _compile(self, unravel: Callable[[jax.Array], Any], size: int) -> tuple[Callable, Callable, Callable]:
        """The loss with its gradient, one probe of the Gauss-Newton diagonal, and the prior's diagonal."""
        frozen, unit = self.frozen, self.unit

        def errors(x: jax.Array, batch: Batch) -> jax.Array:
            model = eqx.combine(unravel(x), frozen)
            voltage = jax.vmap(lambda s, u: simulate(model, s, u))(batch.start, batch.inputs).voltage
            return jnp.where(batch.mask, voltage - batch.target, 0.0)

        def prior(x: jax.Array) -> jax.Array:
            return unit * _penalty(eqx.combine(unravel(x), frozen))

        def loss(x: jax.Array, batch: Batch, samples: jax.Array) -> jax.Array:
            physics = unit * self.physics(eqx.combine(unravel(x), frozen))
            return unit * (jnp.sum(errors(x, batch) ** 2) / samples) + prior(x) + physics

        def probe(x: jax.Array, batch: Batch, key: jax.Array) -> jax.Array:
            pull = jax.vjp(lambda x: errors(x, batch), x)[1]
            return pull(jax.random.rademacher(key, batch.target.shape, batch.target.dtype))[0]

        def prior_curvature(x: jax.Array) -> jax.Array:
            # Diagonal of half the Hessian, each entry by one product with a unit vector.
            def entry(unit: jax.Array) -> jax.Array:
                return jnp.vdot(unit, jax.jvp(jax.grad(prior), (x,), (unit,))[1]) / 2

            return jax.lax.map(entry, jnp.eye(size, dtype=x.dtype), batch_size=64)

        return jax.jit(jax.value_and_grad(loss)), jax.jit(probe), jax.jit(prior_curvature)


def _as(flags: jax.Array, like: jax.Array) -> jax.Array:
    """Flags [lanes] shaped to select along the first axis of `like`."""
    return jnp.reshape(flags, flags.shape + (1,) * (like.ndim - 1))


def _chunk_starts(records: Sequence[Record], chunk: int, batch: Batch) -> Start:
    """A start at the beginning of every chunk of every record: [records, chunks]. SOC is unknown where it was."""
    rows = []
    for i, record in enumerate(records):
        u = inputs_of(record)
        at = np.minimum(np.arange(batch.target.shape[1] // chunk) * chunk, len(record) - 1)
        voltage = np.interp(
            at, np.flatnonzero(np.isfinite(record.voltage)), record.voltage[np.isfinite(record.voltage)]
        )
        capacity = np.full(len(at), batch.start.capacity[i])
        soc = np.where(np.isnan(batch.start.soc[i]), np.nan, record.soc[at])
        rows.append((voltage, u.current[at], u.temperature[at], soc, capacity))
    return Start(*(jnp.asarray(np.stack(column), batch.target.dtype) for column in zip(*rows, strict=True)))
