"""ECM-PS documents: celltwin's own come back to the last digit, others' as what they say."""

import json
import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from circuits import SOC, TEMPERATURES, assert_same, full
from hypothesis import given, settings
from hypothesis import strategies as st

from celltwin import exchange
from celltwin.errors import CelltwinError
from celltwin.exchange.lookup import open_circuit_voltage, positive
from celltwin.physics.circuit import Circuit

# --- celltwin's own -----------------------------------------------------------------------------------------------


@st.composite
def circuits(draw):
    """Circuits of all shapes: any number of nodes, pairs and modes, with and without what is optional."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    s, t, u, n, modes = (draw(st.integers(low, 4)) for low in (1, 1, 2, 0, 0))
    transfer = draw(st.booleans())

    def axis(size, low, high):
        return low + (high - low) * np.cumsum(numbers.uniform(0.05, 1.0, size)) / size

    def positive(*shape):
        return np.exp(numbers.normal(-3.0, 2.0, shape))

    return Circuit(
        name=draw(st.text(max_size=20)),
        capacity_ah=float(positive()),
        voltage_limits_volt=(2.5, float(4.0 + numbers.random())),
        temperatures=axis(t, -40.0, 60.0),
        ocv_soc=axis(u, -0.05, 1.05),
        ocv=numbers.normal(3.5, 0.5, (u, t)),
        soc=axis(s, 0.0, 1.0),
        r0=positive(s, t),
        r=positive(n, s, t),
        tau=positive(n, s, t),
        transfer_resistance=positive(s, t) if transfer else None,
        transfer_scale=positive(t) if transfer else None,
        hysteresis=positive(modes, s) if modes else None,
        hysteresis_rate=positive(modes) if modes else None,
        standard_error={"r0": np.where(numbers.random((s, t)) < 0.3, np.nan, positive(s, t))},
        notes=tuple(draw(st.lists(st.text(max_size=20), max_size=3))),
        meta=draw(
            st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.booleans(), max_size=3)
        ),
    )


@given(circuits())
@settings(max_examples=60)
def test_what_is_written_is_read_again(circuit):
    document = json.loads(json.dumps(exchange.document_of(circuit), allow_nan=False))
    assert_same(exchange.circuit_of(document), circuit)


@given(circuits())
@settings(max_examples=60)
def test_other_tools_read_the_linear_circuit(circuit):
    """Without what celltwin keeps beside them, the tables hold the same circuit, as far as the format goes."""
    document = exchange.document_of(circuit)
    del document["Parameterisation"]["User-defined"]
    read, simple = exchange.circuit_of(document), exchange.one_mode(exchange.linear(circuit))
    assert read.pairs == circuit.pairs
    soc, temperatures = np.meshgrid(circuit.soc, circuit.temperatures, indexing="ij")
    for theirs, ours in zip([read.r0, *read.r, *read.tau], [simple.r0, *simple.r, *simple.tau], strict=True):
        np.testing.assert_allclose(positive(read, theirs)(soc, temperatures), ours, rtol=1e-7)
    soc, temperatures = np.meshgrid(circuit.ocv_soc, circuit.temperatures, indexing="ij")
    np.testing.assert_allclose(open_circuit_voltage(read)(soc, temperatures), circuit.ocv, rtol=1e-7)
    if simple.hysteresis is None:
        assert read.hysteresis is None
    else:
        gap = np.interp(circuit.soc, read.soc, read.hysteresis[0])
        np.testing.assert_allclose(gap, simple.hysteresis[0], atol=1e-12)
        np.testing.assert_allclose(read.hysteresis_rate, simple.hysteresis_rate, rtol=1e-9)


@given(circuits())
@settings(max_examples=25)
def test_the_format_s_own_validator_agrees(circuit):
    ecm = pytest.importorskip("battwin.ecm", reason="the validator of ECM-PS is in the extra 'peers'")
    assert ecm.ecm_ps_problems(exchange.document_of(circuit)) == []


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "cells" / "cell.json"
    exchange.save(full(), path)
    assert_same(exchange.load(path), full())
    before = path.read_text(encoding="utf-8")
    broken = full()
    object.__setattr__(broken, "capacity_ah", math.nan)  # a circuit refuses it; should one get by, no file is lost
    with pytest.raises(CelltwinError, match=r"(?i)got: NaN"):
        exchange.save(broken, path)
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in path.parent.iterdir()] == ["cell.json"]


def test_a_row_of_numbers_is_a_line(tmp_path):
    exchange.save(full(), tmp_path / "cell.json")
    lines = (tmp_path / "cell.json").read_text(encoding="utf-8").splitlines()
    assert any(line.count(",") >= 52 for line in lines)
    assert len(lines) < 300


def test_hysteresis_is_two_branches_and_a_rate():
    circuit = full()
    elements = exchange.document_of(circuit)["Parameterisation"]["Circuit"]
    charge, discharge = (elements[f"Open-circuit voltage on {side} [V]"] for side in ("charge", "discharge"))
    gap = (np.array(charge["z"]) - np.array(discharge["z"])) / 2
    expected = np.interp(charge["x"], SOC, circuit.hysteresis.sum(axis=0))
    np.testing.assert_allclose(gap, np.tile(expected, (4, 1)), atol=1e-12)
    assert 8.0 < elements["Hysteresis decay rate"] < 80.0
    # Small currents meet the charge transfer's resistance.
    r0 = np.array(elements["R0 [Ohm]"]["z"]).T
    np.testing.assert_allclose(r0, circuit.r0 + circuit.transfer_resistance)


def test_a_value_changed_by_another_tool_counts():
    document = exchange.document_of(full())
    document["Parameterisation"]["Circuit"]["R0 [Ohm]"] = 0.03
    changed = exchange.circuit_of(document)
    np.testing.assert_allclose(changed.r0, 0.03)
    assert changed.transfer_resistance is None
    assert "changed" in changed.notes[-1]


def test_rounding_by_another_tool_changes_nothing():
    def rounded(value):
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items()}
        if isinstance(value, list):
            return [rounded(v) for v in value]
        return float(f"{value:.12g}") if isinstance(value, float) else value

    document = exchange.document_of(full())
    document["Parameterisation"]["Circuit"] = rounded(document["Parameterisation"]["Circuit"])
    assert_same(exchange.circuit_of(document), full())


def test_a_cell_can_be_renamed_in_the_document():
    document = exchange.document_of(full())
    document["Header"]["Title"] = "cell 7"
    assert_same(exchange.circuit_of(document), full(name="cell 7"))


def test_what_celltwin_keeps_is_checked():
    document = exchange.document_of(full())
    document["Parameterisation"]["User-defined"]["celltwin"]["r0"] = [[1.0]]
    with pytest.raises(CelltwinError, match=r"damaged.*r0.*remove that entry"):
        exchange.circuit_of(document)


# --- others' ------------------------------------------------------------------------------------------------------


def foreign(elements, pairs=1, **cell):
    return {
        "Header": {"ECM-PS version": "0.2", "Model": "ECM", "Title": "another"},
        "Parameterisation": {
            "Cell": {
                "Nominal cell capacity [A.h]": 5.0,
                "Lower voltage cut-off [V]": 2.5,
                "Upper voltage cut-off [V]": 4.2,
                "Number of RC elements": pairs,
                **cell,
            },
            "Circuit": elements,
        },
    }


CURVE = {"x": [0.0, 0.5, 1.0], "y": [3.0, 3.6, 4.2]}
BASIC = {"Open-circuit voltage [V]": CURVE, "R0 [Ohm]": 0.02, "R1 [Ohm]": 0.01, "C1 [F]": 2000.0}


def test_constants():
    circuit = exchange.circuit_of(foreign(BASIC))
    assert (circuit.name, circuit.capacity_ah, circuit.voltage_limits_volt) == ("another", 5.0, (2.5, 4.2))
    assert circuit.temperatures.tolist() == [25.0]
    assert circuit.r0.tolist() == [[0.02]]
    assert circuit.tau.tolist() == [[[20.0]]]
    assert circuit.ocv[:, 0].tolist() == CURVE["y"]
    assert circuit.notes == ()


def test_tables_with_axes_of_their_own():
    r0 = {"x": [0.0, 1.0], "y": [263.15, 298.15], "z": [[0.06, 0.04], [0.03, 0.02]]}
    r1 = {"x": [0.2, 0.8], "y": [0.01, 0.02]}
    c1 = {"x": [0.5, 0.9], "y": [273.15, 313.15], "z": [[1000.0, 1400.0], [2000.0, 2800.0]]}
    circuit = exchange.circuit_of(foreign({**BASIC, "R0 [Ohm]": r0, "R1 [Ohm]": r1, "C1 [F]": c1}))
    assert circuit.temperatures.tolist() == [-10.0, 0.0, 25.0, 40.0]
    assert circuit.soc.tolist() == [0.0, 0.2, 0.5, 0.8, 0.9, 1.0]
    at = {value: i for i, value in enumerate(circuit.soc)}
    assert circuit.r0[at[0.0]].tolist()[::2] == [0.06, 0.03]
    assert circuit.r0[at[1.0]].tolist() == pytest.approx([0.04, 0.04 - 0.02 * 10 / 35, 0.02, 0.02])
    # Tau is R C at every node: here halfway between two nodes of R, at one of C, held beyond both.
    assert circuit.tau[0, at[0.5]].tolist() == pytest.approx([15.0, 15.0, 0.015 * 1625.0, 30.0])
    assert circuit.tau[0, at[1.0], 3] == pytest.approx(0.02 * 2800.0)


def test_branches_become_hysteresis():
    up, down = ({"x": [0.0, 1.0], "y": [3.0 + h, 4.0 + h]} for h in (0.02, -0.02))
    elements = {k: v for k, v in BASIC.items() if "voltage" not in k} | {
        "Open-circuit voltage on charge [V]": up,
        "Open-circuit voltage on discharge [V]": down,
        "Hysteresis decay rate": 12.0,
    }
    circuit = exchange.circuit_of(foreign(elements))
    np.testing.assert_allclose(circuit.ocv[:, 0], [3.0, 4.0])
    np.testing.assert_allclose(circuit.hysteresis, 0.02)
    assert circuit.hysteresis_rate.tolist() == [12.0]
    swapped = elements | {
        "Open-circuit voltage on charge [V]": down,
        "Open-circuit voltage on discharge [V]": up,
    }
    with pytest.raises(CelltwinError, match=r"got: -20.0 mV.*exchange the two"):
        exchange.circuit_of(foreign(swapped))
    third = exchange.circuit_of(foreign(elements | {"Open-circuit voltage [V]": CURVE}))
    assert "third curve" in third.notes[0]
    missing = {k: v for k, v in elements.items() if k != "Hysteresis decay rate"}
    with pytest.raises(CelltwinError, match="no 'Hysteresis decay rate'"):
        exchange.circuit_of(foreign(missing))


def test_what_hysteresis_cannot_hold_is_noted():
    rows = {"x": [0.0, 0.5, 1.0], "y": [273.15, 298.15]}
    elements = {k: v for k, v in BASIC.items() if "voltage" not in k} | {
        "Open-circuit voltage on charge [V]": rows | {"z": [[3.05, 3.55, 3.99], [3.03, 3.53, 3.99]]},
        "Open-circuit voltage on discharge [V]": {"x": [0.0, 0.5, 1.0], "y": [3.0, 3.5, 4.0]},
        "Hysteresis decay rate": {"x": [0.0, 1.0], "y": [10.0, 20.0]},
    }
    circuit = exchange.circuit_of(foreign(elements))
    np.testing.assert_allclose(circuit.hysteresis, [[0.02, 0.02, 0.0]], atol=1e-12)
    assert circuit.hysteresis_rate.tolist() == [15.0]
    for words in ("cross", "mean over temperature", "rate of hysteresis is its mean", "taken for all"):
        assert any(words in note for note in circuit.notes), words


def test_entropy_moves_the_open_circuit_voltage():
    elements = BASIC | {"Entropic change [V.K-1]": {"x": [0.0, 1.0], "y": [-2e-4, 4e-4]}}
    circuit = exchange.circuit_of(foreign(elements, **{"Reference temperature [K]": 293.15}))
    voltage = open_circuit_voltage(circuit)
    assert float(voltage(0.5, 20.0)) == pytest.approx(3.6)
    assert float(voltage(1.0, 35.0)) == pytest.approx(4.2 + 15 * 4e-4)
    assert float(voltage(0.0, 10.0)) == pytest.approx(3.0 + 10 * 2e-4, abs=1e-4)
    cold = {"x": [0.0, 1.0], "y": [273.15, 298.15], "z": [[2.9, 4.1], [3.0, 4.2]]}
    both = exchange.circuit_of(foreign(elements | {"Open-circuit voltage [V]": cold}))
    assert both.temperatures.tolist() == [0.0, 25.0]
    np.testing.assert_allclose(both.ocv, [[2.9, 3.0], [4.1, 4.2]])
    assert "left aside" in both.notes[0]


def test_thermal_masses_are_facts_beside_the_circuit():
    read = exchange.circuit_of(foreign(BASIC, **{"Cell thermal mass [J.K-1]": 40.0}))
    assert read.meta["thermal"] == {"cell_joule_per_kelvin": 40.0}
    assert exchange.document_of(read)["Parameterisation"]["Cell"]["Cell thermal mass [J.K-1]"] == 40.0


def test_missing_limits_are_those_of_the_curve():
    document = foreign(BASIC)
    del document["Parameterisation"]["Cell"]["Upper voltage cut-off [V]"]
    circuit = exchange.circuit_of(document)
    assert circuit.voltage_limits_volt == (2.5, 4.2)
    assert "limits" in circuit.notes[0]


def test_the_peer_s_fit_of_our_document_is_read():
    """A tool that replaces a table by a number and leaves the rest alone, as fits do."""
    document = exchange.document_of(replace(exchange.on_branch(exchange.linear(full())), meta={}))
    for i in (1, 2):
        document["Parameterisation"]["Circuit"][f"R{i} [Ohm]"] = 0.01 * i
        document["Parameterisation"]["Circuit"][f"C{i} [F]"] = 1000.0
    circuit = exchange.circuit_of(document)
    np.testing.assert_allclose(circuit.tau[:, 0, 0], [10.0, 20.0])
    np.testing.assert_array_equal(circuit.temperatures, TEMPERATURES)


# --- what is refused ----------------------------------------------------------------------------------------------


def broken(path, value):
    """A document of constants with one entry changed, or removed."""
    document = deepcopy(foreign(BASIC))
    *way, last = path
    place = document
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


CELL, CIRCUIT = ("Parameterisation", "Cell"), ("Parameterisation", "Circuit")
REFUSED = {
    "another version": (("Header", "ECM-PS version"), "0.1", r"version '0\.1'.*expected: version '0\.2'"),
    "BPX": (("Header",), {"BPX": "1.0.0", "Model": "DFN"}, "from_bpx"),
    "no header": (("Header",), None, "no section 'Header'"),
    "no circuit": (CIRCUIT, None, "no section 'Circuit'"),
    "capacity of 0": ((*CELL, "Nominal cell capacity [A.h]"), 0.0, "positive number"),
    "capacity as text": ((*CELL, "Nominal cell capacity [A.h]"), "5", "got: 5.*positive number"),
    "half a pair": ((*CELL, "Number of RC elements"), 0.5, "whole number"),
    "a pair too many": ((*CELL, "Number of RC elements"), 2, r"no 'R2 \[Ohm\]', no 'C2 \[F\]'"),
    "a pair too few": ((*CELL, "Number of RC elements"), 0, r"got: C1 \[F\], R1 \[Ohm\]"),
    "a billion pairs": ((*CELL, "Number of RC elements"), 1e9, "whole number from 0 to"),
    "no capacitance": ((*CIRCUIT, "C1 [F]"), None, r"no 'C1 \[F\]'"),
    "no open-circuit voltage": ((*CIRCUIT, "Open-circuit voltage [V]"), None, "no 'Open-circuit voltage"),
    "diffusion": ((*CIRCUIT, "Diffusion time constant [s]"), 100.0, "diffusion element"),
    "an unknown element": ((*CIRCUIT, "L0 [H]"), 1e-6, r"L0 \[H\]"),
    "unequal lengths": ((*CIRCUIT, "R1 [Ohm]"), {"x": [0, 0.5, 1], "y": [1, 2]}, "got: 3 x and 2 y"),
    "ragged rows": ((*CIRCUIT, "R1 [Ohm]"), {"x": [0, 1], "y": [280, 300], "z": [[1, 2], [3]]}, "rows of"),
    "transposed": ((*CIRCUIT, "R1 [Ohm]"), {"x": [0, 0.5, 1], "y": [280, 300], "z": [[1, 2]] * 3}, "got: 3 rows of 2"),
    "degrees Celsius": ((*CIRCUIT, "R1 [Ohm]"), {"x": [0, 1], "y": [0, 25], "z": [[1, 2]] * 2}, "expected: kelvin"),
    "percent": ((*CIRCUIT, "R1 [Ohm]"), {"x": [0, 100], "y": [1, 2]}, "expected: state of charge as a fraction"),
    "falling axis": ((*CIRCUIT, "R1 [Ohm]"), {"x": [1, 0], "y": [1, 2]}, "increasing values"),
    "NaN": ((*CIRCUIT, "R1 [Ohm]"), {"x": [0, 1], "y": [1, math.nan]}, "got: nan; expected: finite numbers"),
    "null": ((*CIRCUIT, "R1 [Ohm]"), {"x": [0, 1], "y": [1, [None]]}, "expected: finite numbers"),
    "a number too large": ((*CIRCUIT, "R0 [Ohm]"), 10**400, "finite number"),
    "an expression": ((*CIRCUIT, "R0 [Ohm]"), "0.1 * x", "got: 0.1 .* x; expected: a finite number"),
    "a table without y": ((*CIRCUIT, "R0 [Ohm]"), {"x": [0, 1]}, r"got: keys \['x'\]"),
    "a negative resistance": ((*CIRCUIT, "R0 [Ohm]"), -0.01, "positive values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_said(case):
    path, value, words = REFUSED[case]
    with pytest.raises(CelltwinError, match=words) as caught:
        exchange.circuit_of(broken(path, value), "cell.json")
    assert case in ("a negative resistance",) or "cell.json" in str(caught.value)


@pytest.mark.parametrize("document", [None, 3, [], {}, {"Header": []}])
def test_what_is_no_document_is_said(document):
    with pytest.raises(CelltwinError, match="no section 'Header'"):
        exchange.circuit_of(document)


def test_a_damaged_file_is_said(tmp_path):
    exchange.save(full(), tmp_path / "cell.json")
    text = (tmp_path / "cell.json").read_text(encoding="utf-8")
    (tmp_path / "half.json").write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(CelltwinError, match=r"cannot read .*half\.json"):
        exchange.load(tmp_path / "half.json")
    with pytest.raises(CelltwinError, match="cannot read"):
        exchange.load(tmp_path / "absent.json")
