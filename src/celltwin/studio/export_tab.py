"""The tab Export: everything that can be taken away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nicegui import ui

from celltwin.studio import export
from celltwin.studio.frame import Errors, Frame, empty, help_line, title

TWIN = {
    "c": ("C99", "code", "Header, source, a replay and a Makefile, as a zip: no heap, nothing but math.h."),
    "onnx": ("ONNX", "hub", "Graphs of the start, the step and a whole record, as a zip."),
    "fmu": ("FMU", "widgets", "FMI 2.0 co-simulation, for Simulink and Modelica tools."),
    "twin": ("Twin", "memory", "The twin itself: for the command line, Python and this page."),
}


class ExportTab:
    """Built into the place where it is made."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.session = frame, frame.session
        help_line(
            "Take the twin to where the battery is, and the results to whom they concern. All is made on this machine."
        )
        self.errors = Errors()
        self.view = ui.column().classes("w-full gap-4")
        frame.on_change(self.refresh)

    def refresh(self) -> None:
        """Another twin, or other results."""
        session = self.session
        self.view.clear()
        with self.view:
            if session.twin is None:
                with ui.card().classes("studio-card"):
                    empty("download", "First choose or train a twin, in the tab Twin.")
                return
            one, row, answer = session.twin, session.row, session.answer
            folder = session.folder / "exports"
            title("The twin")
            with ui.grid(columns="repeat(auto-fill, minmax(270px, 1fr))").classes("w-full gap-4"):
                for kind, (name, icon, text) in TWIN.items():
                    self._offer(kind, name, icon, text, lambda kind=kind: export.take(one, kind, folder))
            title("The results")
            with ui.grid(columns="repeat(auto-fill, minmax(270px, 1fr))").classes("w-full gap-4"):
                self._offer(
                    "report",
                    "Report",
                    "article",
                    "One page that stands alone: the twin, its work on the record, the last what-if.",
                    lambda: export.report(one, row, answer, folder),
                )
                self._offer(
                    "result",
                    "Result",
                    "table_view",
                    "The record and what the twin said of it, sample by sample, as parquet.",
                    (lambda: export.result(row, folder)) if row is not None else None,
                    "First run the twin over a record, in the tab View.",
                )
                self._offer(
                    "what-if",
                    "What-if",
                    "query_stats",
                    "The last what-if, sample by sample, as parquet.",
                    (lambda: export.answer(answer, folder)) if answer is not None else None,
                    "First simulate something, in the tab What-if.",
                )

    def _offer(
        self, kind: str, name: str, icon: str, text: str, make: Callable[[], Path] | None, missing: str = ""
    ) -> None:
        with ui.card().classes("studio-card gap-2 justify-between"):
            with ui.row().classes("items-center gap-2"):
                ui.icon(icon, size="sm", color="primary")
                title(name)
            help_line(text if make is not None else missing)

            async def take() -> None:
                assert make is not None
                path = await self.frame.attempt(self.errors, make, button=button)
                if path is not None:
                    ui.download.file(path, path.name)

            button = ui.button("Download", icon="download", on_click=take).props("dense no-caps outline")
            button.props(f"data-testid=export-{kind}").set_enabled(make is not None)
