"""A model of another package is one of celltwin's once that package is installed; a broken one harms nobody."""

import logging
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from celltwin import benchmark, models, twin
from celltwin.cli import app
from celltwin.data import datasets
from celltwin.errors import CelltwinError

MODULE = '''
"""OCV, and one resistance for discharge and another for charge."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from celltwin.interface import Input, Output, Start
from celltwin.learning.plan import Plan
from celltwin.models import Family
from celltwin.models.baselines import Ohmic
from celltwin.physics.charge import Charge, advance


class TwoWays(eqx.Module):
    ohmic: Ohmic
    ratio: Array  # of the resistance of charge to that of discharge

    def init(self, start: Start) -> Charge:
        return self.ohmic.init(start)

    def step(self, state: Charge, u: Input) -> tuple[Charge, Output]:
        state = advance(state, u.current, u.dt)
        current = jnp.where(u.current > 0, self.ratio, 1.0) * u.current
        return state, Output(self.ohmic.voltage(state.soc, u.temperature, current), state.soc)


def create(records, domain, key, base):
    return TwoWays(Ohmic.create(records), jnp.asarray(1.1, np.float32))


FAMILY = Family("two-ways", "OCV and a resistance a direction", create, Plan(adam_rounds=1, updates=3, chunk=50))
NONE = []
TAKEN = Family("ohmic", "not this one", create)
'''

ENTRY_POINTS = """
[celltwin.models]
two-ways = two_ways_of_others:FAMILY
gone = package_that_is_gone:FAMILY
empty = two_ways_of_others:NONE
taken = two_ways_of_others:TAKEN
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package outside celltwin, installed: one entry point that works and three that do not."""
    site = tmp_path / "site"
    about = site / "others-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "two_ways_of_others.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    models.plugins.cache_clear()
    yield site
    models.plugins.cache_clear()
    sys.modules.pop("two_ways_of_others", None)


def test_a_plugin_is_listed_benchmarked_and_exported(installed, dataset_folder, tmp_path):
    command = CliRunner()
    listed = command.invoke(app, ["models"])
    assert "two-ways" in listed.output
    assert "OCV and a resistance a direction" in listed.output
    dataset = datasets.load(dataset_folder)
    metrics = benchmark.run(dataset, dataset.split(), ["ohmic", "two-ways"], tmp_path / "run")
    assert [entry["name"] for entry in metrics["models"]] == ["ohmic", "two-ways"]
    assert 0 < metrics["models"][1]["overall"]["rmse"] < 200
    file = tmp_path / "run" / "twins" / "two-ways-0.twin"
    record = dataset.split().test[0]
    checked = ["export", str(file), "--to", "c", "--out", str(tmp_path / "c"), "--check", record_file(record, tmp_path)]
    exported = command.invoke(app, checked)
    assert exported.exit_code == 0, exported.output
    assert "two-ways" in (tmp_path / "c" / "two_ways.h").read_text()


def record_file(record, folder):
    path = folder / "record.parquet"
    record.save(path)
    return str(path)


def test_a_twin_of_a_plugin_loads_while_the_plugin_is_installed(installed, split, tmp_path, dataset_folder):
    dataset = datasets.load(dataset_folder)
    benchmark.run(dataset, dataset.split(), ["two-ways"], tmp_path / "run")
    file = tmp_path / "run" / "twins" / "two-ways-0.twin"
    before = twin.load(file).simulate(split.test[0]).voltage
    models.plugins.cache_clear()
    sys.modules.pop("two_ways_of_others")  # as in another process, which has not asked for any model yet
    assert np.array_equal(twin.load(file).simulate(split.test[0]).voltage, before)
    models.plugins.cache_clear()
    sys.modules.pop("two_ways_of_others")
    sys.path.remove(str(installed))
    with pytest.raises(CelltwinError, match="two_ways_of_others"):
        twin.load(file)


def test_a_broken_plugin_harms_nobody_and_says_why_when_asked_for(installed, caplog):
    with caplog.at_level(logging.WARNING, "celltwin"):
        names = [family.name for family in models.families()]
    assert "two-ways" in names
    assert len(names) == len(set(names))
    assert models.family("ohmic").title != "not this one"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    with pytest.raises(CelltwinError, match="No module named 'package_that_is_gone'"):
        models.family("gone")
    with pytest.raises(CelltwinError, match="names no family"):
        models.family("empty")
    with pytest.raises(CelltwinError, match="registered already"):
        models.family("taken")


def test_nearest_names_know_of_plugins(installed):
    with pytest.raises(CelltwinError, match="did you mean 'two-ways'"):
        models.family("two-way")
