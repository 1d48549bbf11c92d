"""Training in the background: one at a time in a process, to be watched, stopped and gone on with."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

from celltwin import jobs, models
from celltwin.data.datasets import Dataset
from celltwin.data.splits import Split
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
from celltwin.jobs import Job
from celltwin.learning.plan import Plan
from celltwin.learning.tasks import TASKS
from celltwin.learning.training import Interrupted, Progress
from celltwin.twin import Twin

log = logging.getLogger("celltwin")

EFFORTS = {
    "full": "full: the plan that the figures of the documentation come from",
    "quick": "quick: a fifth of it, to see where it leads",
    "try-out": "try-out: seconds, to see that everything works",
}


def lessened(plan: Plan, effort: str, samples: int) -> Plan:
    """A family's plan for a number of training samples and an effort (a name in EFFORTS)."""
    if effort == "try-out":
        fewer = {"adam_rounds": min(plan.adam_rounds, 2), "updates": 10, "lanes": 8, "chunk": 100}
        rounds = 0 if plan.adam_rounds else min(plan.lbfgs_rounds, 2)
        return plan.model_copy(update=fewer | {"lbfgs_rounds": rounds, "iterations": 3})
    plan = plan.for_samples(samples)
    return jobs.quick(plan) if effort == "quick" else plan


@dataclass
class Training:
    """One training: what it is to do, how far it is, and what came of it. Read it from any thread."""

    family: models.Family
    effort: str
    dataset: Dataset
    split: Split
    folder: Path  # of its checkpoints
    status: str = "running"  # then "stopped", "failed" or "done"
    model: str = ""  # what is being trained now: a base of the family, or the family
    share: float = 0.0  # of that model
    history: dict[str, list[Progress]] = field(default_factory=dict)  # rounds that ended, by model
    twin: Twin | None = None
    rows: list[protocol.Row] = field(default_factory=list)  # its figures on the test records
    error: CelltwinError | None = None
    taken: bool = False  # has its session taken the twin up?
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def stop(self) -> None:
        """Ask it to end soon; its checkpoint holds the last whole round."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        """Until it has ended, or for so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    @property
    def stopping(self) -> bool:
        """Was it asked to end, and has it not yet?"""
        return self.status == "running" and self._stop.is_set()

    @property
    def told(self) -> str:
        """How far it is, in words."""
        rounds = self.history.get(self.model, [])
        last = rounds[-1] if rounds else None
        unit = TASKS[models.family(self.model or self.family.name).task].unit
        words = f"{self.model or self.family.name}: {100 * self.share:.0f} %"
        if last is not None:
            words += f", round {last.round} of {last.rounds}, training {last.train:.2f} {unit}"
            if last.validate == last.validate:
                words += f", validation {last.validate:.2f} {unit}"
        return words


class Trainer:
    """The one place in a process where models are trained."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Training | None = None

    def begin(self, training: Training, resume: bool = False) -> Training:
        """Start it in a thread of its own. Raises CelltwinError where one runs already."""
        with self._lock:
            other = self._running
            if other is not None and other.status == "running":
                raise CelltwinError(
                    "another training runs in this studio",
                    got=other.told,
                    expected="one at a time, so that each is as fast as it can be",
                    fix="wait until it is done, or stop it in its own browser tab",
                )
            self._running = training
            training.status, training.error = "running", None
            training._stop.clear()
            training._thread = threading.Thread(
                target=_work, args=(training, resume), name="celltwin-training", daemon=True
            )
            training._thread.start()
        return training

    def stop(self) -> None:
        """End what runs, and wait for it."""
        if self._running is not None:
            self._running.stop()
            self._running.wait(30.0)


def _work(training: Training, resume: bool) -> None:
    try:
        training.twin = _train(training, resume)
        training.rows = protocol.evaluate(training.twin, training.split.test) if training.split.test else []
        training.status = "done"
    except Interrupted:
        training.status = "stopped"
    except CelltwinError as error:
        training.error, training.status = error, "failed"
    except Exception as error:  # a thread that dies silently would leave the page waiting
        log.exception("training failed")
        training.error = CelltwinError("training failed", got=f"{type(error).__name__}: {error}")
        training.status = "failed"


def _train(training: Training, resume: bool) -> Twin:
    made: Twin | None = None
    samples = sum(len(record) for record in training.split.train)
    for family in jobs.chain(training.family.name):
        name = family.name
        training.model, training.share = name, 0.0
        checkpoint = training.folder / f"{name}.checkpoint"
        rounds = training.history.setdefault(name, [])
        if not resume:
            rounds.clear()

        def listen(job: str, share: float, progress: Progress | None, rounds: list[Progress] = rounds) -> None:
            training.share = share
            if progress is not None:
                rounds.append(progress)

        plan = family.plan and lessened(family.plan, training.effort, samples)
        made = jobs.train(
            Job(family, 0, plan),
            training.dataset,
            training.split,
            made,
            checkpoint=checkpoint,
            resume=resume,
            listen=listen,
            stop=training._stop,
        )
        # A run that goes on from a checkpoint tells only the rounds that it adds.
        training.history[name] = [Progress(**p) for p in made.card["history"]]
        training.share = 1.0
    assert made is not None
    if training.split.validate:
        made.card["validation"] = [protocol.figures(r) for r in protocol.evaluate(made, training.split.validate)]
    return made
