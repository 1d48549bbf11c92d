"""Sessions of browser tabs, and the port."""

import asyncio
import socket
import time

import pytest

pytest.importorskip("nicegui", reason="the studio's extra is not installed")

from celltwin.errors import CelltwinError
from celltwin.studio import server
from celltwin.studio.server import Opened, Studio


@pytest.fixture
def studio(tmp_path):
    made = Studio(Opened(), 1000, tmp_path / "root", grace=0.1)
    made.root.mkdir()
    yield made
    made.close()
    assert not made.root.exists()


def gone(folder):
    for _ in range(100):
        if not folder.exists():
            return True
        time.sleep(0.05)
    return False


def test_a_reload_keeps_a_session_and_a_closed_tab_ends_it(studio):
    async def scene():
        first, other = studio.session_of("a"), studio.session_of("b")
        assert first is not other
        studio.left("a")
        assert studio.session_of("a") is first  # the page was loaded again
        await asyncio.sleep(0.3)
        assert studio.session_of("a") is first
        studio.left("b")
        await asyncio.sleep(0.3)
        return first, other

    first, other = asyncio.run(scene())
    assert gone(other.folder)
    assert first.folder.exists()
    assert list(studio.sessions) == ["a"]


def test_a_log_of_the_command_line_is_in_every_session(studio, drives, tmp_path):
    path = tmp_path / "log.parquet"
    drives["25degC", "LA92"].save(path)
    studio.opened.log = path
    assert [log.name for log in studio.session_of("a").logs.values()] == ["log.parquet"]


def test_sessions_have_an_end(studio, monkeypatch):
    monkeypatch.setattr(server, "MOST_SESSIONS", 2)
    for tab in ("a", "b", "a"):
        studio.session_of(tab)
    with pytest.raises(CelltwinError, match="too many"):
        studio.session_of("c")


def test_a_taken_port_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CelltwinError, match="cannot be used"):
            server.serve(Opened(), taken.getsockname()[1], 1000, False, print)
