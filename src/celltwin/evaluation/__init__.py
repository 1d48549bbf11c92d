"""Evaluation: the protocol, the report."""
