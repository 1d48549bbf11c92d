"""Logs to records: importers, datasets and splits."""
