"""The tab Twin: one that is there already, or one that is trained here."""

from __future__ import annotations

from pathlib import Path

from nicegui import ui

from celltwin import models, twin
from celltwin.errors import CelltwinError
from celltwin.evaluation import protocol
from celltwin.learning.tasks import TASKS
from celltwin.studio import figures
from celltwin.studio.frame import Errors, Frame, Plot, empty, help_line, table, tiles, title
from celltwin.studio.session import card_lines
from celltwin.studio.trainer import EFFORTS, Training

SOURCES = {"dataset": "the dataset", "logs": "the logs, as they are dealt out in the tab Log"}
SAYS = {"voltage": "says voltage", "soc": "says state of charge"}


class TwinTab:
    """Built into the place where it is made."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.session = frame, frame.session
        self.plot: Plot | None = None
        self.told: tuple[object, ...] = ()  # what of a training is on the page
        self.shown: tuple[object, ...] = ()
        help_line(
            "Take a twin that is trained already, or train one; it is then what the tabs View, What-if and Export use."
        )
        self.errors = Errors()
        with ui.row().classes("w-full no-wrap gap-4 items-start"):
            with ui.column().classes("gap-4").style("width: 340px; flex: none"):
                self._ready()
                self._train()
            with ui.column().classes("gap-4").style("flex: 1; min-width: 0"):
                self.card = ui.column().classes("w-full gap-4")
                self.progress = ui.column().classes("w-full gap-4")
        frame.on_change(self.show)
        self.watch()
        ui.timer(0.5, self.watch)

    def _ready(self) -> None:
        with ui.card().classes("studio-card gap-2"):
            title("A twin that is there")
            names = twin.pretrained()
            choice = (
                ui.select(names, value=names[0] if names else None, label="pretrained").props("dense").classes("w-full")
            )
            choice.props("data-testid=pretrained")

            async def take() -> None:
                if choice.value and await self.frame.attempt(
                    self.errors, self.session.load_twin, choice.value, button=button
                ):
                    self.frame.changed()

            button = (
                ui.button("Use it", on_click=take).props("dense no-caps outline").props("data-testid=use-pretrained")
            )
            self.frame.upload("or drop a .twin file", ".twin", self.errors, self.take).props("data-testid=twin-upload")

    async def take(self, path: Path) -> None:
        """A twin that was uploaded."""
        if await self.frame.attempt(self.errors, self.session.load_twin, path):
            self.frame.changed()

    # --- training ---------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        with ui.card().classes("studio-card gap-2"):
            title("Train one")
            self.source = ui.select(SOURCES, value="dataset" if self.session.dataset else "logs", label="on")
            self.source.props("dense").classes("w-full").props("data-testid=source")
            named = {f.name: f"{f.name} ({SAYS[f.task]})" for f in models.families()}
            self.family = ui.select(named, value="thevenin", label="family", with_input=True)
            self.family.props("dense").classes("w-full").props("data-testid=family")
            about = ui.label("").classes("studio-muted text-caption")

            def explain() -> None:
                about.set_text(models.family(self.family.value).title if self.family.value else "")

            self.family.on_value_change(explain)
            explain()
            self.effort = (
                ui.select(EFFORTS, value="quick", label="effort")
                .props("dense")
                .classes("w-full")
                .props("data-testid=effort")
            )
            with ui.row().classes("gap-2"):
                self.start = ui.button("Train", icon="play_arrow", on_click=self.begin).props(
                    "dense no-caps unelevated"
                )
                self.stop = ui.button("Stop", icon="stop", on_click=self.end).props(
                    "dense no-caps outline color=negative"
                )
                self.resume = ui.button("Go on", icon="restart_alt", on_click=lambda: self.begin(resume=True))
                self.resume.props("dense no-caps outline")
            for name, button in (("train", self.start), ("stop", self.stop), ("resume", self.resume)):
                button.props(f"data-testid={name}")

    def begin(self, resume: bool = False) -> None:
        """Start a training, or go on with the one that was stopped."""
        self.errors.clear()
        try:
            training = self.session.training
            if not resume or training is None:
                if not self.family.value:
                    raise CelltwinError("there is no family chosen", fix="choose one, such as thevenin")
                dataset, split = self.session.study(self.source.value)
                folder = self.session.folder / "checkpoints"
                training = Training(models.family(self.family.value), self.effort.value, dataset, split, folder)
            self.frame.trainer.begin(training, resume)
            self.session.training = training
        except CelltwinError as error:
            self.errors.show(error)
        self.watch()

    def end(self) -> None:
        """Stop it; the checkpoint stays."""
        if self.session.training is not None:
            self.session.training.stop()
        self.watch()

    def watch(self) -> None:
        """Show how far the training is, where that is news."""
        training = self.session.training
        running = training is not None and training.status == "running"
        self.start.set_enabled(not running)
        self.stop.set_visibility(running)
        self.resume.set_visibility(training is not None and training.status == "stopped")
        if training is None:
            return
        self._show_progress(training)
        if training.status == "done" and not training.taken:
            training.taken = True
            self.session.twin = training.twin
            self.frame.changed()

    def _show_progress(self, training: Training) -> None:
        told = (id(training), training.status, training.stopping, training.told)
        if told == self.told:
            return
        self.told = told
        rounds = sum(len(rounds) for rounds in training.history.values())
        if self.shown != (id(training), training.status):
            self.shown, self.rounds, self.plot = (id(training), training.status), -1, None
            self.progress.clear()
            with self.progress, ui.card().classes("studio-card gap-2"):
                title(f"Training of {training.family.name}")
                self.words = ui.label("").props("data-testid=progress")
                self.bar = ui.linear_progress(0.0, show_value=False, size="8px").props("rounded")
                self.place = ui.column().classes("w-full")
            if training.error is not None:
                with self.progress:
                    Errors().show(training.error)
            if training.rows:
                self._scored(training)
        states = {
            "running": "",
            "stopped": "stopped; the checkpoint is kept · ",
            "failed": "failed · ",
            "done": "done · ",
        }
        self.words.set_text(("stopping · " if training.stopping else states[training.status]) + training.told)
        self.bar.set_value(training.share)
        # Before the first share is done, the model is being compiled.
        compiling = training.status == "running" and not training.share
        self.bar.props(**{"add" if compiling else "remove": "indeterminate"})
        if rounds and rounds != self.rounds:
            self.rounds = rounds
            figure = figures.training(
                {k: v for k, v in training.history.items() if v}, TASKS[training.family.task].unit
            )
            if self.plot is None:
                with self.place:
                    self.plot = Plot(self.frame, figure)
            else:
                self.plot.show(figure)

    def _scored(self, training: Training) -> None:
        """How good it is on the test records, which it has not seen."""
        voltage = training.family.task == "voltage"
        columns = {"RMSE mV": "rmse", "worst mV": "max"} if voltage else {"MAE points": "mae", "worst": "max"}
        rows = [
            [row["record"].label, *(f"{row[key]:.{1 if voltage else 2}f}" for key in columns.values())]
            for row in [*training.rows]
        ]
        overall = protocol.overall(training.rows)
        rows.append(["all", *(f"{overall[key]:.{1 if voltage else 2}f}" for key in columns.values())])
        with self.progress, ui.card().classes("studio-card gap-2"):
            title("On the test records")
            table(("record", *columns), rows)

    # --- the twin ---------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """The twin in use."""
        if self.session.dataset is not None and not self.session.logs:
            self.source.set_value("dataset")
        self.card.clear()
        one = self.session.twin
        with self.card, ui.card().classes("studio-card gap-2"):
            if one is None:
                empty("memory", "No twin yet: take a pretrained one, drop a .twin file, or train one on the left.")
                return
            title("The twin in use")
            table((), [(name, str(text)) for name, text in card_lines(one)])
            checked = one.card.get("validation") or []
            if checked:
                overall = protocol.overall(checked)
                unit, key = ("mV", "rmse") if one.task == "voltage" else ("points", "mae")
                tiles([(f"{key.upper()}, mean of the validation cycles", f"{overall[key]:.2f} {unit}")])
