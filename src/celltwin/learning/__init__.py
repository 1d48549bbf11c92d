"""Learning: one training engine for every model."""
