"""Packs: Kirchhoff's laws hold, wiring is what it says, and the fast ways give what plain nodal analysis gives."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.errors import CelltwinError
from celltwin.interface import Input, Start, simulate
from celltwin.models.lstm import Lstm
from celltwin.physics.circuit import Circuit
from celltwin.physics.network import Mesh, Tree
from celltwin.physics.pack import Cooling, Pack, PackInput, inputs, simulate_pack
from celltwin.physics.thevenin import Thevenin
from celltwin.physics.topology import Netlist, join, parse


@cache
def circuit(transfer=True):
    soc, ocv_soc = np.linspace(0.0, 1.0, 5), np.linspace(-0.1, 1.1, 9)
    warm = np.array([[1.4, 1.0]])
    return Circuit(
        name="cell",
        capacity_ah=2.0,
        voltage_limits_volt=(2.5, 4.3),
        temperatures=np.array([0.0, 25.0]),
        ocv_soc=ocv_soc,
        ocv=3.3 + 0.8 * ocv_soc[:, None] + np.zeros((1, 2)),
        soc=soc,
        r0=0.02 * (1.5 - soc[:, None]) * warm,
        r=0.01 * np.ones((2, 5, 1)) * warm,
        tau=np.array([8.0, 90.0])[:, None, None] + np.zeros((2, 5, 2)),
        transfer_resistance=0.03 * np.ones((5, 1)) * warm if transfer else None,
        transfer_scale=np.array([0.03, 0.04]) if transfer else None,
    )


@cache
def model(transfer=True):
    return Thevenin.of(circuit(transfer))


def double(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if eqx.is_inexact_array(x) else x, tree)


def unequal(text, seed=0, transfer=True, **parts):
    """A pack of unequal cells, its state at the start and a current of all kinds."""
    topology, draw = parse(text), np.random.default_rng(seed)
    n = topology.cells
    pack = Pack.of(
        topology,
        model(transfer),
        capacity_ah=2.0 * (1.0 + 0.05 * draw.normal(size=n)),
        resistance=np.exp(0.2 * draw.normal(size=n)),
        contact=1e-3 * draw.uniform(0.5, 3.0, n),
        link=5e-4,
        **parts,
    )
    current = np.where(draw.random(40) < 0.2, 0.0, draw.normal(size=40) * 4.0) / topology.share.max()
    return topology, pack, pack.init(0.6 + 0.02 * draw.normal(size=n), 25.0), current


@pytest.mark.parametrize(
    ("text", "cells", "groups", "share"),
    [
        ("1s", 1, 1, 1.0),
        ("96s2p", 192, 96, 0.5),
        ("32p10s", 320, 320, 1 / 32),
        ("2p48s3p", 288, 96, 1 / 6),
        ("5p", 5, 1, 0.2),
        ("2s3s", 6, 6, 1.0),
        ("3p+2p+4s3p", 17, 6, 1 / 3),
    ],
)
def test_notation(text, cells, groups, share):
    topology = parse(text)
    assert (topology.cells, topology.groups, topology.packs) == (cells, groups, 1)
    assert topology.share[0] == pytest.approx(share)
    assert len(np.unique(topology.place, axis=0)) == cells
    a, b = topology.neighbours.T
    assert (np.abs(topology.place[a] - topology.place[b]).sum(axis=1) == 1).all()


@pytest.mark.parametrize("text", ["", "4x", "s4", "0s2p", "4s2", "999999s999p", "4s2p+", "-4s"])
def test_what_is_no_notation_is_refused(text):
    with pytest.raises(CelltwinError, match="topology"):
        parse(text)


TOPOLOGIES = ["3s", "4s2p", "2p3s2p", "3p+2p+2s4p"]


@given(text=st.sampled_from(TOPOLOGIES), seed=st.integers(0, 1000))
@with_settings(max_examples=20)
def test_no_charge_is_lost_and_voltages_agree(text, seed):
    """Kirchhoff's laws, at every sample, whatever the cells: single precision."""
    transfer = text != "4s2p"
    topology, pack, state, current = unequal(text, seed, transfer)
    _, out = simulate_pack(pack, state, inputs(current, 25.0, 1.0))
    through = np.asarray(out.current, float)
    for level, parent in enumerate(topology.parents):
        sizes = topology.sizes[level + 1]
        if level % 2 == 0:
            through = np.stack([np.bincount(parent, row, sizes) for row in through])
        else:
            first = np.array([np.argmax(parent == node) for node in range(sizes)])
            np.testing.assert_allclose(through, through[:, first][:, parent], atol=2e-4)
            through = through[:, first]
    np.testing.assert_allclose(through[:, 0], current, atol=3e-4)
    rail = np.asarray(out.voltage + pack.network.links[0] * out.current)
    for group in range(topology.groups):
        assert np.ptp(rail[:, topology.group == group], axis=1).max() < 5e-5
    if text in ("3s", "4s2p"):  # one string: its voltage is the sum of groups and links
        groups = np.asarray(jax.vmap(pack.network.group_voltage)(out.voltage, out.current))
        expected = groups.sum(axis=1) + 5e-4 * topology.groups * current
        np.testing.assert_allclose(out.pack_voltage[:, 0], expected, atol=1e-4)


@given(seed=st.integers(0, 1000), order=st.permutations(range(4)))
@with_settings(max_examples=15)
def test_the_order_of_cells_in_a_group_is_of_no_matter(seed, order):
    _, pack, state, current = unequal("3s4p", seed)
    new = np.concatenate([4 * group + np.array(order) for group in range(3)])
    moved = eqx.tree_at(
        lambda p: (p.capacity, p.resistance, p.network.links[0]),
        pack,
        (pack.capacity[new], pack.resistance[new], pack.network.links[0][new]),
    )
    soc = np.asarray(state.cells.charge.soc)
    u = inputs(current, 25.0, 1.0)
    one, other = simulate_pack(pack, state, u)[1], simulate_pack(moved, moved.init(soc[new], 25.0), u)[1]
    np.testing.assert_allclose(one.voltage[:, new], other.voltage, atol=2e-6)
    np.testing.assert_allclose(one.current[:, new], other.current, atol=3e-4)
    assert np.ptp(np.asarray(one.current), axis=1).max() > 0.1  # cells differ, or nothing is shown


@pytest.mark.parametrize("text", ["3s", "2p3s2p"])
def test_equal_cells_share_equally_and_do_as_one_cell_does(text):
    """A pack of equal cells is the cell's own simulation, at its share of the current."""
    topology = parse(text)
    pack = Pack.of(topology, model(), capacity_ah=2.0)
    draw = np.random.default_rng(1)
    alone = (draw.normal(size=50) * 3.0).astype(np.float32)
    _, out = simulate_pack(pack, pack.init(0.7, 10.0), inputs(alone / topology.share[0], 10.0, 1.0))
    np.testing.assert_allclose(out.current, np.tile(alone[:, None], topology.cells), atol=2e-5)
    rest = model().ocv(jnp.float32(0.7), jnp.float32(10.0))
    start = Start(*map(jnp.float32, (rest, 0.0, 10.0, 0.7, 2.0)))
    steps = Input(jnp.asarray(alone), jnp.full(50, 10.0), jnp.ones(50))
    expected = simulate(model(), start, steps)
    np.testing.assert_allclose(out.voltage, np.tile(np.asarray(expected.voltage)[:, None], topology.cells), atol=3e-6)


def test_series_parallel_is_as_nodal_analysis_has_it():
    """The tree against a loop over cells and a dense system of node potentials, in double precision."""
    with jax.enable_x64(True):
        topology, pack, state, current = unequal("3s3p", 5, newton=6)
        pack, state = double(pack), double(state)
        u = PackInput(jnp.asarray(current)[:, None], jnp.full((len(current), 1), 25.0), jnp.ones(len(current)))
        _, out = simulate_pack(pack, state, u)
        contact = np.asarray(pack.network.links[0], float)
        expected = reference.pack(
            circuit(),
            Netlist.of_topology(topology, contact, 5e-4),
            np.asarray(pack.capacity),
            np.asarray(pack.resistance),
            np.asarray(state.cells.charge.soc),
            current,
        )
    assert out.voltage.dtype == np.float64
    np.testing.assert_allclose(out.voltage, expected[0], atol=2e-7)  # tables are of single precision
    np.testing.assert_allclose(out.current, expected[1], atol=2e-5)
    np.testing.assert_allclose(out.pack_voltage[:, 0], expected[2], atol=1e-6)


@pytest.mark.parametrize("text", ["3s2p", "2s4p", "4p"])
def test_a_netlist_of_a_topology_is_the_topology(text):
    topology, pack, state, current = unequal(text, 3)
    netlist = Netlist.of_topology(topology, np.asarray(pack.network.links[0], float), 5e-4)
    other = eqx.tree_at(lambda p: p.network, pack, Mesh.of(netlist))
    u = inputs(current, 25.0, 1.0)
    one, two = simulate_pack(pack, state, u)[1], simulate_pack(other, state, u)[1]
    np.testing.assert_allclose(one.voltage, two.voltage, atol=5e-5)
    np.testing.assert_allclose(one.current, two.current, atol=1e-3)
    np.testing.assert_allclose(one.pack_voltage, two.pack_voltage, atol=5e-5)


def busbars(strings, cells, configuration="parallel-strings"):
    """Rows as liionpack's `setup_circuit` writes them: rails of resistors, contacts, cells with a stand-in Ri."""
    rows, number = [], iter(range(10_000))
    node = {}

    def at(*key):
        return node.setdefault(key, len(node) + 1)

    for rail in ("n", "p"):
        for s in range(strings - 1):
            rows.append((f"Rb{rail}{next(number)}", at(rail, s), at(rail, s + 1), 2e-4))
    for s in range(strings):
        below = at("n", s)
        for c in range(cells):
            a, b, top = at("a", s, c), at("b", s, c), at("p", s) if c == cells - 1 else at("c", s, c)
            rows.append((f"Rc{next(number)}", a, below, 1e-2))
            rows.append((f"V{next(number)}", b, a, 4.0))
            rows.append((f"Ri{next(number)}", top, b, 5e-2))
            below = top
    rows.append(("Rtp0", at("p", 0), at("terminal"), 1e-5))
    rows.append(("I0", at("terminal"), 0, 80.0))
    rows.append(("Rtn0", 0, at("n", 0), 1e-5))
    return rows


def test_a_netlist_of_busbars_is_as_nodal_analysis_has_it():
    """Current crowds into the strings beside the terminals."""
    netlist = Netlist.of(busbars(5, 3))
    assert netlist.cells.shape == (15, 2)
    draw = np.random.default_rng(2)
    capacity, factor, soc = 2.0 + 0.1 * draw.normal(size=15), np.exp(0.2 * draw.normal(size=15)), np.full(15, 0.6)
    pack = Pack.of(netlist, model(), capacity_ah=capacity, resistance=factor, newton=3)
    assert pack.network.project.shape == (5, 5)  # three cells in series are one branch
    current = np.r_[np.zeros(2), np.full(20, -15.0), np.full(20, 10.0)]
    _, out = simulate_pack(pack, pack.init(soc, 25.0), inputs(current, 25.0, 1.0))
    expected = reference.pack(circuit(), netlist, capacity, factor, soc, current)
    np.testing.assert_allclose(out.voltage, expected[0], atol=2e-5)
    np.testing.assert_allclose(out.current, expected[1], atol=1e-3)
    np.testing.assert_allclose(out.pack_voltage[:, 0], expected[2], atol=1e-4)
    equal = Pack.of(netlist, model(), capacity_ah=2.0)
    _, out = simulate_pack(equal, equal.init(0.6, 25.0), inputs(current, 25.0, 1.0))
    strings = np.abs(np.asarray(out.current[5, ::3]))
    assert (np.diff(strings) < 0.0).all()


def test_a_netlist_that_is_open_or_unknown_is_refused():
    rows = busbars(2, 2)
    with pytest.raises(CelltwinError, match="not understood"):
        Netlist.of([*rows, ("C1", 1, 2, 1.0)])
    with pytest.raises(CelltwinError, match="not understood"):
        Netlist.of([row for row in rows if row[0] != "I0"])
    with pytest.raises(CelltwinError, match="no current can flow"):
        Mesh.of(Netlist.of([row for row in rows if not row[0].startswith("Rtp")]))


def test_an_imbalance_evens_out_at_rest():
    pack = Pack.of("2p", model(), capacity_ah=2.0, contact=1e-3)
    _, out = simulate_pack(pack, pack.init(np.array([0.5, 0.7]), 25.0), inputs(np.zeros(5000), 25.0, 10.0))
    assert out.current[1, 0] > 0.1 > -0.1 > out.current[1, 1]
    np.testing.assert_allclose(out.current.sum(axis=1), 0.0, atol=1e-5)
    np.testing.assert_allclose(out.soc[-1], 0.6, atol=1e-3)


def test_a_balancing_resistor_drains_its_cell():
    leak = np.array([1.0 / 40.0, 0.0])
    pack = Pack.of("2s", model(), capacity_ah=2.0, leak=leak)
    _, out = simulate_pack(pack, pack.init(0.6, 25.0), inputs(np.zeros(3600), 25.0, 1.0))
    drained = float(np.mean(np.asarray(out.voltage[:, 0]))) / 40.0 / 2.0  # V / R over an hour, of 2 Ah
    assert out.soc[-1, 0] == pytest.approx(0.6 - drained, abs=1e-4)
    assert out.soc[-1, 1] == pytest.approx(0.6, abs=1e-6)


def test_a_current_that_the_sensor_does_not_show_is_a_current():
    drive = np.array([0.0, -2.0, -4.0, 1.0] * 10)
    results = []
    for current, unseen in ((drive + 0.3, 0.0), (drive, 0.3)):
        pack = Pack.of("2s2p", model(), capacity_ah=2.0, unseen=unseen)
        state, out = simulate_pack(pack, pack.init(0.8, 25.0), inputs(current, 25.0, 10.0))
        results.append((out.voltage, out.soc, state.pack_current))
    for shown, hidden in zip(*results, strict=True):
        np.testing.assert_allclose(hidden, shown, atol=2e-6)


def test_heat_flows_to_neighbours_and_none_is_lost():
    topology = parse("3s3p")
    insulated = Cooling.of(topology, 50.0, 0.0, 0.4)
    temperature = jnp.asarray(np.random.default_rng(0).uniform(10, 40, 9), jnp.float32)
    for dt in (1.0, 60.0, 1e5):
        after = insulated.step(temperature, jnp.zeros(9), jnp.float32(25.0), jnp.float32(dt))
        assert float(after.mean()) == pytest.approx(float(temperature.mean()), abs=1e-4)
        assert after.min() >= temperature.min() - 1e-4
        assert after.max() <= temperature.max() + 1e-4
    heated = insulated.step(temperature, jnp.full(9, 2.0), jnp.float32(25.0), jnp.float32(5.0))
    assert float((heated - temperature).sum()) == pytest.approx(9 * 2.0 * 5.0 / 50.0, rel=1e-3)
    pack = Pack.of(topology, model(), capacity_ah=2.0, cooling=Cooling.of(topology, 50.0, 0.05, 0.3))
    _, out = simulate_pack(pack, pack.init(0.9, 20.0), inputs(np.full(900, -12.0), 20.0, 1.0))
    assert out.temperature[-1].min() > 21.0
    alone = eqx.tree_at(lambda p: p.cooling, pack, Cooling.of(topology, 50.0, 0.05, 0.0))
    _, apart = simulate_pack(alone, alone.init(0.9, 20.0), inputs(np.full(900, -12.0), 20.0, 1.0))
    np.testing.assert_allclose(apart.temperature[-1], float(out.temperature[-1].mean()), rtol=1e-3)


def test_any_voltage_model_serves(trained_lstm_like):
    pack = Pack.of("2s2p", trained_lstm_like, capacity_ah=1.0)
    voltage = jnp.full(4, 3.9, jnp.float32)
    current = np.r_[np.zeros(3), np.full(20, -1.0)]
    _, out = simulate_pack(pack, pack.init(0.8, 25.0, voltage), inputs(current, 25.0, 1.0))
    np.testing.assert_allclose(out.current, np.tile(current[:, None] / 2, 4), atol=1e-4)
    with pytest.raises(CelltwinError, match="no open-circuit voltage"):
        pack.init(0.8, 25.0)


@pytest.fixture
def trained_lstm_like():
    """A network with the weights it begins with."""
    from celltwin.data.domain import Domain

    records = [reference.drive("a", seed=1)]
    return Lstm.create(records, Domain.of(records), jax.random.key(0))


def test_cells_may_have_tables_of_their_own():
    weak = eqx.tree_at(lambda m: m.log_resistance, model(), model().log_resistance + np.log(2.0).astype("f4"))
    pack = Pack.of("2s", [model(), weak], capacity_ah=2.0)
    scaled = Pack.of("2s", model(), capacity_ah=2.0, resistance=np.array([1.0, 2.0]))
    u = inputs(np.full(60, -3.0), 25.0, 1.0)
    one, other = (simulate_pack(p, p.init(0.8, 25.0), u)[1].voltage for p in (pack, scaled))
    np.testing.assert_allclose(one, other, atol=2e-6)
    assert abs(one[-1, 0] - one[-1, 1]) > 0.1


def test_packs_side_by_side_are_the_packs():
    parts = [unequal(text, seed) for seed, text in enumerate(("3s2p", "2p2s", "4s"))]
    whole = join([topology for topology, *_ in parts])
    columns = [
        np.concatenate([np.asarray(getattr(p, name)) for _, p, *_ in parts]) for name in ("capacity", "resistance")
    ]
    contact = np.concatenate([np.asarray(p.network.links[0]) for _, p, *_ in parts])
    pack = Pack.of(whole, model(), capacity_ah=columns[0], resistance=columns[1], contact=contact, link=5e-4)
    soc = np.concatenate([np.asarray(state.cells.charge.soc) for *_, state, _ in parts])
    current = np.stack([current for *_, current in parts], axis=1)
    _, together = simulate_pack(pack, pack.init(soc, 25.0), inputs(current, 25.0, 1.0, packs=3))
    for number, (_, alone, state, drive) in enumerate(parts):
        _, out = simulate_pack(alone, state, inputs(drive, 25.0, 1.0))
        np.testing.assert_allclose(together.voltage[:, whole.pack == number], out.voltage, atol=3e-6)
        np.testing.assert_allclose(together.pack_voltage[:, number], out.pack_voltage[:, 0], atol=2e-5)


def test_nonsense_is_refused():
    with pytest.raises(CelltwinError, match="capacity_ah"):
        Pack.of("2s", model(), capacity_ah=0.0)
    with pytest.raises(CelltwinError, match="one for each"):
        Pack.of("2s", [model()], capacity_ah=1.0)
    with pytest.raises(CelltwinError, match="contact"):
        Pack.of("2s", model(), capacity_ah=1.0, contact=-1e-3)
    with pytest.raises(CelltwinError, match="differ in form"):
        Pack.of("2s", [model(), model(False)], capacity_ah=1.0)
    with pytest.raises(CelltwinError, match="cooling"):
        Cooling.of(parse("2s"), 0.0, 1.0, 1.0)
    assert isinstance(Tree.of(parse("2s2p")), Tree)
