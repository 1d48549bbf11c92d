"""BPX: open-circuit voltage, capacity and limits from electrodes, as the format's own reader and PyBaMM see them."""

import json
import warnings
from copy import deepcopy

import numpy as np
import pytest

from celltwin import exchange
from celltwin.errors import CelltwinError
from celltwin.exchange.expression import evaluate
from celltwin.exchange.lookup import open_circuit_voltage

REASON = "installed by the extra 'peers'"
NEGATIVE_OCP = "0.1 + 0.7 * exp(-30 * x) - 0.03 * tanh((x - 0.5) / 0.08)"


def electrode(**changes):
    values = {
        "Minimum stoichiometry": 0.03,
        "Maximum stoichiometry": 0.85,
        "Maximum concentration [mol.m-3]": 30000.0,
        "Particle radius [m]": 5e-6,
        "Thickness [m]": 6.9e-5,
        "Diffusivity [m2.s-1]": 3e-14,
        "OCP [V]": NEGATIVE_OCP,
        "Surface area per unit volume [m-1]": 4.2e5,
        "Reaction rate constant [mol.m-2.s-1]": 5e-6,
        "Conductivity [S.m-1]": 10.0,
        "Porosity": 0.3,
        "Transport efficiency": 0.2,
    }
    return values | changes


def document(**parameters):
    positive = electrode(
        **{
            "Minimum stoichiometry": 0.25,
            "Maximum stoichiometry": 0.92,
            "Maximum concentration [mol.m-3]": 50000.0,
            "Surface area per unit volume [m-1]": 3.9e5,
            "Thickness [m]": 5.454e-5,
            "OCP [V]": {"x": [0.0, 0.3, 0.6, 0.95, 1.0], "y": [4.4, 4.15, 3.8, 3.5, 3.0]},
        }
    )
    return {
        "Header": {"BPX": "1.0.0", "Model": "DFN", "Title": "invented"},
        "Parameterisation": {
            "Cell": {
                "Electrode area [m2]": 0.1,
                "Number of electrode pairs connected in parallel to make a cell": 1,
                "Lower voltage cut-off [V]": 2.6,
                "Upper voltage cut-off [V]": 4.2,
                "Nominal cell capacity [A.h]": 3.2,
                "Reference temperature [K]": 293.15,
                "External surface area [m2]": 0.004,
                "Volume [m3]": 2e-5,
                "Density [kg.m-3]": 2500.0,
                "Specific heat capacity [J.K-1.kg-1]": 900.0,
            },
            "Electrolyte": {
                "Cation transference number": 0.26,
                "Diffusivity [m2.s-1]": 3e-10,
                "Conductivity [S.m-1]": 1.0,
            },
            "Separator": {"Thickness [m]": 1.2e-5, "Porosity": 0.5, "Transport efficiency": 0.35},
            "Negative electrode": electrode(),
            "Positive electrode": positive,
        }
        | parameters,
        "State": {
            "Thermal environment": {"Ambient temperature [K]": 298.15, "Heat transfer coefficient [W.m-2.K-1]": 10}
        },
    }


def changed(side, **values):
    made = document()
    made["Parameterisation"][f"{side} electrode"] |= values
    return made


BRANCHES = {
    "OCP (lithiation) [V]": f"{NEGATIVE_OCP} - 0.02",
    "OCP (delithiation) [V]": f"{NEGATIVE_OCP} + 0.04",
    "OCP hysteresis decay constant": 40.0,
}


@pytest.fixture
def read(tmp_path):
    def from_document(made, **options):
        path = tmp_path / "cell_bpx.json"
        path.write_text(json.dumps(made), encoding="utf-8")
        return exchange.from_bpx(path, **{"r0": 0.02} | options)

    return from_document


@pytest.fixture
def bpx():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within it
        yield pytest.importorskip("bpx", reason=REASON)


@pytest.fixture
def from_pybamm(bpx, monkeypatch):
    """PyBaMM, and what it makes of a document. Its and its reader's deprecations are not ours to mend."""
    monkeypatch.setenv("PYBAMM_DISABLE_TELEMETRY", "true")
    pybamm = pytest.importorskip("pybamm", reason=REASON)
    return lambda made: (pybamm, pybamm.ParameterValues.create_from_bpx_obj(made))


def test_a_circuit_of_electrodes(read):
    circuit = read(document())
    assert (circuit.name, circuit.pairs, circuit.voltage_limits_volt) == ("invented", 0, (2.6, 4.2))
    assert circuit.temperatures.tolist() == [20.0]
    assert (circuit.r0 == 0.02).all()
    assert "user says so" in circuit.notes[-1]
    assert circuit.meta["nominal_capacity_ah"] == 3.2
    assert circuit.meta["thermal"] == pytest.approx(
        {"cell_joule_per_kelvin": 45.0, "cell_to_jig_watt_per_kelvin": 0.04}
    )
    empty, full = circuit.ocv[[0, -1], 0]
    assert full == pytest.approx(np.interp(0.25, [0.0, 0.3], [4.4, 4.15]) - (0.07 + 0.7 * np.exp(-25.5)), abs=1e-4)
    assert 2.6 < empty < 3.2


def test_the_format_s_own_reader_agrees(read, bpx):
    circuit, parsed = read(document()), bpx.parse_bpx_obj(document())
    negative, positive = parsed.parameterisation.negative_electrode, parsed.parameterisation.positive_electrode
    potential = negative.ocp.to_python_function()
    for soc, voltage in zip(circuit.ocv_soc, circuit.ocv[:, 0], strict=True):
        xn, xp = bpx.get_electrode_stoichiometries(float(soc), parsed)
        assert voltage == pytest.approx(np.interp(xp, positive.ocp.x, positive.ocp.y) - potential(xn), abs=1e-9)


def test_pybamm_counts_the_same_capacity(read, from_pybamm):
    circuit, pybamm, values = read(document()), *from_pybamm(document())
    electrodes = pybamm.LithiumIonParameters()
    for side, span in ((electrodes.n, 0.82), (electrodes.p, 0.67)):
        assert float(values.evaluate(side.Q_init)) * span == pytest.approx(circuit.capacity_ah, rel=0.001)


def test_pybamm_approaches_the_branch_at_the_same_rate(read, from_pybamm):
    circuit, pybamm, values = read(changed("Negative", **BRANCHES)), *from_pybamm(changed("Negative", **BRANCHES))
    for side, filled in (("negative", 0.03 + 0.9 * 0.82), ("positive", 0.92 - 0.9 * 0.67)):
        full = values[f"Maximum concentration in {side} electrode [mol.m-3]"]
        needed = {
            f"{side.capitalize()} electrode OCP entropic change [V.K-1]": 0.0,
            f"Initial hysteresis state in {side} electrode": 0.0,
            f"Initial concentration in {side} electrode [mol.m-3]": filled * full,
        }
        values.update(needed, check_already_exists=False)
    values["Current function [A]"] = 0.3
    model = pybamm.lithium_ion.SPM({"open-circuit potential": ("one-state hysteresis", "single")})
    solution = pybamm.Simulation(model, parameter_values=values).solve([0.0, 5400.0])
    state = solution["X-averaged negative electrode hysteresis state"].entries
    passed = solution["Discharge capacity [A.h]"].entries / circuit.capacity_ah
    assert state[-1] > 0.85
    np.testing.assert_allclose(state, 1.0 - np.exp(-circuit.hysteresis_rate[0] * passed), atol=2e-3)


def test_electrodes_that_disagree_leave_the_nominal_capacity(read):
    circuit = read(changed("Negative", **{"Thickness [m]": 8e-5}))
    assert circuit.capacity_ah == 3.2
    assert "do not agree" in circuit.notes[0]


def test_branches_become_hysteresis(read):
    circuit = read(changed("Negative", **BRANCHES))
    np.testing.assert_allclose(circuit.hysteresis, 0.03, atol=1e-12)
    np.testing.assert_allclose(circuit.hysteresis_rate, [0.5 * 40.0 * 0.82])
    np.testing.assert_allclose(circuit.ocv, read(document()).ocv - 0.01)


def test_entropy_moves_the_open_circuit_voltage(read):
    made = changed("Negative", **{"Entropic change coefficient [V.K-1]": -1e-4})
    made["Parameterisation"]["Positive electrode"]["Entropic change coefficient [V.K-1]"] = {
        "x": [0, 1],
        "y": [0, 1e-4],
    }
    circuit, plain = read(made), read(document())
    xp = 0.92 - 0.5 * 0.67
    moved = open_circuit_voltage(circuit)(0.5, 35.0) - open_circuit_voltage(plain)(0.5, 35.0)
    assert moved == pytest.approx(15.0 * (1e-4 * xp + 1e-4), rel=1e-6)


def test_one_material_may_be_named(read):
    made, plain = document(), document()["Parameterisation"]["Negative electrode"]
    kept = {"Thickness [m]": plain.pop("Thickness [m]")}
    made["Parameterisation"]["Negative electrode"] = kept | {"Particle": {"graphite": plain}}
    np.testing.assert_array_equal(read(made).ocv, read(document()).ocv)
    made["Parameterisation"]["Negative electrode"]["Particle"]["silicon"] = deepcopy(plain)
    with pytest.raises(CelltwinError, match=r"is a blend.*graphite, silicon"):
        read(made)


@pytest.mark.parametrize("r0", [None, 0.0, -0.1, float("nan")])
def test_a_resistance_is_asked_for(read, r0):
    with pytest.raises(CelltwinError, match=r"no resistance of a circuit.*fix: give one"):
        read(document(), r0=r0)


REFUSED = {
    "no BPX": ({"Header": {"Model": "ECM", "ECM-PS version": "0.2"}}, r"not a BPX file.*exchange\.load"),
    "no electrode": (document(**{"Positive electrode": None}), "no section 'Positive electrode'"),
    "limits reversed": (changed("Negative", **{"Minimum stoichiometry": 0.9}), "stoichiometry limits of the negative"),
    "no potential": (changed("Negative", **{"OCP [V]": None}), r"'OCP \[V\]' of the negative electrode"),
    "half a table": (changed("Negative", **{"OCP [V]": {"x": [0, 1], "y": [1]}}), r"as many finite x as y"),
    "an unknown function": (changed("Negative", **{"OCP [V]": "gamma(x)"}), r"cannot be computed; got: .*gamma\(x\)"),
    "Python": (changed("Negative", **{"OCP [V]": "__import__('os').getcwd()"}), "cannot be computed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_said(read, case):
    made, words = REFUSED[case]
    with pytest.raises(CelltwinError, match=words):
        read(made)


# --- expressions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5", lambda x: 1.5 + 0 * x),
        ("-2 * x**2 + x / 4 - 1e-3", lambda x: -2 * x**2 + x / 4 - 1e-3),
        ("2 ** -x ** 2", lambda x: 2.0 ** -(x**2)),
        (
            "exp(-(x - 0.5) ** 2) * tanh(3 * x) + cosh(x)",
            lambda x: np.exp(-((x - 0.5) ** 2)) * np.tanh(3 * x) + np.cosh(x),
        ),
    ],
)
def test_expressions_are_arithmetic(text, expected):
    x = np.linspace(0.0, 1.0, 11)
    np.testing.assert_allclose(evaluate(text, x, "it"), expected(x), rtol=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "y",
        "x.T",
        "x[0]",
        "exp(x, x)",
        "exp",
        "(lambda: 1)()",
        "'a'",
        "x if x else 1",
        "[x]",
        "x @ x",
        "1j * x",
        "True * x",
    ],
)
def test_nothing_else_is_computed(text):
    with pytest.raises(CelltwinError, match="it cannot be computed"):
        evaluate(text, np.ones(2), "it")


@pytest.mark.parametrize("text", ["9 ** 9 ** 9 ** 9", "1 / (x - 1)", "log(x - 2)", "(" * 500 + "x" + ")" * 500])
def test_nothing_hangs_or_is_infinite(text):
    with pytest.raises(CelltwinError, match=r"it (is not a number everywhere|cannot be computed)"):
        evaluate(text, np.ones(2), "it")
