"""The packs that pack models are trained and tested on, and what they are scored by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from celltwin.data.datasets import Dataset
from celltwin.data.record import Record
from celltwin.errors import CelltwinError
from celltwin.packs.draw import CUT_OFF, Fault, Order, demo_circuit, draw
from celltwin.packs.log import PackLog
from celltwin.physics.circuit import Circuit

TRAINED = ("4s2p", "6s1p", "5s3p", "8s2p", "10s1p", "12s3p")
LARGE = "96s2p"
OTHERS = ("16s4p", "20s1p", "3p+2p+4s2p", "2p7s", "24s2p", "7s5p")
KNOWN, OTHER = "known topologies", "other topologies"  # than those of training


class Sides(NamedTuple):
    """Logs of simulated packs. Cells of one side are on no other, and neither is a drive cycle of the test.

    Test packs by the set they are of: KNOWN, as in training, LARGE and OTHER.
    """

    train: list[list[PackLog]]  # batches
    validate: list[PackLog]
    test: dict[str, list[PackLog]]
    earlier: dict[str, list[PackLog]]  # the same packs on a day before, to the end of their discharge


@dataclass(frozen=True)
class Sizes:
    """How many batches of the packs of TRAINED, of LARGE and of OTHERS are drawn."""

    train: int = 8
    known: int = 4
    large: int = 8
    others: int = 3


def simulated(dataset: Dataset, sizes: Sizes, seed: int = 0) -> tuple[Circuit, Sides]:
    """Packs driven by the cycles of a dataset: training cycles for training packs, test cycles for test packs.

    Each log ends where its first cell is empty, which is when a BMS stops. Raises CelltwinError where a side of the
    dataset has no cycles.
    """
    split = dataset.split()
    circuit = demo_circuit()
    cycles = {side: _warm(getattr(split, side), side) for side in ("train", "validate", "test")}

    def batch(names: Sequence[str], side: str, number: int, day: int = 0) -> list[PackLog]:
        chosen = cycles[side]
        dice = np.random.default_rng([seed, number, day] if day else [seed, number])
        orders = [
            Order(name, 1000 * number + i + 1_000_000 * seed, chosen[int(dice.integers(len(chosen)))], day=day)
            for i, name in enumerate(names)
        ]
        return draw(orders, circuit)

    def tests(day: int) -> dict[str, list[PackLog]]:
        known = [log for n in range(sizes.known) for log in batch(TRAINED, "test", 300 + n, day)]
        large = [log for n in range(-(-sizes.large // 2)) for log in batch((LARGE, LARGE), "test", 400 + n, day)]
        others = [log for n in range(sizes.others) for log in batch(OTHERS, "test", 500 + n, day)]
        return {KNOWN: known, LARGE: large[: sizes.large], OTHER: others}

    train = [[ended(log) for log in batch(TRAINED, "train", 100 + n)] for n in range(sizes.train)]
    validate = [ended(log) for log in batch(TRAINED, "validate", 200)]
    earlier = {side: [ended(log) for log in logs] for side, logs in tests(1).items()}
    return circuit, Sides(train, validate, tests(0), earlier)


def faulty(dataset: Dataset, fault: Fault | None, names: Sequence[str], seed: int, day: int = 0) -> list[PackLog]:
    """Packs of these topologies with a fault (None: healthy), on test cycles."""
    cycles, circuit = _warm(dataset.split().test, "test"), demo_circuit()
    dice = np.random.default_rng([seed, 7, day] if day else [seed, 7])
    orders = [
        Order(name, seed + i, cycles[int(dice.integers(len(cycles)))], fault, day) for i, name in enumerate(names)
    ]
    return [ended(log) for log in draw(orders, circuit)]


def _warm(records: Sequence[Record], side: str) -> list[Record]:
    """Cycles driven at room temperature, or all where none was: those in the cold are cut short."""
    if not records:
        raise CelltwinError(f"the dataset has no {side} cycles", fix="name some in [split] of its dataset.toml")
    return [r for r in records if r.ambient_degC == 25.0] or list(records)


def empty_at(voltage: np.ndarray, cut_off: float = CUT_OFF) -> tuple[int, int]:
    """The sample at which the first cell falls below the cut-off, and that cell; (-1, -1) where none does."""
    below = (voltage < cut_off).any(axis=1)
    if not below.any():
        return -1, -1
    at = int(np.argmax(below))
    return at, int(np.argmin(voltage[at]))


def ended(log: PackLog) -> PackLog:
    """The log up to where its first cell is empty, by the true voltage where that is known."""
    at, _ = empty_at(log.truth.get("voltage", log.voltage))
    return log if at < 0 else log.until(max(at, 2))
