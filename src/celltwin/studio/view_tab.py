"""The tab View: a twin held against records, what it learned of the cell, where it errs, and packs."""

from __future__ import annotations

from nicegui import ui

from celltwin.data.record import PackRecord, Record
from celltwin.errors import CelltwinError
from celltwin.studio import figures, pack
from celltwin.studio.frame import Errors, Frame, Plot, empty, help_line, tiles, title
from celltwin.studio.session import Curves, Tables, curves_of, figures_of, judged, tables_of

MOST_MAPPED = 24  # records of one map
SHOWS_RUN = ("Against the record", "Where it errs")


class ViewTab:
    """Built into the place where it is made."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.session = frame, frame.session
        help_line(
            "The twin sees the start of a record, then current and temperature alone (an estimator: sensors, and no "
            "SOC). Shaded: outside what it was trained on."
        )
        with ui.row().classes("items-center gap-3 w-full no-wrap"):
            self.choice = ui.select([], label="record").props("dense outlined options-dense").style("width: 380px")
            self.choice.props("data-testid=record")
            self.button = ui.button("Run the twin", icon="play_arrow", on_click=self.run).props("no-caps unelevated")
            self.button.props("data-testid=run")
            ui.space()
            self.tabs = ui.tabs().props("dense no-caps")
            with self.tabs:
                names = (SHOWS_RUN[0], "The cell", SHOWS_RUN[1], "Pack")
                made = [ui.tab(name, label=name) for name in names]
        self.errors = Errors()
        with ui.tab_panels(self.tabs, value=made[0]).classes("w-full").props("animated=false"):
            with ui.tab_panel(made[0]).classes("q-pa-none"):
                self.against = ui.column().classes("w-full gap-4")
            with ui.tab_panel(made[1]).classes("q-pa-none"):
                self.cell = ui.column().classes("w-full gap-4")
            with ui.tab_panel(made[2]).classes("q-pa-none"):
                self.errs = ui.column().classes("w-full gap-4")
            with ui.tab_panel(made[3]).classes("q-pa-none"):
                self._pack_form()
                self.pack = ui.column().classes("w-full gap-4")
        self.seen: tuple[object, ...] = ()
        frame.on_change(self.refresh)

    def refresh(self) -> None:
        """Other records, or another twin."""
        names = list(self.session.records())
        self.choice.set_options(
            names, value=self.choice.value if self.choice.value in names else next(iter(names), None)
        )
        now = (id(self.session.twin), tuple(names))
        if now == self.seen:
            return
        self.seen = now
        self.session.row = None
        for place in (self.against, self.cell, self.errs):
            place.clear()
        text = "Run the twin to see its work on the record."
        if self.session.twin is None:
            text = "First choose or train a twin, in the tab Twin."
        elif not names:
            text = "There is no record: drop a log, or load the demo dataset, in the tab Log."
        for place in (self.against, self.errs):
            with place, ui.card().classes("studio-card"):
                empty("stacked_line_chart", text)
        with self.cell, ui.card().classes("studio-card"):
            self._curves_offer()
        self.button.set_enabled(self.session.twin is not None and bool(names))

    def record(self) -> Record:
        """The chosen one. Raises CelltwinError where there is none."""
        records = self.session.records()
        if self.choice.value not in records:
            raise CelltwinError("there is no record", fix="drop a log, or load the demo dataset, in the tab Log")
        return records[self.choice.value]

    async def run(self) -> None:
        """Run the twin over the chosen record and show it all."""
        one = self.session.twin
        self.errors.clear()
        if one is None:
            return
        try:
            record = self.record()
        except CelltwinError as error:
            self.errors.show(error)
            return
        row = await self.frame.attempt(self.errors, judged, one, record, button=self.button)
        if row is None:
            return
        self.session.row = row
        if self.tabs.value not in SHOWS_RUN:
            self.tabs.set_value(SHOWS_RUN[0])
        self.against.clear()
        with self.against:
            tiles(figures_of(row, one.task))
            if "mae" not in row:
                help_line("The SOC of this record is not known, so there is nothing to score the estimate against.")
            if record.cell is not None and record.cell.name != one.cell.name:
                help_line(f"The record is of {record.cell.name}, and the twin learned {one.cell.name}.")
            if record.content_hash in one.domain.seen:
                help_line("The twin was trained on this very record: its error here says little of other records.")
            with ui.card().classes("studio-card"):
                Plot(self.frame, figures.compared(row))
        self.errs.clear()
        with self.errs, ui.card().classes("studio-card gap-2"):
            title("Error over SOC, temperature and current")
            if "mae" in row:
                shown = Plot(self.frame, figures.residual_map([row]))
                self._all_offer(shown)
            else:
                empty("grid_on", "Without a known SOC there is no error to map.")
        self.frame.changed()

    def _all_offer(self, shown: Plot) -> None:
        """The map over all test records, where there are several."""
        one, dataset = self.session.twin, self.session.dataset
        if one is None or dataset is None or len(dataset.split().test) < 2:
            return
        records = dataset.split().test[:MOST_MAPPED]

        async def everything() -> None:
            rows = await self.frame.attempt(
                self.errors, lambda: [judged(one, record) for record in records], button=button
            )
            if rows:
                shown.show(figures.residual_map(rows))

        button = ui.button(f"Map all {len(records)} test records", on_click=everything).props("dense no-caps outline")

    def _curves_offer(self) -> None:
        one = self.session.twin
        if one is None:
            empty("memory", "First choose or train a twin, in the tab Twin.")
            return

        async def show() -> None:
            held = await self.frame.attempt(
                self.errors, lambda: (curves_of(one) if one.task == "voltage" else None, tables_of(one)), button=button
            )
            if held is not None:
                self.cell.clear()
                with self.cell:
                    self._curves(*held)

        with ui.column().classes("w-full items-center q-pa-lg"):
            button = ui.button("Show the curves of the cell", icon="timeline", on_click=show).props("no-caps outline")
            button.props("data-testid=curves")

    def _curves(self, curves: Curves | None, tables: Tables | None) -> None:
        if curves is None and tables is None:
            with ui.card().classes("studio-card"):
                empty("memory", "This estimator says SOC and holds no circuit: it has no curves of the cell to show.")
        if curves is not None:
            with ui.card().classes("studio-card gap-2"):
                title("Open-circuit voltage, and resistance of a 1C discharge, as the twin's own step shows them")
                Plot(self.frame, figures.curves(curves))
        if tables is not None:
            names = list(tables.values)
            with ui.card().classes("studio-card gap-2"):
                with ui.row().classes("items-center gap-4"):
                    title("Tables of the circuit in it")
                    choice = ui.select(names, value=names[1]).props("dense options-dense").style("width: 240px")
                shown = Plot(self.frame, figures.circuit_table(tables, names[1]))
                choice.on_value_change(lambda: shown.show(figures.circuit_table(tables, choice.value)))

    # --- packs ------------------------------------------------------------------------------------------------------

    def _pack_form(self) -> None:
        with ui.card().classes("studio-card gap-2"):
            title("A measured string, or a pack of unequal cells of this twin")
            with ui.row().classes("items-end gap-4"):
                wiring = ui.input("wiring", value="12s1p").props("dense").style("width: 110px")
                capacity = ui.number("spread of capacity / %", value=3.0, min=0, max=20)
                resistance = ui.number("of resistance / %", value=8.0, min=0, max=50)
                for spread in (capacity, resistance):
                    spread.props("dense").style("width: 150px")
                seed = ui.number("draw", value=0, min=0, precision=0).props("dense").style("width: 70px")

                async def show() -> None:
                    self.errors.clear()
                    try:
                        record = self.record()
                    except CelltwinError as error:
                        self.errors.show(error)
                        return
                    if isinstance(record, PackRecord):
                        cells = await self.frame.attempt(self.errors, pack.of_record, record, button=button)
                    else:
                        spread = pack.Spread(
                            wiring.value or "",
                            (capacity.value or 0.0) / 100.0,
                            (resistance.value or 0.0) / 100.0,
                            int(seed.value or 0),
                        )
                        cells = await self.frame.attempt(
                            self.errors, pack.simulated, self.session.twin, record, spread, button=button
                        )
                    if cells is not None:
                        self.pack.clear()
                        with self.pack, ui.card().classes("studio-card gap-2"):
                            title(cells.title)
                            Plot(self.frame, figures.pack(cells))

                button = (
                    ui.button("Show", icon="grid_on", on_click=show)
                    .props("dense no-caps outline")
                    .props("data-testid=pack")
                )
            help_line(
                "Of a log with a voltage for each group its own are shown; else a pack is simulated under its current."
            )
