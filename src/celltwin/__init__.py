"""celltwin: digital twins of lithium-ion cells, learned from cycler logs and scored in closed loop.

`celltwin.load` reads a twin: a file, or one that comes with the package, such as `celltwin.load("lg_18650hg2/soc")`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def load(twin: Any) -> Any:
    """The `celltwin.twin.Twin` in a file, or the pretrained one of that name. Raises CelltwinError for neither."""
    return importlib.import_module("celltwin.twin").load(twin)
