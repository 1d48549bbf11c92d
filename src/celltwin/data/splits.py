"""Which records train, validate and test, and the guard that keeps them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.errors import CelltwinError

# State of charge, and what it is counted from: never an input of a model that is to estimate it.
LABELS = frozenset({"soc", "net_capacity_ah", "charge_ah"})


@dataclass(frozen=True)
class Split:
    """Whole records on three sides. Making one with a record on two sides is refused."""

    train: tuple[Record, ...]
    validate: tuple[Record, ...]
    test: tuple[Record, ...]

    def __post_init__(self) -> None:
        side_of: dict[str, tuple[str, Record]] = {}
        for side in ("train", "validate", "test"):
            for record in getattr(self, side):
                other, twin = side_of.setdefault(record.content_hash, (side, record))
                if twin is not record:
                    raise CelltwinError(
                        f"the same measurement is used twice: '{record.label}' ({side}) and '{twin.label}' ({other})",
                        got="two records with equal content",
                        expected="every record once, on one side of the split",
                        fix="remove the copy from the dataset's files",
                    )
                if other != side:
                    raise CelltwinError(
                        f"record '{record.label}' is on two sides of the split",
                        got=f"{other} and {side}",
                        expected="one side",
                        fix="make the patterns of [split] in dataset.toml disjoint",
                    )


def matches(record: Record, pattern: str) -> bool:
    """Does a pattern name this record? It is compared with <cycle>, <ambient>/<cycle> or <cell>/<ambient>/<cycle>.

    As many parts as the pattern has are compared, so "Mixed*" is every such cycle and "B/*/LA92" one of cell B.
    """
    parts = pattern.split("/")
    return fnmatchcase("/".join(record.key.split("/")[-len(parts) :]), pattern)


def select(records: Sequence[Record], patterns: Sequence[str]) -> tuple[Record, ...]:
    """Records that any of the glob patterns names, in their order.

    Raises CelltwinError where a pattern matches nothing.
    """
    for pattern in patterns:
        if not any(matches(record, pattern) for record in records):
            keys = sorted({record.key.lstrip("/") for record in records})
            raise CelltwinError(
                f"the pattern '{pattern}' matches no record",
                got=", ".join(keys[:8]) + (" ..." if len(keys) > 8 else ""),
                expected="a glob of <cycle>, <ambient>/<cycle> or <cell>/<ambient>/<cycle>",
                fix="correct the pattern, or [split] in dataset.toml",
            )
    return tuple(r for r in records if any(matches(r, p) for p in patterns))


def by_patterns(records: Sequence[Record], patterns: Mapping[str, Sequence[str]]) -> Split:
    """Split by whole record: `patterns` holds glob patterns for train, validate and test."""
    return Split(*(select(records, patterns.get(side, ())) for side in ("train", "validate", "test")))


def shortened(split: Split, seconds: float) -> Split:
    """The split with no more than the first `seconds` of its training records, which follow each other in their order.

    The other sides stay whole. Raises CelltwinError where less than a second sample would be left.
    """
    kept: list[Record] = []
    left = seconds
    for record in split.train:
        length = int(np.searchsorted(record.time, record.time[0] + left, side="right"))
        if length >= 2:
            kept.append(record if length >= len(record) else record.between(0, length))
        left -= float(record.time[-1] - record.time[0])
        if left <= 0.0:
            break
    if not kept:
        raise CelltwinError("there is nothing left to train on", got=f"{seconds:g} s", fix="allow for more minutes")
    return replace(split, train=tuple(kept))


@dataclass(frozen=True)
class Fold:
    """A split without some of its training records, and these."""

    split: Split
    left_out: tuple[Record, ...]


def refuse_folds(count: int, task: str) -> None:
    """Raise CelltwinError where folds are asked for what they do nothing for: they set the bands of voltage models."""
    if count and task != "voltage":
        raise CelltwinError(
            "folds are for the bands of voltage models", got=f"{count} folds, task {task}", fix="leave folds out"
        )


def folds(split: Split, count: int) -> tuple[Fold, ...]:
    """The training records in `count` parts, each left out of the training once; no test records.

    By drive cycle: records of one name stay together, at all temperatures and of all cells. Where all have one name,
    by record. There are no more parts than there are cycles. Raises CelltwinError for less than two.
    """
    alike = len({record.name for record in split.train}) == 1
    named = {record.content_hash: record.key if alike else record.name for record in split.train}
    units = sorted(set(named.values()))
    parts = [set(units[k::count]) for k in range(min(count, len(units)))]
    if len(parts) < 2:
        raise CelltwinError(
            "the training records cannot be divided",
            got=f"{len(units)} cycles, {count} folds",
            expected="two of each at least",
        )
    made = []
    for part in parts:
        kept, left_out = (
            tuple(r for r in split.train if (named[r.content_hash] in part) == out) for out in (False, True)
        )
        made.append(Fold(Split(kept, split.validate, ()), left_out))
    return tuple(made)


def refuse_seen(domain: Domain, split: Split) -> None:
    """Refuse a scaling or training domain that was measured on a validation or test record."""
    seen = set(domain.seen)
    for side in ("validate", "test"):
        for record in getattr(split, side):
            if record.content_hash in seen:
                raise CelltwinError(
                    f"the scaling saw {side} record '{record.label}'",
                    got="a scaling fitted on it",
                    expected="a scaling fitted on training records alone",
                    fix="fit it with Domain.of(split.train)",
                )


def refuse_label(
    inputs: Mapping[str, np.ndarray],
    computed_from: Mapping[str, Sequence[str]],
    label: np.ndarray,
    demonstration: bool = False,
) -> None:
    """Refuse an input that is, or is computed from, the label.

    Args:
        inputs: each input's values [time].
        computed_from: the columns that each input was computed from, declared by whoever made it.
        label: the state of charge [time], a fraction.
        demonstration: let everything pass, to show what a leak does to a score.

    Raises CelltwinError for an input with a label among its columns, one with no declared origin, and one whose
    values give the label away: an affine function of it, or of its trailing mean over up to 500 samples.
    """
    if demonstration:
        return
    for name, values in inputs.items():
        origin = set(computed_from.get(name, ()))
        if not origin:
            raise CelltwinError(f"the origin of input '{name}' is not declared", fix="say what it is computed from")
        if leaked := sorted((origin | {name}) & LABELS):
            raise CelltwinError(
                f"input '{name}' leaks the label",
                got=f"computed from {', '.join(leaked)}",
                expected="inputs computed from measured voltage, current and temperature",
                fix="drop the input",
            )
        for window in (1, 5, 20, 50, 100, 200, 500):
            if window >= len(label) // 2:
                break
            mean = np.convolve(label, np.full(window, 1.0 / window), mode="valid")
            given = np.asarray(values, np.float64)[window - 1 :]
            if np.std(given) > 0 and np.std(mean) > 0 and abs(np.corrcoef(given, mean)[0, 1]) > 1 - 1e-8:
                raise CelltwinError(
                    f"input '{name}' leaks the label",
                    got=f"values that are an affine function of the label's trailing mean over {window} samples",
                    expected="inputs computed from measured voltage, current and temperature",
                    fix="drop the input",
                )
