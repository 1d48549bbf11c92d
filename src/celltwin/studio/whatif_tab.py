"""The tab What-if: a protocol or a current of one's own, at another temperature, another age."""

from __future__ import annotations

from pathlib import Path

from nicegui import ui

from celltwin.data.record import PackRecord
from celltwin.errors import CelltwinError
from celltwin.studio import figures, whatif
from celltwin.studio.frame import Errors, Frame, Plot, empty, help_line, table, tiles, title
from celltwin.studio.whatif import Case, Profile

TYPED = "what is written here"


class WhatIfTab:
    """Built into the place where it is made."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.session = frame, frame.session
        self.uploaded: dict[str, Profile] = {}
        help_line("Let the cell do what you say: how long it lasts, where its voltage goes, what energy it gives.")
        self.errors = Errors()
        with ui.row().classes("w-full no-wrap gap-4 items-start"):
            with ui.column().classes("gap-4").style("width: 360px; flex: none"), ui.card().classes("studio-card gap-3"):
                title("What is done")
                self.source = ui.select([TYPED], value=TYPED, label="current").props("dense").classes("w-full")
                self.text = ui.textarea(value=whatif.EXAMPLE).props(
                    "outlined rows=5 input-style='font-family:monospace'"
                )
                self.text.classes("w-full").props("data-testid=protocol")
                help_line("Operations, one a line; or a table of seconds and amperes, each current until the next row.")
                frame.upload("or drop a profile or a log", ".csv,.txt,.tsv,.dat,.parquet", self.errors, self.take)
                with ui.grid(columns=2).classes("w-full gap-x-4 gap-y-1"):
                    self.soc = ui.number("SOC at the start / %", value=100.0).props("dense")
                    self.ambient = ui.number("temperature / °C", value=25.0).props("dense").props("data-testid=ambient")
                    self.capacity = (
                        ui.number("capacity left / %", value=100.0).props("dense").props("data-testid=capacity")
                    )
                    self.resistance = ui.number("resistance / %", value=100.0).props("dense")
                    self.period = ui.number("sampling / s", value=1.0).props("dense")
                self.button = ui.button("Simulate", icon="play_arrow", on_click=self.run).props("no-caps unelevated")
                self.button.props("data-testid=simulate")
            self.view = ui.column().classes("gap-4").style("flex: 1; min-width: 0")
        self.seen: object = ()
        frame.on_change(self.refresh)

    def refresh(self) -> None:
        """Another twin, or other logs."""
        names = [
            TYPED,
            *self.uploaded,
            *(n for n, r in self.session.records().items() if not isinstance(r, PackRecord)),
        ]
        self.source.set_options(names, value=self.source.value if self.source.value in names else TYPED)
        one = self.session.twin
        ready = one is not None and one.task == "voltage"
        self.button.set_enabled(ready)
        if self.seen != id(one):
            self.seen, self.session.answer = id(one), None
            self.view.clear()
            with self.view, ui.card().classes("studio-card"):
                text = "Press Simulate."
                if one is None:
                    text = "First choose or train a twin that says voltage, in the tab Twin."
                elif not ready:
                    text = "This twin estimates SOC. A what-if needs one that says voltage: train one, in the tab Twin."
                empty("query_stats", text)

    async def take(self, path: Path) -> None:
        """A profile that was uploaded: a table of seconds and amperes, or a log."""
        given = await self.frame.attempt(self.errors, whatif.read, path)
        if given is not None:
            name = f"file: {path.name}"
            self.uploaded[name] = given
            self.refresh()
            self.source.set_value(name)

    def case(self) -> Case:
        """What the form says. Raises CelltwinError for what is not understood."""
        name = self.source.value
        if name in self.uploaded:
            todo = self.uploaded[name]
        elif name == TYPED:
            todo = whatif.parse(self.text.value or "")
        else:
            todo = whatif.of_record(self.session.records()[name])
        fields = (self.soc, self.ambient, self.capacity, self.resistance, self.period)
        values = [float(field.value) for field in fields if field.value is not None]
        if len(values) < len(fields):
            raise CelltwinError("a field is empty", expected="a number in each")
        soc, ambient, capacity, resistance, period = values
        return Case(todo, soc / 100.0, ambient, capacity / 100.0, resistance / 100.0, period)

    async def run(self) -> None:
        """Simulate and show."""
        one = self.session.twin
        self.errors.clear()
        if one is None:
            return
        try:
            case = self.case()
        except CelltwinError as error:
            self.errors.show(error)
            return
        answer = await self.frame.attempt(self.errors, whatif.run, one, case, button=self.button)
        if answer is None:
            return
        self.session.answer = answer
        self.view.clear()
        with self.view:
            tiles(answer.tiles)
            with ui.card().classes("studio-card"):
                Plot(self.frame, figures.answered(answer))
            with ui.card().classes("studio-card gap-2"):
                title("How it went")
                table((), [(str(number), line) for number, line in enumerate(answer.log, 1)])
        self.frame.changed()
