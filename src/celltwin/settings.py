"""Settings that somebody wrote: TOML (or JSON) checked against a pydantic model, refused with the nearest name."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from celltwin.errors import CelltwinError

Settings = TypeVar("Settings", bound=BaseModel)


def read(path: Path, kind: type[Settings]) -> Settings:
    """The settings in a file, JSON by its name or TOML. Raises CelltwinError for what is not valid or not known."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise CelltwinError(
            f"cannot read {path}", got=error.strerror, expected="a file of settings, TOML or JSON", fix="check the path"
        ) from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        name = "JSON" if path.suffix == ".json" else "TOML"
        raise CelltwinError(f"{path} is not valid {name}", got=error, fix="correct the file") from error
    return checked(kind, content, path)


def checked(kind: type[Settings], content: Any, path: str | Path) -> Settings:
    """The settings that a file's content says. Raises CelltwinError with the first fault, and the nearest name."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        # A key that is not known tells more than the one that is missed for it.
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        where = ".".join(str(part) for part in first["loc"])
        fix, got = f"correct {where}", first["input"]
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), _keys(kind.model_json_schema()), 1)
            fix = f"did you mean '{near[0]}'?" if near else f"remove {where}"
        elif first["type"] == "missing":
            got = ", ".join(first["input"])
            near = difflib.get_close_matches(str(first["loc"][-1]), list(first["input"]), 1)
            fix = f"rename '{near[0]}'" if near else f"add {where}"
        raise CelltwinError(f"{path}: {where}: {first['msg']}", got=got, fix=fix) from error


def _keys(schema: dict[str, Any]) -> Iterator[str]:
    """Every key that a table of the settings may have."""
    for table in (schema, *schema.get("$defs", {}).values()):
        yield from table.get("properties", {})
