"""Files that are either whole or not there, and trees of arrays in them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from celltwin.errors import CelltwinError

Tree = TypeVar("Tree")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is removed when not.

    Raises CelltwinError where the file cannot be written.
    """
    path = Path(path)
    check_target(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_target(path: str | Path) -> None:
    """Make the folder of a file. Raises CelltwinError where the file cannot be written: before the work it is for."""
    path = Path(path)
    if path.is_dir():
        raise _unwritable(path, "a folder of that name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, f"{error.filename}: {error.strerror}") from error


def _unwritable(path: Path, got: str) -> CelltwinError:
    return CelltwinError(
        f"cannot write {path}", got=got, expected="a file in a folder that can be written to", fix="name another path"
    )


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_table(path: str | Path, table: pa.Table) -> None:
    """An Arrow table as parquet, or as csv where the name ends so, all or nothing.

    Raises CelltwinError for a name that ends otherwise.
    """
    check_table(path)
    with replacing(path) as temporary:
        if Path(path).suffix == ".csv":
            csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary, compression="zstd")


def check_table(path: str | Path) -> None:
    """Raises CelltwinError where `write_table` would refuse the path: before the work that makes the table."""
    if Path(path).suffix not in (".parquet", ".csv"):
        raise CelltwinError(
            "a table is saved as parquet or csv", got=str(path), expected="a name that ends in .parquet or .csv"
        )
    check_target(path)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically; NaN becomes null."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON. Raises CelltwinError where the file is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CelltwinError(
            f"cannot read {path}",
            got=error,
            expected="a JSON file written by celltwin",
            fix="restore the file, or run the command that wrote it again",
        ) from error


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, jax.Array)):
        return plain(np.asarray(value).tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _named_leaves(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array_like))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def save_tree(path: str | Path, tree: Any, about: dict[str, Any]) -> None:
    """Write the arrays of a pytree and a JSON-able description into one safetensors file, atomically."""
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _named_leaves(tree).items()}
    header = {"about": json.dumps(plain(about)), "digest": _digest(arrays)}
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors_bytes(arrays, header))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Of names and bytes of arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(name.encode())
        total.update(arrays[name].tobytes())
    return total.hexdigest()


def load_about(path: str | Path) -> dict[str, Any]:
    """The description in a file of `save_tree`. Raises CelltwinError for a missing, corrupt or foreign file."""
    try:
        with safe_open(str(path), "numpy") as file:
            return json.loads((file.metadata() or {})["about"])
    except FileNotFoundError as error:
        raise CelltwinError(f"there is no file {path}", fix="check the path") from error
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _damaged(path, "a folder" if Path(path).is_dir() else f"{type(error).__name__}: {error}") from error


def _damaged(path: str | Path, got: str) -> CelltwinError:
    return CelltwinError(
        f"{path} is not a file of celltwin, or is damaged",
        got=got,
        expected="a safetensors file with a celltwin header",
        fix="take a whole copy of the file",
    )


def load_tree(path: str | Path, like: Tree) -> Tree:
    """Read the arrays of `save_tree` into a pytree of the same structure. Raises CelltwinError where they differ."""
    load_about(path)  # says what is wrong with a foreign file
    wanted = _named_leaves(like)
    with safe_open(str(path), "numpy") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = (file.metadata() or {}).get("digest")
    if digest is not None and digest != _digest(held):  # files of before have none
        raise _damaged(path, "numbers that are not those that were saved")
    different = sorted(set(wanted) ^ set(held)) or [n for n, leaf in wanted.items() if np.shape(leaf) != held[n].shape]
    if different:
        raise CelltwinError(
            f"{path} holds other arrays than its description says",
            got=f"{', '.join(different[:4])} missing, unknown or of another shape",
            fix="it was written by another version of celltwin: train it again",
        )
    arrays, rest = eqx.partition(like, eqx.is_array_like)
    structure = jax.tree.structure(arrays)
    return eqx.combine(jax.tree.unflatten(structure, [jnp.asarray(held[name]) for name in wanted]), rest)
