"""State-of-charge estimators: one family a file, registered here by the name that the command line knows."""

from __future__ import annotations

from typing import Any

from celltwin.estimators.attention import Attention
from celltwin.estimators.convlstm import ConvLstm
from celltwin.estimators.convlstm_reference import ReferenceConvLstm
from celltwin.estimators.coulomb import Coulomb, OcvLookup
from celltwin.estimators.feedforward import FeedForward
from celltwin.estimators.gru import Gru
from celltwin.estimators.kalman import Kalman
from celltwin.estimators.linear_recurrent import LinearRecurrent
from celltwin.estimators.lstm import Lstm
from celltwin.estimators.observer import Observer
from celltwin.estimators.pulling import Map
from celltwin.estimators.tcn import Tcn
from celltwin.learning.plan import Plan
from celltwin.models import Family, register

TASK = "soc"
NETWORK = Plan(adam_rounds=15, updates=200, chunk=200, episode=12, learning_rate=3e-3)
PUBLISHED = NETWORK.model_copy(update={"learning_rate": 1e-3})
OBSERVER = NETWORK.model_copy(update={"adam_rounds": 5})  # validation is best after two to four rounds
# Half the rate and twice the reach in time: less is learned by heart of the training cycles.
FUSED = NETWORK.model_copy(update={"adam_rounds": 8, "chunk": 400, "episode": 6, "learning_rate": 1.5e-3})
NOISES = Plan(adam_rounds=10, updates=50, chunk=200, episode=12, lanes=24, learning_rate=3e-2)

register(
    Family(
        "soc-coulomb",
        "Coulomb counting from the open-circuit voltage of the first sample",
        lambda records, domain, key, base: Coulomb.create(records),
        seeded=False,
        task=TASK,
    )
)
register(
    Family(
        "soc-ocv",
        "OCV look-up: the voltage without its ohmic drop, every sample anew",
        lambda records, domain, key, base: OcvLookup.create(records),
        seeded=False,
        task=TASK,
    )
)
for _kind, _title in (
    ("ekf", "extended Kalman filter"),
    ("ukf", "unscented Kalman filter"),
    ("ckf", "square-root cubature Kalman filter"),
):
    register(
        Family(
            f"soc-{_kind}",
            f"{_title} on the circuit, with current offset, capacity and resistance",
            lambda records, domain, key, base, kind=_kind: Kalman.create(base, kind),
            NOISES,
            base="thevenin",
            seeded=False,
            task=TASK,
        )
    )
register(
    Family(
        "soc-ekf-hybrid",
        "extended Kalman filter on the hybrid-gru voltage model: a network inside the filter",
        lambda records, domain, key, base: Kalman.create(base),
        NOISES,
        base="hybrid-gru",
        task=TASK,
    )
)
register(
    Family(
        "soc-observer",
        "charge counter pulled by a GRU-48 through a Kalman gain of two states",
        lambda records, domain, key, base: Observer.create(records, domain, key),
        OBSERVER,
        task=TASK,
    )
)
register(
    Family(
        "soc-fused",
        "observer that also sees the Thevenin circuit's surprise at its estimate",
        lambda records, domain, key, base: Observer.create(records, domain, key, base),
        FUSED,
        base="thevenin",
        task=TASK,
    )
)
register(
    Family(
        "soc-fused-convlstm",
        "soc-fused whose network is a ConvLSTM over a map of time scales",
        lambda records, domain, key, base: Observer.create(records, domain, key, base, Map.create),
        OBSERVER,
        base="thevenin",
        task=TASK,
    )
)


def _network(name: str, title: str, kind: Any, plan: Plan = NETWORK) -> None:
    register(
        Family(
            name,
            title,
            lambda records, domain, key, base: kind.create(records, domain, key),
            plan,
            task=TASK,
        )
    )


_network("soc-lstm", "LSTM-64 on the sensors and their trailing means", Lstm)
_network("soc-gru", "GRU-64 on the sensors and their trailing means", Gru)
_network("soc-convlstm", "ConvLSTM over a map of time scales", ConvLstm)
_network(
    "soc-convlstm-reference", "the published ConvLSTM: windows of 100 samples, 64 filters", ReferenceConvLstm, PUBLISHED
)
_network("soc-tcn", "causal dilated convolutions over four minutes", Tcn)
_network("soc-fnn", "feed-forward network on the sensors and their trailing means", FeedForward)
_network("soc-attention", "attention over memories of ten time scales", Attention)
_network("soc-lru", "linear recurrent units, two layers", LinearRecurrent)
