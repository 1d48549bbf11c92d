"""The page around the tabs: header, theme, errors, and what every tab is built with."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import plotly.graph_objects as go
from nicegui import events, run, ui

from celltwin.errors import CelltwinError
from celltwin.studio import figures, uploads
from celltwin.studio.session import Session
from celltwin.studio.trainer import Trainer

log = logging.getLogger("celltwin")
Made = TypeVar("Made")

STYLE = """
<style>
body { background: #f5f7fa; } body.body--dark { background: #0f1524; }
.nicegui-content { padding: 0; }
.studio-card { border-radius: 12px; box-shadow: none; border: 1px solid rgba(100,116,139,.25); width: 100%; }
.body--light .studio-card { background: #ffffff; } .body--dark .studio-card { background: #172033; }
.studio-muted { color: #64748b; } .body--dark .studio-muted { color: #94a3b8; }
.studio-tile { border: 1px solid rgba(100,116,139,.25); border-radius: 10px; padding: 8px 16px; min-width: 104px; }
.q-tab-panels, .q-tab-panel { background: transparent !important; }
.q-tab-panel .q-tab-panel { padding: 8px 0 0 !important; }
.q-uploader { width: 100%; max-height: 180px; box-shadow: none !important; border: 1.5px dashed #8a94a6;
  background: transparent !important; }
.q-uploader__header { background: transparent !important; color: inherit !important; }
.q-uploader__list, .q-uploader__subtitle { display: none; }
.q-uploader__title { font-weight: 400; }
.q-btn--dense:not(.q-btn--round) { padding: 3px 12px; }
.studio-table td, .studio-table th { padding: 5px 12px; text-align: left; vertical-align: top; }
.studio-table th { font-weight: 500; color: #64748b; } .body--dark .studio-table th { color: #94a3b8; }
.studio-table tr + tr td { border-top: 1px solid rgba(100,116,139,.18); }
</style>
"""


class Frame:
    """One page in one browser tab."""

    def __init__(self, session: Session, trainer: Trainer) -> None:
        self.session, self.trainer = session, trainer
        self.plots: list[Plot] = []
        self.listeners: list[Callable[[], None]] = []
        self.dark = ui.dark_mode(False)
        ui.colors(primary="#2f7ff0", secondary="#1f9d78", negative="#d6453d", warning="#d9862b")
        ui.add_head_html(STYLE)

    def changed(self) -> None:
        """Something that several tabs show is another now."""
        for listener in self.listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call it now, and whenever something changed."""
        self.listeners.append(listener)
        listener()

    def set_dark(self, dark: bool) -> None:
        """Switch page and figures between dark and light."""
        self.dark.set_value(dark)
        for plot in [*self.plots]:
            plot.redraw()

    def header(self) -> ui.tabs:
        """The bar with the name, the tabs, what is loaded, and the switch of theme."""
        with ui.header().classes("items-center q-px-lg q-py-none no-wrap").style("background: #14213d; gap: 20px"):
            ui.label("celltwin studio").classes("text-h6 text-white no-wrap").style(
                "font-weight: 500; min-width: 150px"
            )
            tabs = ui.tabs().props("dense no-caps inline-label indicator-color=light-blue-3").classes("text-white")
            ui.space()
            chips = ui.row().classes("items-center no-wrap gt-sm")

            def show() -> None:
                chips.clear()
                with chips:
                    session = self.session
                    if session.dataset is not None:
                        ui.chip(f"data: {session.dataset.name}", icon="folder").props("dense outline color=white")
                    if session.twin is not None:
                        ui.chip(f"twin: {session.twin.name}", icon="memory").props("dense outline color=white")

            self.on_change(show)
            switch = ui.button(icon="dark_mode", on_click=lambda: self.set_dark(not self.dark.value))
            switch.props("flat round color=white").tooltip("dark or light").props("data-testid=theme")
        return tabs

    async def attempt(
        self, where: Errors, work: Callable[..., Made], *args: Any, button: ui.button | None = None
    ) -> Made | None:
        """What `work` makes, in a thread, so that the page stays alive; None where it failed, and `where` says why."""
        where.clear()
        if button is not None:
            button.props(add="loading").disable()
        try:
            return await run.io_bound(work, *args)
        except CelltwinError as error:
            where.show(error)
        except Exception as error:
            log.exception("the studio failed")
            where.show(CelltwinError("that did not work", got=f"{type(error).__name__}: {error}"))
        finally:
            if button is not None:
                button.props(remove="loading").enable()
        return None

    def upload(
        self,
        label: str,
        accept: str,
        where: Errors,
        take: Callable[[Any], Awaitable[None]],
        multiple: bool = False,
    ) -> ui.upload:
        """A field to drop files on; `take` gets the path of each in the session's folder."""
        limit = self.session.limit

        async def arrived(event: events.UploadEventArguments) -> None:
            where.clear()
            try:
                path = self.session.place(event.file.name, event.file.size())
                await event.file.save(path)
                await take(path)
            except CelltwinError as error:
                where.show(error)
            finally:
                field.reset()

        def refused() -> None:
            where.show(
                CelltwinError(
                    "the file was refused",
                    got="a file that is too large, or of another kind",
                    expected=f"at most {limit / uploads.MEGABYTE:.0f} MB; {accept or 'any kind'}",
                    fix="save the log as parquet, or start the studio with a larger --upload-limit",
                )
            )

        field = ui.upload(
            label=label,
            multiple=multiple,
            max_file_size=limit,
            auto_upload=True,
            on_upload=arrived,
            on_rejected=refused,
        )
        if accept:
            field.props(f'accept="{accept}"')
        return field.props("flat")


class Errors:
    """Where a tab says what went wrong."""

    def __init__(self) -> None:
        self.place = ui.column().classes("w-full gap-2")

    def clear(self) -> None:
        """Nothing is wrong any more."""
        self.place.clear()

    def show(self, error: CelltwinError) -> None:
        """One error: what, got, expected, fix."""
        what, *rest = uploads.in_words_of_the_page(error)
        with (
            self.place,
            ui.card()
            .classes("studio-card q-pa-md gap-1")
            .style("border-left: 5px solid #d6453d")
            .props("data-testid=error"),
        ):
            with ui.row().classes("items-center gap-2 no-wrap"):
                ui.icon("error_outline", color="negative", size="sm")
                ui.label(what[1]).classes("text-weight-medium")
            for name, text in rest:
                with ui.row().classes("gap-3 no-wrap"):
                    ui.label(name).classes("studio-muted").style("min-width: 72px")
                    ui.label(text).style("overflow-wrap: anywhere")


class Plot:
    """A figure that follows the theme of its page."""

    def __init__(self, frame: Frame, figure: go.Figure) -> None:
        self.frame, self.figure = frame, figure
        self.element = ui.plotly(self._drawn()).classes("w-full")
        self._sized()
        frame.plots.append(self)

    def _drawn(self) -> dict[str, Any]:
        shown = figures.themed(self.figure, bool(self.frame.dark.value)).to_plotly_json()
        return {**shown, "config": figures.CONFIG}

    def _sized(self) -> None:
        height = self.figure.layout.height
        if height:
            self.element.style(f"height: {height}px")

    def show(self, figure: go.Figure) -> None:
        """Another figure in its place."""
        self.figure = figure
        self._sized()
        self.redraw()

    def redraw(self) -> None:
        """The figure in the theme of now."""
        if self.element.is_deleted:
            self.frame.plots.remove(self)
        else:
            self.element.update_figure(self._drawn())


def help_line(text: str) -> None:
    """What a tab is for."""
    ui.label(text).classes("studio-muted")


def title(text: str) -> None:
    """Of a card."""
    ui.label(text).classes("text-subtitle1 text-weight-medium")


def empty(icon: str, text: str) -> None:
    """What is shown where there is nothing to show yet, and what to do about it."""
    with ui.column().classes("w-full items-center q-pa-xl gap-2"):
        ui.icon(icon, size="48px").classes("studio-muted")
        ui.label(text).classes("studio-muted text-center")


def tiles(given: Sequence[tuple[str, str]]) -> None:
    """Figures side by side."""
    with ui.row().classes("gap-3"):
        for name, text in given:
            with ui.column().classes("studio-tile gap-0").props("data-testid=tile"):
                ui.label(name).classes("studio-muted text-caption")
                ui.label(text).classes("text-subtitle1 text-weight-medium")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A small table of text; nothing in it is markup."""
    with ui.element("div").style("overflow-x: auto; width: 100%"), ui.element("table").classes("studio-table"):
        if head:
            with ui.element("tr"):
                for name in head:
                    with ui.element("th"):
                        ui.label(name)
        for row in rows:
            with ui.element("tr"):
                for cell in row:
                    with ui.element("td"):
                        ui.label(cell)
