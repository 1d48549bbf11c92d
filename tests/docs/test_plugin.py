"""The plugin of the guide, installed as a package of others, is a model like any other."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


def by_hand(target: Path) -> None:
    """What an installer leaves behind, for where there is no build backend."""
    (target / "celltwin_two_state.py").write_text((PLUGIN / "celltwin_two_state.py").read_text(), encoding="utf-8")
    about = target / "celltwin_two_state-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: celltwin-two-state\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text("[celltwin.models]\ntwo-state = celltwin_two_state:FAMILY\n")


@pytest.fixture(scope="module")
def celltwin(tmp_path_factory, dataset_folder):
    """Runs the command line in a process of its own that finds the plugin; its standard output."""
    target, work = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    if importlib.util.find_spec("hatchling") and importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*pip, "--target", str(target), str(PLUGIN)], check=True, capture_output=True, timeout=120)
    else:
        by_hand(target)
    path = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(*arguments: str) -> str:
        command = [
            sys.executable,
            "-m",
            "celltwin.cli",
            *(str(dataset_folder) if a == "DATA" else a for a in arguments),
        ]
        done = subprocess.run(
            command, cwd=work, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.work = work  # pyright: ignore[reportFunctionMemberAccess]
    return run


def test_it_is_listed_trained_scored_and_exported(celltwin):
    assert "two-state" in celltwin("models")
    board = celltwin("benchmark", "--data", "DATA", "--models", "ohmic,two-state", "--quick", "--out", "run")
    assert "two-state" in board
    celltwin("export", "run/twins/two-state-0.twin", "--to", "c", "--out", "build")
    assert (celltwin.work / "build" / "two_state.c").read_text().count("two_state_step") >= 1


def test_without_a_build_backend_it_is_found_too(tmp_path):
    by_hand(tmp_path)
    code = "from celltwin import models; print(models.family('two-state').title)"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    assert "a plugin" in done.stdout, done.stderr
