"""Emitted C: it is what Python runs, to rounding; it compiles without a word; it takes whatever it is fed."""

import re
import subprocess
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import reference
from celltwin import models
from celltwin.data.domain import Domain
from celltwin.deploy import c, native, rules
from celltwin.deploy.native import Native
from celltwin.errors import CelltwinError
from celltwin.interface import Estimate, Output, Start, start_of
from celltwin.models.bounds import MORE, SLACK, STRAYED
from celltwin.models.ensemble import Ensemble
from celltwin.twin import Twin
from shaking import shaken

EVERY = [family.name for family in models.families()]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]


@pytest.mark.parametrize("name", EVERY)
def test_c_says_what_python_says(name, compiled, emitted, twin_of, run_in_python):
    said_by_python = {dtype: run_in_python(twin_of(name), dtype) for dtype in (np.float32, np.float64)}
    for precision, dtype, tolerance in (("single", np.float32, 1e-4), ("double", np.float64, 1e-9)):
        made = compiled(name) if precision == "single" else Native(emitted(name, precision), ("-O0",))
        # Python's own rounding moves this filter by more than the tolerance, where C stays by the exact answer.
        given = said_by_python[dtype]
        exact = said_by_python[np.float64] if name == "soc-ekf-hybrid" else given
        for (start, inputs, _), (*_, expected) in zip(given, exact, strict=True):
            said = made.run(made.begin(start), inputs)
            np.testing.assert_allclose(said[:, :2], expected, rtol=0, atol=tolerance)
            assert np.ptp(said[:, 0]) > 0.005 or name == "hold"


@pytest.mark.parametrize("name", EVERY)
def test_c_is_plain(name, emitted, compiler, tmp_path):
    """No warning; nothing but math.h and stdint.h; no heap, no jump, no loop but counted ones."""
    made, source = emitted(name), emitted(name).source
    (tmp_path / f"{made.name}.h").write_text(made.header)
    (tmp_path / f"{made.name}.c").write_text(source)
    command = [*compiler, *STRICT, "-O1", "-c", f"{made.name}.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    for word in ("malloc", "while", "goto", "printf"):
        assert not re.search(rf"\b{word}\b", source)
    assert set(re.findall(r"#include <(.+)>", source)) <= {"math.h", "stdint.h"}
    assert all(
        re.search(r"\(int (\w) = 0; \1 < \d+; (\+\+\1|\1 \+= \d)\)", head) for head in re.findall(r"for (.+) {", source)
    )


def wild(draw, shape):
    """Numbers of any bits, of the awkward kinds, and of a sensible size."""
    bits = draw.integers(0, 2**32, shape, dtype=np.uint64).astype(np.uint32).view(np.float32)
    awkward = draw.choice(np.float32([0, -0.0, np.nan, np.inf, -np.inf, 1e-38, 1e38, 1e6, -1e6, 25, 3.7]), shape)
    sensible = (draw.normal(size=shape) * draw.choice([1.0, 5.0, 50.0], shape)).astype(np.float32)
    kind = draw.integers(3, size=shape)
    return np.choose(kind, [bits, awkward, sensible])


@pytest.mark.parametrize("name", EVERY)
def test_no_input_brings_c_out_of_its_window(name, compiled):
    """Arbitrary bits for a start and for inputs: no undefined behaviour (it would trap), no NaN, nothing impossible."""
    compiled, draw = compiled(name), np.random.default_rng(EVERY.index(name))
    low, high = reference.CELL.voltage_limits_volt
    beyond = SLACK + MORE if name in VOLTAGE else STRAYED
    low, high = (low - beyond, high + beyond) if name in VOLTAGE else (-beyond, 1 + beyond)
    for k in range(6):
        inputs = wild(draw, (500, len(compiled.source.inputs)))
        if k % 2:
            inputs[:, -1] = 1.0
        state = compiled.begin(Start(*wild(draw, 5).tolist()))
        said = compiled.run(state, inputs)
        assert np.isfinite(said).all()
        assert low - 1e-6 <= said[:, 0].min() <= said[:, 0].max() <= high + 1e-6
        assert set(np.unique(said[:, -1])) <= {0.0, 1.0}


VOLTAGE = {name for name in EVERY if not name.startswith("soc-")}


@pytest.mark.parametrize("weights", ["int16", "int8"])
def test_whole_numbers_for_weights_cost_little_accuracy(weights, emitted, twin_of, run_in_python, compiler):
    start, inputs, expected = run_in_python(twin_of("soc-fused"))[0]
    compiled = Native(emitted("soc-fused", weights=weights), ("-O1",))
    apart = np.abs(compiled.run(compiled.begin(start), inputs)[:, 0] - expected[:, 0])
    assert 0 < apart.max() < {"int16": 5e-4, "int8": 0.05}[weights]
    assert f"{weights}_t" in compiled.source.source
    assert len(re.findall(rf"static const {weights}_t", compiled.source.source)) >= 3


def test_valid_is_the_training_range(emitted, compiler, twin_of):
    compiled, domain = Native(emitted("thevenin")), twin_of("thevenin").domain
    start = Start(3.7, 0.0, 25.0, 0.7, 1.0)
    dt = float(domain.low[3])
    for current, temperature, step, expected in (
        (-0.5, 25.0, dt, 1), (-0.5, 25.0, 0.0, 1), (-50.0, 25.0, dt, 0), (-0.5, 70.0, dt, 0), (-0.5, 25.0, 500.0, 0),
        (float("nan"), 25.0, dt, 0),
    ):  # fmt: skip
        assert compiled.step(compiled.begin(start), current, temperature, step)[-1] == expected


def test_an_export_replays_a_csv(twin_of, compiler, tmp_path, journey):
    for path in c.export(twin_of("thevenin"), tmp_path, name="cell"):
        assert path.stat().st_size > 100
    flags = " ".join([*STRICT, "-O2"])
    subprocess.run(
        ["make", f"CC={' '.join(compiler)}", f"CFLAGS={flags}"], cwd=tmp_path, check=True, capture_output=True
    )
    record = journey.between(0, 400)
    quoted = "test_time_second,note,voltage_volt,current_ampere,temperature_t1_celsius"
    rows = np.column_stack([record.time, np.zeros(400), record.voltage, record.current, record.temperature])
    text = "\n".join([",".join(f'"{n}"' for n in quoted.split(",")), *(",".join(map(repr, r)) for r in rows.tolist())])
    done = subprocess.run(["./cell", "0.6"], cwd=tmp_path, input=text, capture_output=True, text=True, check=True)
    said = np.genfromtxt(done.stdout.splitlines(), delimiter=",", names=True)
    np.testing.assert_allclose(said["voltage"], twin_of("thevenin").simulate(record).voltage, atol=2e-5)
    for broken, message in (
        ("", "empty"),
        ("a,b\n1,2\n", "no column test_time_second"),
        (f"{text}\n3,0,3,0,25\n", "time"),
    ):
        bad = subprocess.run(["./cell", "0.6"], cwd=tmp_path, input=broken, capture_output=True, text=True)
        assert bad.returncode == 2
        assert message in bad.stderr
    blind = subprocess.run(["./cell"], cwd=tmp_path, input=text, capture_output=True, text=True)
    assert blind.returncode == 2  # a simulation that starts anywhere is none
    assert "usage: ./cell SOC" in blind.stderr


def test_a_wrong_option_is_refused(twin_of):
    for options in ({"precision": "half"}, {"weights": "int4"}, {"name": "2nd"}, {"name": "double"}):
        with pytest.raises(CelltwinError):
            c.emit(twin_of("ohmic"), **options)


# --- operations that the package's own models have no use for --------------------------------------------------------


class Odd(eqx.Module):
    """A model of somebody else's: its step is any function of its inputs and a memory of four numbers."""

    weight: jax.Array
    function: callable = eqx.field(static=True)

    def init(self, start):
        return jnp.arange(4.0) * start.soc

    def step(self, state, u):
        after, voltage = self.function(self.weight, state, u)
        return after, Output(3.5 + 0.5 * jnp.tanh(voltage), 0.5 + 0.0 * u.current)


def loop(w, s, u):
    def body(carry, x):
        return carry * 0.5 + x @ w[:, 0], carry + x[0]

    total, each = lax.scan(body, u.current, jnp.stack([s, s * 2.0, s + 1.0]), reverse=True)
    return s * 0.9 + 0.1 * total, jnp.sum(each)


def sums(w, s, u):
    return jnp.cumsum(s) * 0.1 + u.current, jnp.prod(s + 0.5) + jnp.max(w) - jnp.min(s) + jnp.mean(w @ s)


def gather(w, s, u):
    return s[jnp.array([3, 2, 1, 0])] * 0.5 + u.current, w[jnp.clip(u.dt.astype(int), 0, 3)] @ s


def pieces(w, s, u):
    piece = lax.dynamic_slice(w[0], (u.dt.astype(int),), (2,))
    return lax.dynamic_update_slice(s, piece, (1,)), s[0] + u.current


def scatter(w, s, u):
    return s.at[1].set(u.current).at[jnp.array([0, 2])].add(0.1), s.sum()


def logic(w, s, u):
    return jnp.where((s > 0.1) & ~(s > 2.0) | (u.current > 0), s * 0.5, 1.0), jnp.any(s > 1) * 1.0


def functions(w, s, u):
    angle = jnp.arctan2(s[0], s[1] + 2) + jnp.floor(s[2] * 3)
    return jnp.sin(s) + jnp.cos(s) * jnp.sqrt(jnp.abs(s)), angle + s[3] ** 3 / 40 + (s[1] ** 2 + 1) ** -0.5


def flips(w, s, u):
    return jnp.flip(s) * 0.5 + u.current, (w.T[::-1, 1:3] * 2).reshape(-1)[5] + jnp.tile(s, 2)[6]


def matrices(w, s, u):
    return (w @ w.T @ jnp.outer(s, s))[1] * 0.01, jnp.einsum("ij,j,i->", w, s, s) * 0.1


def pad(w, s, u):
    return jnp.pad(s, (1, 2))[1:5] * 0.3, jnp.pad(w * u.current, ((0, 0), (2, 1)))[1].sum()


def batched(w, s, u):
    return jax.vmap(lambda a, b: a @ b + u.current)(jnp.outer(s, s)[:, None] * w, w)[:, 0] * 0.01, s[2]


def products_of_rows(w, s, u):
    five = jnp.concatenate([w, 2.0 * w[:1] + u.temperature])  # a batch, and no axis beside it
    said = jax.vmap(jnp.dot)(five, jnp.tanh(five * u.current))
    return s, 1e-3 * jnp.sum(said * jnp.arange(5.0, dtype=said.dtype))


FUNCTIONS = (loop, sums, gather, pieces, scatter, logic, functions, flips, matrices, pad, batched, products_of_rows)


def odd_twin(function, split):
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
    return Twin("odd", Odd(weight, function), Domain.of(split.train), reference.CELL, {}, "voltage")


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_model_from_elsewhere_is_emitted_too(function, split, compiler, journey):
    twin = odd_twin(function, split)
    record = journey.between(0, 300)
    compiled = Native(c.emit(twin), ("-O1",))
    start = start_of(record)
    inputs = np.stack([record.current, record.filled_temperature, record.dt], axis=1).astype(np.float32)
    said = compiled.run(compiled.begin(start), inputs)[:, 0]
    np.testing.assert_allclose(said, twin.simulate(record).voltage, atol=2e-5)


def test_an_operation_without_a_rule_is_refused_by_name(split):
    with pytest.raises(
        CelltwinError, match=r"'sort' is no operation that can be written as C.*tanh.*celltwin.deploy.rules"
    ):
        c.emit(odd_twin(lambda w, s, u: (jnp.sort(s), s[0]), split))


def test_a_rule_of_ones_own_makes_an_operation_known(split, compiler, journey, monkeypatch):
    monkeypatch.setitem(rules.RULES, "digamma", rules.RULES["log"])  # whatever it says, it is what the rule says
    monkeypatch.setitem(rules.FUNCTIONS, "digamma", "log")
    source = c.emit(odd_twin(lambda w, s, u: (s + 1.0, lax.digamma(s[3] + 1.0)), split))
    assert "logf(" in source.source
    Native(source)


def test_functions_of_our_own_are_those_of_the_library(split, compiler):
    """exp, expm1, tanh and log1p: to four units in the last place, and alike where they are not finite."""
    x = np.concatenate([np.linspace(-87, 88, 40_001), np.geomspace(1e-30, 80, 4000), -np.geomspace(1e-30, 0.999, 4000)])
    x = np.concatenate([x, [0.0, np.nan, 200.0, -200.0, 3e38, -3e38]]).astype(np.float32)
    for function, exact in ((jnp.exp, np.exp), (jnp.expm1, np.expm1), (jnp.tanh, np.tanh), (jnp.log1p, np.log1p)):
        model = Bare(function)
        source = c.emit(Unbounded("bare", model, Domain.of(split.train), reference.CELL, {}, "soc"))
        compiled = Native(source, ("-O2", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"))
        state = compiled.begin(Start(0.0, 0.0, 0.0, 0.0, 1.0))
        said = compiled.run(state, np.stack([x, 0 * x, 0 * x, 0 * x], axis=1))[:, 0]
        with np.errstate(all="ignore"):
            expected = exact(x.astype(np.float64)).astype(np.float32)
            np.testing.assert_allclose(said, expected, rtol=4 * np.finfo(np.float32).eps, atol=2e-38)


class Unbounded(Twin):
    """A twin whose model is run as it is."""

    runner = property(lambda self: self.model)


class Bare(eqx.Module):
    """Says a function of the voltage."""

    function: callable = eqx.field(static=True)

    def init(self, start):
        return start.soc

    def step(self, state, y):
        return state, Estimate(self.function(y.voltage), 0.0 * y.current)


def test_state_lies_bare_in_memory(emitted, compiler):
    """What a snapshot relies on: the struct is the state's leaves, one after the other."""
    for name in ("soc-fused", "hybrid-gru", "soc-tcn"):
        compiled = Native(emitted(name), ("-O0",))
        assert compiled.size == 4 * sum(int(np.prod(m.shape)) for m in compiled.source.state)


def test_without_a_compiler_there_is_a_clear_error(emitted, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert native.compiler() is None
    with pytest.raises(CelltwinError, match="no C compiler"):
        Native(emitted("hold"))
    monkeypatch.setenv("CC", "false")
    with pytest.raises((CelltwinError, OSError)):
        Native(emitted("hold"))


@pytest.mark.parametrize("name", ["thevenin", "narx", "hybrid-gru", "koopman"])
def test_c_of_an_ensemble_says_what_python_says(name, twin_of, compiler, run_in_python):
    one = twin_of(name)
    model = Ensemble.of([shaken(one.model, seed, size=0.02) for seed in range(5)])
    twin = replace(one, model=model)
    for flags in (("-O0", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"), None):
        compiled = Native(c.emit(twin), flags)
        for start, inputs, expected in run_in_python(twin)[:3]:
            said = compiled.run(compiled.begin(start), inputs)
            np.testing.assert_allclose(said[:, :2], expected, rtol=0, atol=2e-5)


class Keyed(eqx.Module):
    """A state of a plain tuple and a dict, and of what is no number."""

    keyed: bool = eqx.field(static=True)

    def init(self, start):
        state = start.soc, {"a b": start.voltage}
        return (*state, jax.random.key(0)) if self.keyed else state

    def step(self, state, u):
        return (state[0], {"a b": state[1]["a b"] + 0.0 * u.current}, *state[2:]), Output(state[1]["a b"], state[0])


def test_the_state_may_be_any_tree_of_numbers(split, compiler):
    twin = Twin("keyed", Keyed(False), Domain.of(split.train), reference.CELL, {}, "voltage")
    assert [member.name for member in c.emit(twin).state][:2] == ["value_0", "value_1_a_b"]
    compiled = Native(c.emit(twin))
    np.testing.assert_allclose(compiled.step(compiled.begin(Start(3.7, 0.0, 25.0, 0.5, 1.0)), 0.0, 25.0, 1.0)[0], 3.7)
    with pytest.raises(CelltwinError, match="holds what is no number; got: key"):
        c.emit(replace(twin, model=Keyed(True)))
