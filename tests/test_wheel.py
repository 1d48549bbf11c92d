"""What is built for others: a wheel that passes the usual checks, holds all it needs, and works by itself."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import celltwin

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    for module in ("build", "hatchling", "twine", "check_wheel_contents"):
        pytest.importorskip(module, reason="what builds and checks wheels is not installed")
    out = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, REPOSITORY])
    (path,) = out.glob("*.whl")
    return path


def run(command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_passes_the_checks_of_the_index_and_of_its_contents(wheel):
    assert "PASSED" in run([sys.executable, "-m", "twine", "check", "--strict", wheel])
    run([sys.executable, "-m", "check_wheel_contents", wheel])


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    source = REPOSITORY / "src"
    kept = run(["git", "-C", source, "ls-files", "celltwin"]).splitlines()
    assert inside == set(kept)
    assert {"celltwin/py.typed", "celltwin/data/demo/dataset.toml", "celltwin/deploy/fmi/fmi3.c"} <= inside


def test_it_works_away_from_the_sources(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "celltwin.cli"]
    said = run([sys.executable, "-c", "import celltwin; print(celltwin.__file__)"], cwd=tmp_path, env=environment)
    assert Path(said.strip()).is_relative_to(tmp_path)
    assert run([*command, "--version"], cwd=tmp_path, env=environment).strip() == celltwin.__version__
    printed = run([*command, "benchmark", "--models", "ohmic", "--out", "run"], cwd=tmp_path, env=environment)
    assert "ohmic" in printed
    assert (tmp_path / "run" / "report.html").stat().st_size > 1e6
    run([*command, "export", "lg_18650hg2/soc", "--to", "c", "--out", "c"], cwd=tmp_path, env=environment)


def test_the_shell_completes_commands():
    environment = os.environ | {"_CELLTWIN_COMPLETE": "complete_bash", "COMP_WORDS": "celltwin be", "COMP_CWORD": "1"}
    program = "from celltwin.cli import app; app(prog_name='celltwin')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.split() == ["benchmark"]
