"""How a pack's current shares itself among its cells: Kirchhoff's laws for cells that are linear for the moment.

Each cell is a source with a resistance, V = e + r I. Currents follow from all e, r and the current of the pack.

*Tree*, any series-parallel topology, exact in one sweep up and one down, whatever its size:

    parallel   G = sum 1/R_i,   E = sum (E_i/R_i) / G,   R = 1/G        V known:  I_i = (V - E_i) / R_i
    series     E = sum E_i,     R = sum R_i                              I known:  I_i = I

*Mesh*, any netlist. Cells in series are one branch. With Z the response of the resistors alone, B the parts that only
branches connect, and A u and tau what the terminals inject (nodal analysis, Ho, Ruehli & Brennan, IEEE Trans. Circuits
Syst. 22 (1975) 504):

    (Z + diag R) i = -E + u I + B c,   B' i = tau I

One factorisation in double precision at a typical R0 gives the response w to the pack's current and the projector P
onto currents that the nodes allow. Other resistances are R0 + D, and (1 + P D) n = -P (E + D w I), i = w I + n, is
solved by conjugate gradients (Hestenes & Stiefel 1952) in a fixed number of iterations: few, for D is small beside R0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.errors import CelltwinError
from celltwin.physics.topology import Netlist, Topology

MOST_BRANCHES = 4000  # of a netlist: its projector is dense
ITERATIONS = 12  # of conjugate gradients
TYPICAL = 0.03  # ohm of a cell, where no better guess is given


class Shared(NamedTuple):
    """What Kirchhoff's laws say."""

    current: Array  # [cells] A, positive = charge
    voltage: Array  # [packs] V between the terminals


class Level(eqx.Module):
    """One level of a tree: how its nodes are summed into those above, and what is above handed down."""

    parent: Array  # [nodes]
    count: int = eqx.field(static=True)  # of nodes above
    each: int = eqx.field(static=True)  # children of every node above, 0 if they differ

    def up(self, x: Array) -> Array:
        if self.each:
            return x if self.each == 1 else jnp.sum(x.reshape(self.count, self.each), axis=1)
        return jax.ops.segment_sum(x, self.parent, self.count, indices_are_sorted=True)

    def down(self, x: Array) -> Array:
        if self.each:
            return x if self.each == 1 else jnp.repeat(x, self.each, total_repeat_length=self.count * self.each)
        return x.at[self.parent].get(mode="promise_in_bounds", indices_are_sorted=True)


class Tree(eqx.Module):
    """A series-parallel network. `links` are resistances in ohm in series with the nodes of each level.

    Those of the first level are the cells' contacts; those of the second lie between groups.
    """

    levels: tuple[Level, ...]
    links: tuple[Array, ...]  # [nodes] of each level
    share: Array  # [cells], of the pack's current among equals
    pack: Array  # [cells]

    @classmethod
    def of(cls, topology: Topology, contact: np.ndarray | float = 0.0, link: np.ndarray | float = 0.0) -> Tree:
        """With a contact in series with each cell and a link with each group (ohm). Raises CelltwinError below 0."""
        for name, value in (("contact", contact), ("link", link)):
            if np.min(value) < 0.0:
                raise CelltwinError(f"resistance of a {name}", got=np.min(value), expected="0 ohm or more")
        sizes, levels, links = topology.sizes, [], []
        for level, parent in enumerate(topology.parents):
            counts = np.bincount(parent, minlength=sizes[level + 1])
            even = (counts == counts[0]).all() and (np.diff(parent) >= 0).all()
            levels.append(Level(jnp.asarray(parent), sizes[level + 1], int(counts[0]) if even else 0))
            ohm = {0: contact, 1: link}.get(level, 0.0)
            links.append(jnp.asarray(np.broadcast_to(ohm, sizes[level]), np.float32))
        share = jnp.asarray(topology.share, np.float32)
        return cls(tuple(levels), tuple(links), share, jnp.asarray(topology.pack, np.int32))

    @property
    def parallel(self) -> bool:
        """Whether anything is in parallel; if not, each cell carries the pack's current."""
        return any(level.each != 1 for level in self.levels[::2])

    @property
    def packs(self) -> int:
        return self.levels[-1].count

    def cells_of_packs(self, x: Array) -> Array:
        """Values [packs] at each cell of the pack."""
        return x[self.pack]

    def solve(self, e: Array, r: Array, current: Array, guess: Array) -> Shared:
        """Currents of cells V = e + r I, [cells], for pack currents [packs]; the guess is not needed here."""
        swept: list[tuple[Array, Array]] = []
        for number, (level, link) in enumerate(zip(self.levels, self.links, strict=True)):
            r = r + link
            swept.append((e, r))
            if number % 2:
                e, r = level.up(e), level.up(r)
            elif level.each != 1:
                conductance = 1.0 / r
                r = 1.0 / level.up(conductance)
                e = r * level.up(conductance * e)
        voltage = e + r * current
        through = current
        for number, level in reversed(list(enumerate(self.levels))):
            before = through
            through = level.down(through)
            if number % 2 or level.each == 1:
                continue
            e, r = swept[number]
            conductance = 1.0 / r
            total = 1.0 / level.up(conductance)
            node = total * level.up(conductance * e) + total * before
            through = conductance * (level.down(node) - e)
            # What rounding loses, so that no charge is: differences of voltages are small beside the voltages.
            through = through + conductance * level.down(total * (before - level.up(through)))
        return Shared(through, voltage)

    def group_voltage(self, voltage: Array, current: Array) -> Array:
        """Voltages [groups] between the rails that the cells of each group are on."""
        rail = voltage + self.links[0] * current
        level = self.levels[0]
        return level.up(rail) / level.up(jnp.ones_like(rail))


class Mesh(eqx.Module):
    """Any netlist, factorised once."""

    response: Array  # w [branches]
    project: Array  # P [branches, branches]
    typical: Array  # R0 [branches], of the cells of a branch together
    whole: Array  # Z + diag R0, [branches, branches]
    series: Array  # [cells] ohm, contacts
    terminal: Array  # [branches + 1]: the pack's voltage from E + R i and the current
    branch: Array  # [cells]
    sign: Array  # [cells], -1 where a cell faces the other way along its branch
    share: Array  # [cells]
    level: Array  # 1 where the same voltage in all branches drives no current, else 0

    @classmethod
    def of(cls, netlist: Netlist, typical: float | np.ndarray = TYPICAL) -> Mesh:
        """`typical` is the cells' resistance in ohm, about; the nearer, the fewer iterations are needed.

        Raises CelltwinError for a netlist with loose ends or of too many branches.
        """
        branch, sign, ends, ohm, (nodes, at) = _chains(netlist)
        size = len(ends)
        if size > MOST_BRANCHES:
            raise CelltwinError(
                f"netlist '{netlist.name}' is too large",
                got=f"{size} branches",
                expected=f"at most {MOST_BRANCHES}",
                fix="write it as a topology such as 96s2p, which has no limit",
            )
        laplacian = np.zeros((nodes, nodes))
        for (a, b), value in zip(at(netlist.resistors), netlist.resistance, strict=True):
            if a >= 0 and b >= 0 and a != b:
                laplacian[[a, b, a, b], [a, b, b, a]] += np.array([1.0, 1.0, -1.0, -1.0]) / value
        parts = _parts(laplacian)
        inverse = _pseudo_inverse(laplacian, parts)
        across = np.zeros((nodes, size))
        np.add.at(across, (ends[:, 0], np.arange(size)), 1.0)
        np.add.at(across, (ends[:, 1], np.arange(size)), -1.0)
        inject = np.zeros(nodes)
        positive, negative = at(np.array([netlist.terminals]))[0]
        inject[positive] += 1.0
        inject[negative] -= 1.0
        r0 = np.zeros(size)
        np.add.at(r0, branch, np.broadcast_to(typical, len(branch)) + netlist.series)
        z = across.T @ inverse @ across + np.diag(ohm)
        u, loops, tau = across.T @ inverse @ inject, across.T @ parts, parts.T @ inject
        whole = z + np.diag(r0)
        solved = np.linalg.solve(whole, np.column_stack([np.eye(size), loops]))
        back, wide = solved[:, :size], solved[:, size:]
        schur = np.linalg.pinv(loops.T @ wide, rcond=1e-12)
        project = back - wide @ schur @ wide.T
        response = project @ u + wide @ (schur @ tau)
        if not np.allclose(loops.T @ response, tau, atol=1e-6):
            raise CelltwinError(
                f"no current can flow through netlist '{netlist.name}'",
                got="terminals that no path connects",
                expected="one circuit",
            )
        # V = inject' phi, with phi = G+ (inject I - across i) + parts c and B c = E + R i + Z i - u I.
        q = (parts.T @ inject) @ np.linalg.pinv(loops)
        terminal = np.r_[q @ z - inject @ inverse @ across, inject @ inverse @ inject - q @ u]
        single = [jnp.asarray(x, np.float32) for x in (response, project, r0, whole, netlist.series)]
        return cls(
            *single,
            terminal=jnp.asarray(np.r_[terminal[:size], q, terminal[size:]], np.float32),
            branch=jnp.asarray(branch, np.int32),
            sign=jnp.asarray(sign, np.float32),
            share=jnp.asarray(sign * response[branch], np.float32),
            level=jnp.asarray(np.abs(project.sum(axis=1)).max() < 1e-9 * np.abs(project).max() * size, np.float32),
        )

    @property
    def parallel(self) -> bool:
        return True

    @property
    def packs(self) -> int:
        return 1

    def cells_of_packs(self, x: Array) -> Array:
        """Values [1] of the pack at each cell."""
        return jnp.broadcast_to(x, self.branch.shape)

    def solve(self, e: Array, r: Array, current: Array, guess: Array) -> Shared:
        """Currents of cells V = e + r I, [cells], for a pack current [1], from a guess [cells] that is feasible."""
        size = self.response.shape[0]
        total = current[0]
        e = jax.ops.segment_sum(self.sign * e, self.branch, size)
        d = jax.ops.segment_sum(r + self.series, self.branch, size) - self.typical
        begin = jnp.zeros_like(e).at[self.branch].set(self.sign * guess)
        n = begin - self.response * total
        # Where the same voltage in all branches drives no current, taking it away first keeps single precision.
        residual = self.level * jnp.mean(e) - e - d * begin - self.whole @ n
        z = self.project @ residual
        p, mp, rz = z, residual, jnp.dot(residual, z)
        # The best is kept: once only rounding is left, further iterations may grow it.
        least, found = rz, n
        for _ in range(ITERATIONS):
            ap = mp + d * p
            curvature = jnp.dot(p, ap)
            step = jnp.where(curvature > 0.0, rz / jnp.where(curvature > 0.0, curvature, 1.0), 0.0)
            n = n + step * p
            residual = residual - step * ap
            z = self.project @ residual
            new = jnp.dot(residual, z)
            beta = jnp.where(rz > 0.0, new / jnp.where(rz > 0.0, rz, 1.0), 0.0)
            p, mp, rz = z + beta * p, residual + beta * mp, new
            found = jnp.where(jnp.abs(new) < jnp.abs(least), n, found)
            least = jnp.minimum(jnp.abs(new), jnp.abs(least))
        i = self.response * total + found
        voltages = e + (d + self.typical) * i
        head, q, last = jnp.split(self.terminal, [size, 2 * size])
        voltage = head @ i + q @ voltages + last * total
        return Shared(self.sign * i[self.branch], voltage)


def _chains(netlist: Netlist) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[int, Any]]:
    """Cells that are in series, with the resistors among them, as one branch.

    Returns the branch and sign of each cell, both ends of each branch, the ohms in it, and the number of nodes that are
    left with a function that numbers them anew (-1: inside a branch).
    """
    elements = np.concatenate([netlist.cells, netlist.resistors])
    count = len(netlist.cells)
    touching: dict[int, list[int]] = {}
    for number, pair in enumerate(elements.tolist()):
        for node in pair:
            touching.setdefault(node, []).append(number)
    kept = set(netlist.terminals)
    branch, sign = np.full(count, -1), np.ones(count)
    ends, ohm, inside = [], [], set()
    for first in range(count):
        if branch[first] >= 0:
            continue
        number, ohms, reach = len(ends), 0.0, []
        branch[first] = number
        # From the positive end outwards a cell of the same direction is entered at its negative node, and vice versa.
        for way, node in enumerate(elements[first].tolist()):
            here = first
            while node not in kept and len(touching[node]) == 2 and len(set(touching[node])) == 2:
                after = next(n for n in touching[node] if n != here)
                if after < count and branch[after] >= 0:
                    break
                inside.add(node)
                if after < count:
                    branch[after] = number
                    sign[after] = 1.0 if elements[after][1 - way] == node else -1.0
                else:
                    ohms += float(netlist.resistance[after - count])
                a, b = elements[after].tolist()
                node, here = (b if a == node else a), after
            reach.append(node)
        ends.append(reach)
        ohm.append(ohms)
    left = {node: i for i, node in enumerate(sorted((set(touching) | kept) - inside))}

    def at(pairs: np.ndarray) -> np.ndarray:
        return np.array([[left.get(int(node), -1) for node in pair] for pair in pairs], int).reshape(-1, 2)

    return branch, sign, at(np.array(ends)), np.array(ohm), (len(left), at)


def _parts(laplacian: np.ndarray) -> np.ndarray:
    """Which nodes resistors connect: 1 at [node, part]."""
    from scipy.sparse.csgraph import connected_components

    count, label = connected_components(laplacian != 0.0, directed=False)
    return np.eye(count)[label]


def _pseudo_inverse(laplacian: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Of a Laplacian whose null space is the parts."""
    constant = parts @ np.diag(1.0 / parts.sum(axis=0)) @ parts.T
    return np.linalg.inv(laplacian + constant * max(1.0, np.abs(laplacian).max())) - constant / max(
        1.0, np.abs(laplacian).max()
    )
