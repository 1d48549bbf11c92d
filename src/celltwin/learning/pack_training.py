"""Training of pack models through their own closed-loop simulation, whole logs at a time.

    L = mean d^2 (sqrt(1 + (e/d)^2) - 1)  +  w mean e_T^2  +  prior         e in 10 mV, d = 3, e_T in K

What a start says about capacity shows an hour later, so the gradient reaches back over the whole log. Batches are packs
side by side as one graph; all batches hold packs of the same topologies in the same order, and one compiled program
serves them all. The average of the weights is validated at intervals, and the best kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from celltwin import files
from celltwin.errors import CelltwinError
from celltwin.learning.training import trainable
from celltwin.models.pack_circuit import Wiring
from celltwin.packs.log import Known, PackBatch, PackLog, side_by_side
from celltwin.physics.pack import PackOutput

UNIT, ROUND = 0.01, 3.0  # V, and how many of it an error may have before its square counts for less
MILLIVOLT = 1e3


class PackPlan(BaseModel):
    """How a pack model is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    updates: NonNegativeInt = 300
    learning_rate: NonNegativeFloat = 5e-3  # its peak; decays to a hundredth as a cosine
    clip: NonNegativeFloat = 1.0
    averaging: float = Field(default=0.95, ge=0, lt=1)
    every: PositiveInt = 50  # updates between validations and checkpoints
    forget: float = Field(default=0.15, ge=0, le=1)  # share of packs whose cells are known by their voltage alone
    temperature: NonNegativeFloat = 0.03  # weight of its error
    seed: NonNegativeInt = 0


class PackProgress(NamedTuple):
    update: int
    train: float  # loss
    validate: float  # mV
    seconds: float


class PackFitted(NamedTuple):
    model: Any
    history: list[PackProgress]
    seconds: float


def fit_packs(
    model: Any,
    train: Sequence[Sequence[PackLog]],
    validate: Sequence[PackLog],
    plan: PackPlan,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    report: Callable[[PackProgress], None] = lambda progress: None,
) -> PackFitted:
    """Train on batches of pack logs; keep the weights that do best on `validate`, or the last where there is none.

    With `checkpoint` the state is written at each validation, and with `resume` an interrupted run goes on from there
    to the same result. Raises CelltwinError where batches differ in topology, the checkpoint is of another run, or the
    loss is not a number.
    """
    names = {tuple(log.topology.name for log in batch) for batch in train}
    if len(names) != 1:
        raise CelltwinError("batches of packs differ in topology", got=len(names), expected="the same in each")
    longest = max(len(log) for batch in train for log in batch)
    stacked = [side_by_side(batch, longest) for batch in train]
    wiring, batches = Wiring.of(stacked[0][0]), [batch for _, batch in stacked]
    params, frozen = eqx.partition(model, trainable(model))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, plan.learning_rate, max(1, plan.updates // 20), max(plan.updates, 2), plan.learning_rate / 100
    )
    optimiser = optax.chain(optax.clip_by_global_norm(plan.clip), optax.adam(schedule))
    state = _State(params, params, params, optimiser.init(params))
    identity = {"plan": plan.model_dump(), "logs": [log.name for batch in train for log in batch]}
    history: list[PackProgress] = []
    if checkpoint is not None and resume and checkpoint.exists():
        about = files.load_about(checkpoint)
        if about["identity"] != files.plain(identity):
            raise CelltwinError(f"{checkpoint} is of another run", fix="train without resume")
        state = files.load_tree(checkpoint, state)
        rows: list[list[Any]] = about["history"]
        history = [PackProgress(int(row[0]), *(float("nan") if v is None else v for v in row[1:])) for row in rows]
    begun, before = time.monotonic(), history[-1].seconds if history else 0.0
    losses: list[float] = []
    for number in range(int(history[-1].update) if history else 0, plan.updates):
        dice = np.random.default_rng([plan.seed, number])
        batch = batches[int(dice.integers(len(batches)))]
        lost = dice.random(len(stacked[0][0].name.split(" | "))) < plan.forget
        known = _forgetting(batch.known, lost[stacked[0][0].pack])
        state, loss = _update(state, frozen, wiring, batch._replace(known=known), optimiser, plan)
        losses.append(float(loss))
        if (number + 1) % plan.every and number + 1 < plan.updates:
            continue
        if not np.isfinite(losses).any():
            raise CelltwinError("training of a pack model diverged", got="no finite loss", fix="lower learning_rate")
        score = root_mean_square(eqx.combine(state.average, frozen), validate)
        past = [p.validate for p in history if np.isfinite(p.validate)]
        if not validate or not past or score < min(past):
            state = state._replace(best=state.average)
        seconds = before + time.monotonic() - begun
        history.append(PackProgress(number + 1, float(np.nanmean(losses)), score, seconds))
        losses = []
        if checkpoint is not None:
            files.save_tree(checkpoint, state, {"identity": identity, "history": [list(p) for p in history]})
        report(history[-1])
    return PackFitted(eqx.combine(state.best, frozen), history, history[-1].seconds if history else 0.0)


class _State(NamedTuple):
    params: Any
    average: Any
    best: Any
    optimiser: Any


def _forgetting(known: Known, lost: np.ndarray) -> Known:
    capacity, resistance = (np.where(lost, np.nan, x).astype(np.float32) for x in known[2:])
    return known._replace(capacity=capacity, resistance=resistance)


@partial(jax.jit, static_argnums=(4, 5))
def _update(state: _State, frozen: Any, wiring: Wiring, batch: PackBatch, optimiser: Any, plan: PackPlan) -> Any:
    def loss(params: Any) -> Any:
        model = eqx.combine(params, frozen)
        out = _scan(model, wiring, batch)
        error = jnp.where(batch.mask, out.voltage - batch.voltage, 0.0) / UNIT
        rounded = jnp.sum(ROUND**2 * (jnp.sqrt(1.0 + (error / ROUND) ** 2) - 1.0)) / jnp.sum(batch.mask)
        warm = jnp.sum(jnp.where(batch.mask_temperature, out.temperature - batch.temperature, 0.0) ** 2)
        warm = warm / jnp.maximum(jnp.sum(batch.mask_temperature), 1)
        prior = model.penalty() / UNIT**2 if hasattr(model, "penalty") else 0.0
        return 2.0 * rounded + plan.temperature * warm + prior

    value, gradient = jax.value_and_grad(loss)(state.params)
    fine = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
    gradient = jax.tree.map(lambda g: jnp.where(fine, g, 0.0), gradient)
    change, inner = optimiser.update(gradient, state.optimiser, state.params)
    params = optax.apply_updates(state.params, change)
    average = jax.tree.map(lambda a, p: plan.averaging * a + (1.0 - plan.averaging) * p, state.average, params)
    return _State(params, average, state.best, inner), value


def _scan(model: Any, wiring: Wiring, batch: PackBatch) -> PackOutput:
    runner, state = model.bind(wiring, batch.known)

    def step(carry: Any, u: Any) -> Any:
        return runner.step(carry, u)

    return jax.lax.scan(jax.checkpoint(step), state, batch.inputs)[1]


_simulate = eqx.filter_jit(_scan)


def predict(model: Any, logs: Sequence[PackLog], together: int = 6, multiple: int = 300) -> list[PackOutput]:
    """Closed-loop simulations of packs, one PackOutput of arrays [time, cells] for each log.

    Logs of equal steps that follow one another are simulated side by side, `together` at a time; where the topologies
    of every so many are the same in the same order, one compiled program serves them all.
    """
    found: list[PackOutput] = []
    alike = [list(each) for _, each in groupby(logs, key=lambda log: log.dt)]
    for some in (each[first : first + together] for each in alike for first in range(0, len(each), together)):
        topology, batch = side_by_side(some, multiple)
        out = jax.tree.map(np.asarray, _simulate(model, Wiring.of(topology), batch))
        for at, log in enumerate(some):
            cells, time = topology.pack == at, len(log)
            columns = {name: getattr(out, name)[:time, cells] for name in ("voltage", "soc", "temperature", "current")}
            found.append(PackOutput(**columns, pack_voltage=out.pack_voltage[:time, at]))  # pyright: ignore[reportArgumentType]
    return found


def root_mean_square(model: Any, logs: Sequence[PackLog]) -> float:
    """RMSE in mV over all measured voltages of all cells; NaN without logs."""
    if not logs:
        return float("nan")
    pairs = zip(predict(model, logs), logs, strict=True)
    errors = [(out.voltage - log.voltage)[np.isfinite(log.voltage)] for out, log in pairs]
    return MILLIVOLT * float(np.sqrt(np.mean(np.square(np.concatenate(errors)))))
