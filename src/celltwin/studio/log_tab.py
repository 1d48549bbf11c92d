"""The tab Log: what was dropped, what the importer made of it, how to read it, and the cell it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nicegui import ui

from celltwin.data import datasets
from celltwin.data.columns import Column, split_header
from celltwin.data.inspection import Range, Summary
from celltwin.data.record import Cell
from celltwin.errors import CelltwinError
from celltwin.studio import figures
from celltwin.studio.frame import Errors, Frame, Plot, empty, help_line, table, tiles, title
from celltwin.studio.session import SIDES, Log

ACCEPT = ".csv,.txt,.tsv,.dat,.parquet,.mat,.mpt,.mpr,.nda,.ndax,.xlsx,.xls,.bdf"
FOUND, CHARGE, DISCHARGE = "as found and checked", "charge", "discharge"
NO_USE = "–"


class LogTab:
    """Built into the place where it is made."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.session = frame, frame.session
        self.chosen: int | None = next(reversed(self.session.logs), None)
        help_line(
            "Drop cycler logs: units, time and the sign of the current are sorted out and checked. Charge counts as "
            "positive current."
        )
        self.errors = Errors()
        with ui.row().classes("w-full no-wrap gap-4 items-start"):
            with ui.column().classes("gap-4").style("width: 340px; flex: none"):
                with ui.card().classes("studio-card gap-2"):
                    title("Logs")
                    frame.upload("Drop logs here, or press +", ACCEPT, self.errors, self.take, multiple=True)
                    self.list = ui.column().classes("w-full gap-1")
                    self.demo = ui.button("Load the demo dataset", icon="science", on_click=self.load_demo)
                    self.demo.props("flat dense no-caps").props("data-testid=demo")
                self._cell_form()
            self.view = ui.column().classes("gap-4").style("flex: 1; min-width: 0")
        frame.on_change(self.show_list)
        self.show()

    # --- what comes in ----------------------------------------------------------------------------------------------

    async def take(self, path: Path) -> None:
        """Read a log that was uploaded, and show it."""
        log = await self.frame.attempt(self.errors, self.session.add, path)
        if log is not None:
            self.choose(log.number)
            self.frame.changed()

    async def load_demo(self) -> None:
        """Take the bundled demo as the dataset."""
        dataset = await self.frame.attempt(self.errors, datasets.load, "demo", button=self.demo)
        if dataset is not None:
            self.session.dataset = dataset
            self.frame.changed()
            ui.notify(f"{len(dataset.records)} records of {dataset.cell.name}: see the tabs Twin and View")

    # --- the list ---------------------------------------------------------------------------------------------------

    def show_list(self) -> None:
        """One line a log."""
        self.demo.set_visibility(self.session.dataset is None)
        self.list.clear()
        with self.list:
            if not self.session.logs:
                ui.label("no logs yet").classes("studio-muted text-caption")
            for log in self.session.logs.values():
                self._line(log)

    def _line(self, log: Log) -> None:
        with ui.row().classes("w-full items-center no-wrap gap-1"):
            icon, colour = ("error_outline", "negative") if log.error else ("show_chart", "primary")
            button = ui.button(log.name, icon=icon, on_click=lambda: self.choose(log.number))
            button.props(f"flat dense no-caps align=left color={colour}").classes("ellipsis").style(
                "flex: 1; min-width: 0"
            )
            use = ui.select({"": NO_USE, **{side: side for side in SIDES}}, value=log.use).bind_value(log, "use")
            use.props(f"dense borderless data-testid=use-{log.number}").style("width: 84px")
            ui.button(icon="close", on_click=lambda: self.remove(log)).props("flat dense round size=sm")

    def choose(self, number: int) -> None:
        """Show another log."""
        self.chosen = number
        self.show()

    def remove(self, log: Log) -> None:
        """Forget a log."""
        self.session.remove(log)
        if self.chosen == log.number:
            self.chosen = next(iter(self.session.logs), None)
        self.show()
        self.frame.changed()

    # --- the cell ---------------------------------------------------------------------------------------------------

    def _cell_form(self) -> None:
        with ui.card().classes("studio-card gap-2"):
            title("Cell of these logs")
            help_line("Needed to train, and to count SOC. What each log is for in training is chosen above.")
            known = self.session.cell or (self.session.dataset and self.session.dataset.cell)
            name = ui.input("name", value=known.name if known else "my cell").props("dense").classes("w-full")
            with ui.row().classes("w-full no-wrap gap-3"):
                reference = _number("reference Ah", known.reference_capacity_ah if known else None)
                nominal = _number("nominal Ah", known.nominal_capacity_ah if known else None)
            with ui.row().classes("w-full no-wrap gap-3"):
                low = _number("lower V", known.voltage_limits_volt[0] if known else 2.5)
                high = _number("upper V", known.voltage_limits_volt[1] if known else 4.2)
            soc = _number("SOC at the start of the logs / %", 100.0).classes("w-full")
            reference.props("data-testid=reference")
            soc.props("data-testid=soc-of-all")
            said = ui.label("").classes("text-caption text-secondary")

            def save() -> None:
                self.errors.clear()
                try:
                    if reference.value is None or low.value is None or high.value is None:
                        raise CelltwinError(
                            "the cell is not complete", expected="a reference capacity and both voltage limits"
                        )
                    limits = (float(low.value), float(high.value))
                    ah = float(reference.value)
                    self.session.cell = Cell(name.value or "my cell", ah, limits, float(nominal.value or ah))
                    for log in self.session.logs.values():
                        if soc.value is not None and np.isnan(log.initial_soc):
                            log.initial_soc = _fraction(soc.value)
                except CelltwinError as error:
                    self.errors.show(error)
                    return
                said.set_text(f"{ah:g} Ah, {limits[0]:g} to {limits[1]:g} V: noted")
                self.show()
                self.frame.changed()

            ui.button("Use this cell", on_click=save).props("dense no-caps unelevated").props("data-testid=use-cell")

    # --- one log ----------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """The chosen log, or what to do."""
        self.view.clear()
        log = self.session.logs.get(self.chosen or -1)
        with self.view:
            if log is None:
                with ui.card().classes("studio-card"):
                    empty("upload_file", "Drop a log on the left to see what is in it.")
                return
            if log.error is not None:
                errors = Errors()
                errors.show(log.error)
            self._reading(log)
            if log.summary is not None and log.examined is not None:
                with ui.card().classes("studio-card gap-3"):
                    title(f"{log.name}: {log.examined.format}, {log.summary.samples:,} samples")
                    tiles(_facts(log.summary))
                    for note in [*log.summary.notes, *_remarks(log.summary)]:
                        with ui.row().classes("items-center no-wrap gap-2"):
                            ui.icon("info_outline", color="warning")
                            ui.label(note).style("overflow-wrap: anywhere")
                with ui.card().classes("studio-card"):
                    Plot(self.frame, figures.log(log.examined.record))
                with ui.card().classes("studio-card gap-2"):
                    title("Columns")
                    rows = [(c.header, role.replace("_", " "), _unit(role, c)) for role, c in log.examined.columns]
                    table(("in the file", "taken for", "unit"), rows)
                    if log.examined.unused:
                        help_line(f"Not used: {', '.join(log.examined.unused[:30])}")

    def _reading(self, log: Log) -> None:
        with ui.card().classes("studio-card gap-2"):
            title("How to read it")
            with ui.row().classes("items-end gap-4"):
                sign = ui.select([FOUND, CHARGE, DISCHARGE], value=log.sign or FOUND, label="positive current is")
                sign.style("width: 190px").props("dense").props("data-testid=sign")
                soc = _number("SOC at its start / %", None if np.isnan(log.initial_soc) else 100 * log.initial_soc)
                ambient = _number("ambient / °C", log.ambient_degC)

                async def again() -> None:
                    log.sign = None if sign.value == FOUND else sign.value
                    try:
                        log.initial_soc = float("nan") if soc.value is None else _fraction(soc.value)
                    except CelltwinError as error:
                        self.errors.show(error)
                        return
                    log.ambient_degC = None if ambient.value is None else float(ambient.value)
                    await self.frame.attempt(self.errors, log.read, button=button)
                    self.show()
                    self.frame.changed()

                button = (
                    ui.button("Read again", icon="refresh", on_click=again)
                    .props("dense no-caps outline")
                    .props("data-testid=again")
                )


def _number(label: str, value: float | None) -> Any:
    return ui.number(label, value=value).props("dense").style("min-width: 110px; flex: 1")


def _fraction(percent: float) -> float:
    if not 0.0 <= percent <= 110.0:
        raise CelltwinError("the state of charge makes no sense", got=f"{percent:g} %", expected="0 to 100 %")
    return float(percent) / 100.0


def _unit(role: str, column: Column) -> str:
    if role == "mode":
        return "as text"
    return split_header(column.header)[1] or column.unit or "not given, assumed"


def _span(span: Range, digits: int, unit: str) -> str:
    low, high = span
    return "not measured" if np.isnan(low) else f"{low:.{digits}f} to {high:.{digits}f} {unit}"


def _facts(summary: Summary) -> list[tuple[str, str]]:
    seconds = summary.duration_second
    verdict = {"charge": "positive = charge", "undecided": "not to be told", "contradiction": "WRONG"}
    facts = [
        ("time", f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"),
        ("step, median", f"{summary.dt_second[0]:.3g} s"),
        ("voltage", _span(summary.voltage_volt, 3, "V")),
        ("current", _span(summary.current_ampere, 2, "A")),
        ("temperature", _span(summary.temperature_degC, 1, "°C")),
        ("charged, discharged", f"{summary.charged_ah:.3f}, {summary.discharged_ah:.3f} Ah"),
        ("gaps", str(summary.gaps)),
        ("sign of current", verdict[summary.sign.verdict]),
    ]
    if summary.groups:
        facts.append(("groups", f"{summary.groups}, up to {1e3 * summary.group_spread_volt:.0f} mV apart"))
    return facts


def _remarks(summary: Summary) -> list[str]:
    found = [f"sign of the current: {summary.sign.because}"] if summary.sign.because else []
    if summary.gaps:
        found.append(f"gaps last {summary.gap_second:.0f} s together; what flowed in them is not known")
    return found
