"""What each physics penalty of training buys, and what it costs: an ablation on one voltage model.

    python benchmarks/physics.py [--data DATASET] [--models narx,koopman] [--weight 1] [--rounds 4]

Each model is trained without penalties, with each of the three, and with all. The error is that of the closed-loop
simulation of the validation and test cycles; the violations are looked for on a grid that is finer than the one of
training, beside it, and reaches 5 K beyond its temperatures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from celltwin import models
from celltwin.data import datasets
from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.learning import training
from celltwin.learning.physics import Grid, Violations, grid_of, violations
from celltwin.learning.plan import Plan
from celltwin.learning.tasks import TASKS

rmse = TASKS["voltage"].validate
seen = jax.jit(violations)


def beside(records: Sequence[Record]) -> Grid:
    """A finer grid whose nodes are not those of training."""
    grid = grid_of(records)
    low, high = float(grid.temperature.min()) - 5.0, float(grid.temperature.max()) + 5.0
    soc = jnp.linspace(float(grid.soc[0]) + 0.003, float(grid.soc[-1]) - 0.003, 37)
    return grid._replace(soc=soc, temperature=jnp.linspace(low, high, 7))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", default="demo")
    parser.add_argument("--models", default="narx,koopman")
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=4, help="of Adam; 0: as many as the model's own plan has")
    asked = parser.parse_args()
    split = datasets.load(asked.data).split()
    domain, grid = Domain.of(split.train), beside(split.train)
    names = Violations._fields
    choices = [("none", ()), *((name, (name,)) for name in names), ("all", names)]
    print("validate and test: RMSE in mV; falling (OCV), active, cut (steps): root mean squares in mV")
    print(f"{'model':16}{'penalty':18}{'validate':>9}{'test':>7}{'falling':>9}{'active':>9}{'cut':>9}{'s':>7}")
    for name in asked.models.split(","):
        family = models.family(name)
        plan = (family.plan or Plan()).for_samples(sum(len(r) for r in split.train))
        plan = plan.model_copy(update={"adam_rounds": asked.rounds} if asked.rounds else {})
        base = None
        if family.base:
            other = models.family(family.base)
            untrained = other.create(split.train, domain, jax.random.key(0), None)
            base = training.fit(untrained, split, (other.plan or Plan()).model_copy(update={"adam_rounds": 4})).model
        for title, penalties in choices:
            model = family.create(split.train, domain, jax.random.key(0), base)
            weighed = plan.model_copy(update=dict.fromkeys(penalties, asked.weight))
            fitted = training.fit(model, split, weighed)
            found = [1e3 * float(np.sqrt(v)) for v in seen(fitted.model, grid)]
            validated, tested = (rmse(fitted.model, side) for side in (split.validate, split.test))
            columns = "".join(f"{value:9.3f}" for value in found)
            print(f"{name:16}{title:18}{validated:9.1f}{tested:7.1f}{columns}{fitted.seconds:7.0f}", flush=True)


if __name__ == "__main__":
    main()
