"""The server: 127.0.0.1 alone, one session a browser tab, everything removed at the end."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import run, ui

from celltwin.data.datasets import Dataset
from celltwin.errors import CelltwinError
from celltwin.studio.export_tab import ExportTab
from celltwin.studio.frame import Frame
from celltwin.studio.guard import Guard
from celltwin.studio.log_tab import LogTab
from celltwin.studio.session import Session
from celltwin.studio.trainer import Trainer
from celltwin.studio.twin_tab import TwinTab
from celltwin.studio.view_tab import ViewTab
from celltwin.studio.whatif_tab import WhatIfTab
from celltwin.twin import Twin

HOST = "127.0.0.1"
GRACE = 600.0  # s that a session outlives its page, so that a reload, or a laptop that slept, loses nothing
MOST_SESSIONS = 20


@dataclass
class Opened:
    """What the command line asks to begin with."""

    dataset: Dataset | None = None
    twin: Twin | None = None
    log: Path | None = None


@dataclass
class Studio:
    """What all pages of a process share."""

    opened: Opened
    limit: int  # bytes of one upload
    root: Path  # of all temporary files
    grace: float = GRACE
    trainer: Trainer = field(default_factory=Trainer)
    sessions: dict[str, Session] = field(default_factory=dict)  # by browser tab
    pages: dict[str, int] = field(default_factory=dict)  # that show each

    def session_of(self, tab: str) -> Session:
        """The session of a browser tab, a new one where it has none. Raises CelltwinError where there are too many."""
        if tab not in self.sessions:
            if len(self.sessions) >= MOST_SESSIONS:
                raise CelltwinError(
                    "too many sessions",
                    got=len(self.sessions),
                    expected=f"at most {MOST_SESSIONS}",
                    fix="close some tabs",
                )
            session = Session(self.root, self.limit, self.opened.dataset, self.opened.twin)
            if self.opened.log is not None:
                session.add(self.opened.log)
            self.sessions[tab] = session
        self.pages[tab] = self.pages.get(tab, 0) + 1
        return self.sessions[tab]

    def left(self, tab: str) -> None:
        """A page is gone; its session follows unless another page takes it up in time."""
        self.pages[tab] -= 1
        asyncio.get_running_loop().call_later(self.grace, self._forget, tab)

    def _forget(self, tab: str) -> None:
        if not self.pages.get(tab) and tab in self.sessions:
            del self.pages[tab]
            # In a thread: a training may have to end first.
            threading.Thread(target=self.sessions.pop(tab).close, name="celltwin-closing").start()

    def close(self) -> None:
        """End everything and leave no file behind."""
        self.trainer.stop()
        for session in self.sessions.values():
            session.close()
        self.sessions.clear()
        shutil.rmtree(self.root, ignore_errors=True)


def serve(opened: Opened, port: int, limit: int, browser: bool, say: Callable[[str], None]) -> None:
    """Run the studio until it is ended. Raises CelltwinError where the port is taken. Port 0 is any that is free."""
    listening = _bound(port)
    port = listening.getsockname()[1]
    root = Path(tempfile.mkdtemp(prefix="celltwin-studio-"))
    studio = Studio(opened, limit, root)
    try:
        guarded = Guard(_app(studio), port, limit)  # pyright: ignore[reportArgumentType]
        server = uvicorn.Server(
            uvicorn.Config(guarded, log_level="warning", lifespan="on", timeout_graceful_shutdown=3)
        )  # pyright: ignore[reportArgumentType]
        url = f"http://{HOST}:{port}"
        say(f"celltwin studio: {url} (Ctrl-C ends it)")
        if browser:
            threading.Timer(1.0, webbrowser.open, [url]).start()
        # uvicorn ends in order, then raises the signal again: that is to end this process in order as well.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        listening.close()
        studio.close()


def _bound(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise CelltwinError(
            f"port {port} cannot be used",
            got=error.strerror,
            expected="a free port",
            fix="--port 0 takes any that is free",
        ) from error
    return listening


def _app(studio: Studio) -> FastAPI:
    logging.getLogger("nicegui").setLevel(logging.WARNING)
    around = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @ui.page("/", title="celltwin studio")
    async def page() -> None:
        client = ui.context.client
        await client.connected()
        tab = client.tab_id
        if tab is None:
            return
        try:
            session = await run.io_bound(studio.session_of, tab)
        except CelltwinError as error:
            ui.label(str(error)).classes("q-pa-xl")
            return
        assert session is not None

        client.on_delete(lambda: studio.left(tab))
        build(session, studio.trainer)

    ui.run_with(around, title="celltwin studio", show_welcome_message=False, reconnect_timeout=20.0)
    nicegui_app.on_shutdown(studio.trainer.stop)
    return around


def build(session: Session, trainer: Trainer) -> None:
    """The page of a session, into the client in hand."""
    frame = Frame(session, trainer)
    tabs = frame.header()
    kinds = {
        "Log": ("show_chart", LogTab),
        "Twin": ("memory", TwinTab),
        "View": ("stacked_line_chart", ViewTab),
        "What-if": ("query_stats", WhatIfTab),
        "Export": ("download", ExportTab),
    }
    with tabs:
        for name, (icon, _) in kinds.items():
            ui.tab(name, icon=icon).props(f"data-testid=tab-{name.lower()}")
    panels = ui.tab_panels(tabs, value="Log", animated=False).classes("w-full")
    with panels.style("max-width: 1500px; margin: 0 auto"):
        for name, (_, kind) in kinds.items():
            with ui.tab_panel(name).classes("q-pa-lg gap-4"):
                kind(frame)
