"""Fixtures that all tests share."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

# What one test compiled the next ones, their worker processes and the commands they run need not compile again.
# Before the first import of jax, which reads it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="celltwin-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# Programs of tests are compiled more often than they are run, and two workers share two cores. XLA's newer code
# generator takes more than twice as long over them as the one before it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "XLA_FLAGS" not in os.environ:
    flags = "--xla_cpu_multi_thread_eigen=false", "--xla_cpu_use_fusion_emitters=false"
    # XLA aborts where it does not know a flag. Workers inherit what was found.
    trial = {"args": [sys.executable, "-c", "import jax; jax.devices()"], "capture_output": True}
    known = subprocess.run(**trial, env=os.environ | {"XLA_FLAGS": " ".join(flags)}).returncode == 0
    os.environ["XLA_FLAGS"] = " ".join(flags) if known else flags[0]

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings

import reference
from celltwin import benchmark, models
from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.data.splits import Split
from celltwin.learning.plan import Plan
from celltwin.twin import Twin
from shaking import shaken

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def single_precision():
    """PyBaMM, imported by a test, makes all of JAX double: not for the tests that follow."""
    yield
    jax.config.update("jax_enable_x64", False)


MAPPINGS = 25_000  # of the 65,530 that Linux lets a process have; a compiled program takes a dozen and more
ended = count(1)


@pytest.fixture(autouse=True)
def few_mappings():
    """A worker that keeps thousands of compiled programs runs out of memory mappings, and crashes in the compiler."""
    yield
    mappings = Path("/proc/self/maps")  # a long list: read after every tenth test
    if next(ended) % 10 == 0 and mappings.exists() and mappings.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()


settings.register_profile("celltwin", deadline=None, derandomize=True)
settings.load_profile("celltwin")


def shared_data_folder() -> Path | None:
    """The folder of measured data, which is too large for the repository; None where it is absent."""
    folder = Path(os.environ.get("CELLTWIN_DATA") or REPOSITORY.parent / "shared" / "data")
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of measured data; the test is skipped without it."""
    folder = shared_data_folder()
    if folder is None:
        pytest.skip("no measured data: set CELLTWIN_DATA or put it at ../shared/data")
    return folder


# --- a simulated cell, see reference.py --------------------------------------------------------------------------

DRIVES = {
    ("25degC", "Mixed1"): {"seed": 1},
    ("25degC", "Mixed2"): {"seed": 2, "samples": 700},
    ("5degC", "Mixed1"): {"seed": 3, "ambient": 5.0},
    ("25degC", "UDDS"): {"seed": 4, "samples": 600},
    ("25degC", "LA92"): {"seed": 5, "samples": 650},
    ("5degC", "LA92"): {"seed": 6, "ambient": 5.0, "samples": 600},
}

DATASET = """
[cell]
name = "simulated"
reference_capacity_ah = 1.0
voltage_limits_volt = [2.5, 4.3]

[records]
files = "*/*.parquet"

[split]
train = ["Mixed*"]
validate = ["UDDS"]
test = ["LA92"]

[splits.cold]
train = ["25degC/*"]
test = ["5degC/*"]

[source]
licence = "MIT"
citation = "simulated"
"""


@pytest.fixture(scope="session")
def drives():
    """Six drive cycles of the simulated cell, by folder and name."""
    return {key: reference.drive(key[1], **options) for key, options in DRIVES.items()}


@pytest.fixture(scope="session")
def split(drives):
    """Three training records, one for validation, two for test."""
    side = {"Mixed1": "train", "Mixed2": "train", "UDDS": "validate", "LA92": "test"}
    return Split(**{s: tuple(r for r in drives.values() if side[r.name] == s) for s in ("train", "validate", "test")})


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory, drives):
    """The same six drive cycles as a dataset: read it, do not change it."""
    folder = tmp_path_factory.mktemp("simulated")
    for (ambient, name), record in drives.items():
        (folder / ambient).mkdir(exist_ok=True)
        record.save(folder / ambient / f"{name}.parquet")
    (folder / "dataset.toml").write_text(DATASET, encoding="utf-8")
    return folder


FAMILIES = [family.name for family in models.families() if family.task == "voltage"]


@pytest.fixture(scope="session")
def twins(split):
    """One untrained twin of every registered family by name; their parameters are shaken, so they are not alike."""
    made: dict[str, Twin] = {}
    domain = Domain.of(split.train)
    for number, name in enumerate(FAMILIES):
        family = models.family(name)
        base = made[family.base].model if family.base else None
        model = shaken(family.create(split.train, domain, jax.random.key(number), base), number)
        made[name] = Twin(name, model, domain, reference.CELL, {"title": family.title, "seed": number})
    return made


@pytest.fixture(params=FAMILIES)
def twin(request, twins):
    """Each registered model in turn."""
    return twins[request.param]


@pytest.fixture
def in_double():
    """Double precision, for the length of a test: gives a function that casts a model."""
    with jax.enable_x64(True):
        yield lambda tree: jax.tree.map(
            lambda leaf: jnp.asarray(np.asarray(leaf), np.float64) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf,
            tree,
        )


# --- tiny trainings ------------------------------------------------------------------------------------------------


def tiny(plan):
    if plan.adam_rounds:
        return Plan(adam_rounds=2, updates=5, lanes=4, chunk=50)
    return Plan(lbfgs_rounds=2, iterations=3)


@pytest.fixture(scope="session")
def tiny_plans():
    """The registered models with plans of a second each, for the rest of the session."""
    with pytest.MonkeyPatch.context() as patch:
        for family in models.families():
            if family.plan:
                patch.setitem(models._families, family.name, replace(family, plan=tiny(family.plan)))
        yield


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, dataset_folder, tiny_plans):
    """A benchmark of a baseline and a hybrid of two seeds: read it, do not change it."""
    dataset = datasets.load(dataset_folder)
    out = tmp_path_factory.mktemp("runs") / "run"
    metrics = benchmark.run(dataset, dataset.split(), ["ohmic", "hybrid"], out, seeds=(0, 1))
    return out, metrics
