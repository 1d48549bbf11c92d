"""How a model is trained: what a configuration file may set."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt


class Plan(BaseModel):
    """Rounds of Adam come first, then rounds of L-BFGS. After each round the model is validated in closed loop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adam_rounds: NonNegativeInt = 0
    passes: PositiveInt = 100  # over the training data at the most, which shortens Adam on small datasets
    updates: PositiveInt = 200  # Adam updates in a round
    lanes: PositiveInt = 40  # records side by side in an update
    chunk: PositiveInt = 200  # samples that the gradient reaches back
    episode: NonNegativeInt = 0  # chunks that a lane follows a record before it starts elsewhere, mean; 0 = to its end
    learning_rate: NonNegativeFloat = 3e-3  # its peak, after the warm-up; decays to a hundredth as a cosine
    warm_up: float = Field(default=0.05, ge=0, le=1)  # share of all updates
    clip: NonNegativeFloat = 1.0  # largest norm of a gradient, of the loss in units of (10 mV)^2
    averaging: float = Field(
        default=0.98, ge=0, lt=1
    )  # of the weights over updates; the average is what is validated and kept
    lbfgs_rounds: NonNegativeInt = 0
    iterations: PositiveInt = 40  # of L-BFGS in a round
    patience: PositiveInt = 8  # rounds without a better validation before training stops
    # What a cell cannot do, made dear to a voltage model (learning.physics); 1 = as dear as an error of the same size.
    monotone_ocv: NonNegativeFloat = 0.0  # open-circuit voltage that falls with charge
    passivity: NonNegativeFloat = 0.0  # overpotential against the current
    step_consistency: NonNegativeFloat = 0.0  # another answer to a step that is cut in two
    seed: NonNegativeInt = 0

    @property
    def said(self) -> dict[str, Any]:
        """The settings that were given, the defaults left out."""
        return self.model_dump(include=self.model_fields_set)

    def for_samples(self, samples: int) -> Plan:
        """The plan for a number of training samples: no more than `passes` over them, but at least three rounds."""
        per_round = self.updates * self.lanes * self.chunk
        rounds = -(-self.passes * samples // per_round)
        return self.model_copy(update={"adam_rounds": min(self.adam_rounds, max(3, rounds))})
