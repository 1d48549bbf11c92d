"""How the cells of a pack are wired: series-parallel notation, and netlists.

    96s2p        96 groups in series, each of 2 cells in parallel
    32p10s       32 strings in parallel, each of 10 cells in series: what stands first is outermost
    2p48s3p      2 strings in parallel of 48 groups in series of 3 cells
    3p+2p+4s2p   in series: a group of 3, a group of 2, then 4 groups of 2

A `Topology` is a tree, held as levels from the cells to the terminals that alternate between parallel and series. A
`Netlist` is any circuit of resistors and cells, such as one with resistive busbars between the cells of a group; that
of liionpack is read as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from celltwin.errors import CelltwinError

MOST_CELLS = 1_000_000


@dataclass(frozen=True, eq=False)
class Topology:
    """A series-parallel tree, or several side by side (a forest of `packs`).

    `parents[l]` says for each node of level l, cells first, which node of level l + 1 it is part of. The children of a
    node at even levels are in parallel, at odd levels in series. Nodes of the last level are packs. `place` is where a
    cell stands, [cells, 2] as (row, column): neighbours in heat are one apart.
    """

    name: str
    parents: tuple[np.ndarray, ...]
    place: np.ndarray
    neighbours: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))  # [pairs, 2]

    @property
    def cells(self) -> int:
        return len(self.parents[0])

    @property
    def group(self) -> np.ndarray:
        """The parallel group that each cell is part of, [cells]."""
        return self.parents[0]

    @property
    def groups(self) -> int:
        return self.sizes[1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes of each level, from cells to packs."""
        return (*(len(parent) for parent in self.parents), int(self.parents[-1].max()) + 1)

    @property
    def packs(self) -> int:
        return self.sizes[-1]

    @property
    def pack(self) -> np.ndarray:
        """The pack that each cell is part of, [cells]."""
        at = np.arange(self.cells)
        for parent in self.parents:
            at = parent[at]
        return at

    @property
    def share(self) -> np.ndarray:
        """The share of its pack's current that each cell carries if all are equal, [cells]."""
        share = np.ones(self.packs)
        for level in reversed(range(len(self.parents))):
            parent = self.parents[level]
            count = np.bincount(parent, minlength=self.sizes[level + 1]) if level % 2 == 0 else np.ones(len(share))
            share = (share / count)[parent]
        return share


def parse(text: str) -> Topology:
    """The topology that a notation names, see above. Raises CelltwinError for what is no such notation."""
    terms = [term.strip() for term in text.lower().split("+")]
    for term in terms:
        factors = [int(n) for n in re.findall(r"\d+", term)]
        if not re.fullmatch(r"(\d+[sp])+", term) or min(factors) < 1 or np.prod(factors, dtype=float) > MOST_CELLS:
            raise CelltwinError(
                f"'{text}' is no topology",
                got=term or "nothing",
                expected=f"numbers with s (series) or p (parallel), outermost first, of at most {MOST_CELLS} cells",
                fix="e.g. 96s2p: 96 groups in series of 2 cells in parallel",
            )
    trees = [_tree(re.findall(r"(\d+)([sp])", term)) for term in terms]
    return _levels(text, trees[0] if len(trees) == 1 else ("s", trees))


_Tree = Any  # a cell is None; a node is ("s" or "p", its children)


def _tree(factors: Sequence[tuple[str, str]]) -> _Tree:
    if not factors:
        return None
    (count, kind), *inner = factors
    return (kind, [_tree(inner)] * int(count))


def _levels(name: str, tree: _Tree) -> Topology:
    """The tree as levels: parallel and series in turn, with nodes of one child where the tree has none."""
    depth = 2 * max(1, -(-_level(tree) // 2))
    parents: list[list[int]] = [[] for _ in range(depth)]
    made = [0] * (depth + 1)

    def build(node: _Tree, level: int) -> None:
        mine = made[level]
        made[level] += 1
        if level:
            for child in _children(node, "p" if level % 2 else "s"):
                parents[level - 1].append(mine)
                build(child, level - 1)

    build(tree, depth)
    levels = tuple(np.array(parent, np.int32) for parent in parents)
    place = _places(levels)
    return Topology(name, levels, place, _adjacent(place))


def _children(node: _Tree, kind: str) -> list[_Tree]:
    """Children of a node at a level of some kind: its own, with nested ones of the same kind drawn up, or itself."""
    if node is None or node[0] != kind:
        return [node]
    return [grandchild for child in node[1] for grandchild in _children(child, kind)]


def _level(node: _Tree) -> int:
    """The lowest level that a node can stand on: groups in parallel on odd ones, series on even ones."""
    if node is None:
        return 0
    below = max(_level(child) for child in _children(node, node[0]))
    odd = node[0] == "p"
    return below + 1 if (below + 1) % 2 == odd else below + 2


def _places(parents: Sequence[np.ndarray]) -> np.ndarray:
    """A cell's row is its group's number along its string; its column runs across the group, then the strings."""
    within, row = (_within(parent) for parent in parents[:2])
    group, string = parents[0], parents[1][parents[0]]
    width = int(within.max()) + 1
    return np.stack([row[group], within + string * width], axis=1)


def _within(parent: np.ndarray) -> np.ndarray:
    """How many siblings come before each node; siblings lie together."""
    first = np.r_[0, np.flatnonzero(np.diff(parent)) + 1]
    return np.arange(len(parent)) - np.repeat(first, np.diff(np.r_[first, len(parent)]))


def _adjacent(place: np.ndarray) -> np.ndarray:
    """Pairs of cells one place apart along a row or column."""
    at = {(int(r), int(c)): i for i, (r, c) in enumerate(place)}
    pairs = [(i, at[near]) for (r, c), i in at.items() for near in ((r + 1, c), (r, c + 1)) if near in at]
    return np.array(pairs, np.int32).reshape(-1, 2)


def join(topologies: Iterable[Topology]) -> Topology:
    """Several topologies side by side, as one forest; each keeps its own terminals."""
    parts = list(topologies)
    depth = max(len(part.parents) for part in parts)
    levels: list[list[np.ndarray]] = [[] for _ in range(depth)]
    offsets, cells, neighbours = [0] * (depth + 1), 0, []
    for part in parts:
        padding = (np.arange(part.packs, dtype=np.int32),) * (depth - len(part.parents))
        sizes = (*part.sizes, *(part.packs for _ in padding))
        for level, parent in enumerate((*part.parents, *padding)):
            levels[level].append(parent + offsets[level + 1])
        offsets = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
        neighbours.append(part.neighbours + cells)
        cells += part.cells
    place = np.concatenate([part.place for part in parts])
    name = " | ".join(part.name for part in parts)
    whole = tuple(np.concatenate(level).astype(np.int32) for level in levels)
    return Topology(name, whole, place, np.concatenate(neighbours).astype(np.int32))


@dataclass(frozen=True, eq=False)
class Netlist:
    """Resistors and cells between numbered nodes, and the two nodes that the pack's current enters and leaves by."""

    resistors: np.ndarray  # [resistors, 2] nodes
    resistance: np.ndarray  # [resistors] ohm
    cells: np.ndarray  # [cells, 2] nodes, positive first
    series: np.ndarray  # [cells] ohm, in series with each cell and part of its branch
    terminals: tuple[int, int]  # positive first
    name: str = "netlist"

    def __post_init__(self) -> None:
        if (self.resistance <= 0).any() or (self.series < 0).any():
            raise CelltwinError(f"resistances of '{self.name}'", got="0 or less", expected="positive ohms")

    @classmethod
    def of(cls, rows: Iterable[tuple[str, int, int, float]], name: str = "netlist") -> Netlist:
        """From rows of (name, node, node, value) in the manner of SPICE.

        The first letter of a name tells resistors R, cells V and the pack's current source I apart. `Ri...` in series
        with a cell is liionpack's stand-in for its internal resistance, which the cell's own model brings: left out.

        Raises CelltwinError for other letters, and where there is not one current source.
        """
        rows = list(rows)
        kinds = {kind: [row for row in rows if row[0][:1].upper() == kind] for kind in "RVI"}
        if sum(map(len, kinds.values())) != len(rows) or len(kinds["I"]) != 1 or not kinds["V"]:
            raise CelltwinError(
                f"netlist '{name}' is not understood",
                got=", ".join(f"{len(v)} {k}" for k, v in kinds.items()) + f" of {len(rows)} rows",
                expected="resistors R, cells V and one current source I",
            )
        internal = [row for row in kinds["R"] if row[0].lower().startswith("ri")]
        merged = {frozenset(row[1:3]) for row in internal}
        nodes: dict[int, int] = {}

        def root(node: int) -> int:
            while node in nodes:
                node = nodes[node]
            return node

        for a, b in (tuple(pair) for pair in merged):
            if root(a) != root(b):
                nodes[root(a)] = root(b)
        resistors = [row for row in kinds["R"] if row not in internal]
        source = kinds["I"][0]
        return cls(
            resistors=np.array([[root(a), root(b)] for _, a, b, _ in resistors], int).reshape(-1, 2),
            resistance=np.array([value for *_, value in resistors], float),
            cells=np.array([[root(a), root(b)] for _, a, b, _ in kinds["V"]], int),
            series=np.zeros(len(kinds["V"])),
            terminals=(root(source[1]), root(source[2])),
            name=name,
        )

    @classmethod
    def of_liionpack(cls, table: Any) -> Netlist:
        """From the table that liionpack's `setup_circuit` and `read_netlist` make."""
        columns = (table[name] for name in ("desc", "node1", "node2", "value"))
        return cls.of([(str(d), int(a), int(b), float(v)) for d, a, b, v in zip(*columns, strict=True)], "liionpack")

    @classmethod
    def of_topology(cls, topology: Topology, contact: np.ndarray, link: float) -> Netlist:
        """The netlist of a pack of two levels (96s2p): a contact in series with each cell, a link after each group."""
        if len(topology.parents) != 2 or topology.packs != 1:
            raise CelltwinError("netlist of a topology", got=topology.name, expected="one string of groups, as 96s2p")
        high, low = 2 * topology.group + 1, 2 * topology.group
        links = np.array([[2 * g - 1, 2 * g] for g in range(1, topology.groups)], int).reshape(-1, 2)
        last = 2 * topology.groups - 1
        resistors = np.concatenate([links, [[last, last + 1]]])
        return cls(
            resistors,
            np.full(len(resistors), link),
            np.stack([high, low], axis=1),
            np.broadcast_to(contact, topology.cells).astype(float),
            (last + 1, 0),
            topology.name,
        )
