"""Jobs: a model, a plan and a seed become a twin; several of them, two at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

import celltwin.estimators  # noqa: F401  makes them known by name
from celltwin import __version__, models, twin
from celltwin.data import splits
from celltwin.data.datasets import Dataset
from celltwin.data.domain import Domain
from celltwin.data.record import Cell, Record
from celltwin.data.splits import Fold, Split, refuse_seen
from celltwin.errors import CelltwinError
from celltwin.experiment import Experiment
from celltwin.learning import bands, training, transfer
from celltwin.learning.plan import Plan
from celltwin.learning.training import Progress
from celltwin.models.ensemble import Ensemble
from celltwin.models.hybrid import FixedCircuit
from celltwin.twin import Twin

log = logging.getLogger("celltwin")

Listen = Callable[[str, float, Progress | None], None]  # job, share done, the round that ended


@dataclass(frozen=True)
class Job:
    """One model to train with one seed, on a whole split or one of its folds."""

    family: models.Family
    seed: int
    plan: Plan | None
    fold: int | None = None

    @property
    def name(self) -> str:
        return f"{self.family.name}-{self.seed}" + ("" if self.fold is None else f".fold{self.fold}")


def train(
    job: Job,
    dataset: Dataset,
    split: Split,
    base: Twin | None = None,
    *,
    source: Twin | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    listen: Listen = lambda job, share, progress: None,
    stop: threading.Event | None = None,
) -> Twin:
    """Train one model on a split and return its twin, with a card that says where it comes from.

    With `source`, a twin of the same family, training begins from its weights, suited to the dataset's cell and records
    (celltwin.learning.transfer), and by `gentle` means; `base` must then come from its base, see `bases_of`.

    Raises training.Interrupted when `stop` is set; the checkpoint then holds the last whole round.
    """
    if not split.train:
        raise CelltwinError("there is no record to train on", fix="name some in [split] train of dataset.toml")
    domain = Domain.of(split.train)
    refuse_seen(domain, split)
    key = jax.random.key(job.seed)
    begun: dict[str, Any] | None = None
    if source is None:
        model = job.family.create(split.train, domain, key, base.model if base else None)
    else:
        refuse_seen(source.domain, split)
        model, begun = _begin(job.family, source, dataset.cell, split, base)
        domain = replace(domain, seen=tuple(sorted({*domain.seen, *source.domain.seen})))
    history: list[Progress] = []
    began = time.monotonic()
    seconds = None
    if job.plan is not None:
        fitted = training.fit(
            transfer.Anchored.of(model, split.train) if source else model,
            split,
            job.plan,
            task=job.family.task,
            origin=transfer.digest(model) if source else None,
            checkpoint=checkpoint,
            resume=resume,
            report=lambda progress: listen(job.name, progress.round / progress.rounds, progress),
            tick=lambda share: listen(job.name, share, None),
            stop=stop,
        )
        model, history, seconds = fitted
        model = model.model if isinstance(model, transfer.Anchored) else model
    if seconds is None:
        seconds = time.monotonic() - began
    card = {
        "title": job.family.title,
        "dataset": dataset.name,
        "licence": dataset.description.source.licence,
        "citation": dataset.description.source.citation,
        "split": labels(split),
        "seed": job.seed,
        "plan": job.plan.model_dump() if job.plan else None,
        "parameters": training.parameters(model),
        "training_seconds": seconds + (base.card["training_seconds"] if base else 0.0),
        "history": [p._asdict() for p in history],
        "identity": identity(job, split),
    }
    if begun is not None:
        card["from"] = begun
    return with_bands(Twin(job.family.name, model, domain, dataset.cell, card, job.family.task), split)


def bases_of(source: Twin, name: str) -> list[Twin | None]:
    """What each member of the chain of a model begins with, given a twin to begin from: its base's base first.

    Raises CelltwinError for a twin of another family, of the state of charge, of a model that is not trained, and of
    one whose base is not inside it.
    """
    family = models.family(name)
    if source.name != name:
        raise CelltwinError(
            "training cannot begin from this twin",
            got=f"a {source.name}",
            expected=f"a {name}, whose weights fit",
            fix=f"celltwin fit {source.name}, or another --from",
        )
    source.refuse_unless("voltage")
    if family.plan is None:
        raise CelltwinError(f"{name} needs no training", got="a twin to begin from", fix="leave --from out")
    if family.base is None:
        return [source]
    circuit = getattr(source.model, "base", None)
    if not isinstance(circuit, FixedCircuit):
        raise CelltwinError(f"{name} does not hold the model that it is built on", fix="leave --from out")
    below = replace(source, name=family.base, model=circuit.circuit)
    return [*bases_of(below, family.base), source]


def gentle(plan: Plan) -> Plan:
    """The plan for a model that was trained before: a third of the rate."""
    return plan.model_copy(update={"learning_rate": plan.learning_rate / 3.0})


def _begin(
    family: models.Family, source: Twin, cell: Cell, split: Split, base: Twin | None
) -> tuple[Any, dict[str, Any]]:
    """The model that training begins with, the best of those that a source gives, and what the card says of it.

    Raises CelltwinError for a source that is no model of this family.
    """
    read = transfer.read_by(source.model, source.cell, cell)
    starts = {"by the cells' facts": read}
    if base is None:
        starts["resistance and open-circuit voltage by least squares"] = transfer.fitted(read, split.train)
    else:
        starts["on its fine-tuned circuit"] = replace(read, base=FixedCircuit(base.model))
    start, errors = transfer.best(starts, split.validate or split.train)
    about = {
        "name": source.name,
        "cell": source.cell.name,
        "dataset": source.card.get("dataset"),
        "weights": transfer.digest(source.model),
        "start": start,
        "errors": errors,  # of each start in mV, on the validation records, or the training records without any
    }
    return starts[start], about


def with_bands(one: Twin, split: Split, unseen: Sequence[bands.Errors] = ()) -> Twin:
    """The twin with the bands that the split's training and validation records give it; none of an estimator.

    With `unseen`, errors on training cycles of models that were trained without them, these stand in for the twin's own
    on its training records, and count as the validation records do; the card says how large they are.
    """
    if one.task != "voltage":
        return one
    trained = unseen or errors(one, split.train)
    left_out = {"left_out": {"cycles": len(unseen), "rmse": bands.rmse(unseen)}} if unseen else {}
    found = bands.calibrate(trained, [*unseen, *errors(one, split.validate)])
    return replace(one, bands=found, card=one.card | left_out)


def errors(one: Twin, records: Sequence[Record]) -> list[bands.Errors]:
    """Of the closed-loop simulations of whole records by a twin."""
    return bands.errors_of(one.runner, [one.with_facts(record) for record in records])


def with_bands_of_folds(
    jobs: Sequence[Job], twins: Mapping[str, Twin], split: Split, folds: Sequence[Fold]
) -> dict[str, Twin]:
    """The twins of the whole split by name of job, with bands from the cycles that were left out of each fold.

    Folds are of the first seed, and their errors set the bands of every seed.
    """
    unseen: dict[str, list[bands.Errors]] = {}
    for job in jobs:
        if job.fold is not None:
            unseen.setdefault(job.family.name, []).extend(errors_left_out(twins[job.name], folds[job.fold]))
    for name, found in unseen.items():
        log.info("%s: RMSE %.2f mV on training cycles left out", name, bands.rmse(found))
    whole = [job for job in jobs if job.fold is None]
    return {job.name: with_bands(twins[job.name], split, unseen[job.family.name]) for job in whole}


def errors_left_out(one: Twin, fold: Fold) -> list[bands.Errors]:
    """Errors of a fold's twin on what was left out. Raises CelltwinError where it saw that in training."""
    seen = [record.label for record in fold.left_out if record.content_hash in one.domain.seen]
    if seen:
        raise CelltwinError(
            f"a model of a fold has seen '{seen[0]}'",
            got="a cycle that was left out, among its training records",
            expected="a model that was trained without it",
            fix="train the folds of this split anew, from nothing",
        )
    return errors(one, fold.left_out)


def unseen_in(run: Path, name: str, asked: Experiment, split: Split) -> list[bands.Errors]:
    """Errors on training cycles of a model that a run trained without them; none where it was not asked for folds."""
    found = []
    for number, fold in enumerate(splits.folds(split, asked.folds) if asked.folds else ()):
        job = Job(models.family(name), asked.seed_numbers[0], None, number)
        found += errors_left_out(twin.load(run / "folds" / f"{job.name}.twin"), fold)
    return found


def ensemble(members: Sequence[Twin], split: Split, unseen: Sequence[bands.Errors] = ()) -> Twin:
    """One twin of the trained seeds of a model or estimator; a voltage model has bands of its own, as `with_bands`.

    Raises CelltwinError where they are not of one model, trained on the split's training records.
    """
    first = members[0]
    trained_on = tuple(sorted(r.content_hash for r in split.train))
    for one in members:
        if one.name != first.name or one.domain.seen != trained_on:
            raise CelltwinError(
                "twins of an ensemble are not alike",
                got=f"{one.name} of seed {one.card['seed']}",
                expected=f"seeds of {first.name}, trained on the records of the split",
            )
    model = Ensemble.of([one.model for one in members])
    card = first.card | {
        "title": f"mean of {len(members)} seeds: {first.card['title']}",
        "seed": [one.card["seed"] for one in members],
        "parameters": training.parameters(model),
        "training_seconds": sum(one.card["training_seconds"] for one in members),
        "history": [],
        "identity": [one.card["identity"] for one in members],
    }
    card.pop("validation", None)
    return with_bands(replace(first, name=f"{first.name}-ensemble", model=model, card=card), split, unseen)


def identity(job: Job, split: Split) -> str:
    """Hash of all that decides a training's result: model, plan, seed, records, version."""
    sides = [[r.content_hash for r in side] for side in (split.train, split.validate)]
    facts = [job.family.name, job.seed, job.plan.model_dump() if job.plan else None, sides, __version__]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def labels(split: Split) -> dict[str, list[str]]:
    """The records of each side by name, for cards and reports."""
    return {side: [r.label for r in getattr(split, side)] for side in ("train", "validate", "test")}


def quick(plan: Plan) -> Plan:
    """A fifth of a plan: to see that everything works, not to judge a model."""
    fewer = {k: max(1, getattr(plan, k) // 5) if getattr(plan, k) else 0 for k in ("adam_rounds", "lbfgs_rounds")}
    return plan.model_copy(update=fewer)


def jobs_of(
    names: Sequence[str],
    seeds: Sequence[int],
    quickly: bool,
    split: Split,
    changes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    folds: int = 0,
) -> list[Job]:
    """Jobs in the order to start them: bases of others first, models built on one last; folds after all seeds.

    `changes` are settings of plans by model. Raises CelltwinError where one is of a model that is not trained here.
    """
    chosen = list(dict.fromkeys(one for name in names for one in chain(name)))
    trained = [family.name for family in chosen if family.plan]
    for name in changes:
        if name not in trained:
            raise CelltwinError(
                f"training.{name} changes nothing",
                got=f"{name}, which is not trained here",
                expected=", ".join(trained) or "no [training], as no model is trained",
            )
    jobs = []
    for family in chosen:
        plan = family.plan and family.plan.for_samples(sum(len(r) for r in split.train))
        plan = quick(plan) if plan and quickly else plan
        plan = plan and plan.model_copy(update=dict(changes.get(family.name, {})))
        for seed in seeds if family.seeded else seeds[:1]:
            jobs.append(Job(family, seed, plan and plan.model_copy(update={"seed": seed})))
    jobs += [replace(job, fold=fold) for job in jobs if job.seed == seeds[0] for fold in range(folds)]
    bases = {job.family.base for job in jobs}

    def order(job: Job) -> tuple[bool, int, bool]:
        return job.fold is not None, len(chain(job.family.name)), job.family.name not in bases

    return sorted(jobs, key=order)


def chain(name: str) -> list[models.Family]:
    """What must be trained for a model: the base of its base first, the model itself last."""
    family = models.family(name)
    return [*(chain(family.base) if family.base else []), family]


def train_all(
    jobs: Sequence[Job],
    dataset: Dataset,
    split: Split,
    out: Path,
    resume: bool,
    listen: Listen,
    folds: Sequence[Fold] = (),
) -> dict[str, Twin]:
    """Train all jobs, two at a time; a job with a base waits for it. The twins by name of job."""
    stop = threading.Event()
    done: dict[str, Future[Twin]] = {}
    # One seed of a base that does not depend on the seed serves every seed of the models built on it.
    first = {(job.family.name, job.fold): job for job in reversed(jobs)}

    def work(job: Job) -> Twin:
        path = out / ("twins" if job.fold is None else "folds") / f"{job.name}.twin"
        mine = split if job.fold is None else folds[job.fold].split
        if resume and path.exists():
            finished = twin.load(path)
            if finished.card["identity"] == identity(job, mine):
                listen(job.name, 1.0, None)
                return finished
        base = None
        if job.family.base:
            same_seed = replace(job, family=models.family(job.family.base)).name
            base = done[same_seed if same_seed in done else first[job.family.base, job.fold].name].result()
        checkpoint = out / "checkpoints" / f"{job.name}.safetensors"
        made = train(job, dataset, mine, base, checkpoint=checkpoint, resume=resume, listen=_logged(listen), stop=stop)
        made.save(path)
        checkpoint.unlink(missing_ok=True)
        log.info("%s trained in %.0f s", job.name, made.card["training_seconds"])
        return made

    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        for job in jobs:
            done[job.name] = pool.submit(work, job)
        try:
            wait(done.values(), return_when=FIRST_EXCEPTION)
            for future in done.values():
                if future.done():
                    future.result()  # the failed one first, before waiting for what it took down
            return {name: future.result() for name, future in done.items()}
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _logged(listen: Listen) -> Listen:
    def both(job: str, share: float, progress: Progress | None) -> None:
        if progress is not None:
            log.info(
                "%s round %d/%d: train %.2f, validate %.2f, %.0f s",
                job,
                progress.round,
                progress.rounds,
                progress.train,
                progress.validate,
                progress.seconds,
            )
        listen(job, share, progress)

    return both
