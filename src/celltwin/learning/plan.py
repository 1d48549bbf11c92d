"""How a model is trained: what a configuration file may set."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Plan(BaseModel):
    """Rounds of Adam come first, then rounds of L-BFGS. After each round the model is validated in closed loop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adam_rounds: int = 0
    passes: int = 100  # over the training data at the most, which shortens Adam on small datasets
    updates: int = 200  # Adam updates in a round
    lanes: int = 40  # records side by side in an update
    chunk: int = 200  # samples that the gradient reaches back
    learning_rate: float = 3e-3  # its peak, after the warm-up; decays to a hundredth as a cosine
    warm_up: float = 0.05  # share of all updates
    clip: float = 1.0  # largest norm of a gradient, of the loss in units of (10 mV)^2
    averaging: float = 0.98  # of the weights over updates; the average is what is validated and kept
    lbfgs_rounds: int = 0
    iterations: int = 40  # of L-BFGS in a round
    patience: int = 8  # rounds without a better validation before training stops
    seed: int = 0

    def for_samples(self, samples: int) -> Plan:
        """The plan for a number of training samples: no more than `passes` over them, but at least three rounds."""
        per_round = self.updates * self.lanes * self.chunk
        rounds = -(-self.passes * samples // per_round)
        return self.model_copy(update={"adam_rounds": min(self.adam_rounds, max(3, rounds))})
