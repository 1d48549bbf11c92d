"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


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
