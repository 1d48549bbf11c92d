"""celltwin: digital twins of lithium-ion cells, learned from cycler logs and scored in closed loop."""

__version__ = "0.1.0"
