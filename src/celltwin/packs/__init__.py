"""Packs as data: logs with a voltage for every cell, drawn at random or read from files, and what is made of them."""
