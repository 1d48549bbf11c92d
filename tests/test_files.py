"""Files are whole or not there; trees of arrays come back to the bit, and nothing else does."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from celltwin import files
from celltwin.errors import CelltwinError


class Pair(NamedTuple):
    a: object
    b: object


TREE = Pair(
    {"x": jnp.arange(6.0).reshape(2, 3), "scalar": jnp.float32(1.5), "count": jnp.int32(7)},
    (np.array([True, False]), np.float64([np.pi, np.nan]).astype(np.float32), jnp.zeros((0, 4))),
)


def zeros():
    return Pair(
        {"x": jnp.zeros((2, 3)), "scalar": jnp.float32(0), "count": jnp.int32(0)},
        (np.zeros(2, bool), np.zeros(2, np.float32), jnp.ones((0, 4))),
    )


# --- atomic --------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new folder" / "file.txt"
    files.write_text(path, "one")
    files.write_text(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    files.write_text(path, "old")

    def fail():
        with files.replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_json_cannot_say_is_not_written(tmp_path):
    path = tmp_path / "file.json"
    with pytest.raises(TypeError):
        files.write_json(path, {"x": object()})
    assert not list(tmp_path.iterdir())


# --- JSON ----------------------------------------------------------------------------------------------------------

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@with_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plain_values)
def test_json_comes_back(tmp_path, value):
    files.write_json(tmp_path / "file.json", value)
    assert files.read_json(tmp_path / "file.json") == value


def test_numpy_jax_and_nan_become_plain():
    value = {1: np.float32(0.5), "n": np.int64(3), "a": jnp.arange(2), "nan": float("nan"), "t": (np.inf, np.bool_(1))}
    expected = {"1": 0.5, "n": 3, "a": [0, 1], "nan": None, "t": [None, True]}
    assert files.plain(value) == expected
    assert json.loads(json.dumps(files.plain(value))) == expected


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"not json"])
def test_json_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(CelltwinError, match="cannot read"):
        files.read_json(path)


def test_missing_json_is_refused(tmp_path):
    with pytest.raises(CelltwinError, match="cannot read"):
        files.read_json(tmp_path / "none.json")


# --- trees ---------------------------------------------------------------------------------------------------------


def test_a_tree_comes_back_to_the_bit(tmp_path):
    path = tmp_path / "tree"
    files.save_tree(path, TREE, {"about": "this", "nan": float("nan")})
    back = files.load_tree(path, zeros())
    assert files.load_about(path) == {"about": "this", "nan": None}
    assert isinstance(back, Pair)
    for before, after in zip(jax.tree.leaves(TREE), jax.tree.leaves(back), strict=True):
        assert np.shape(before) == np.shape(after)
        assert np.asarray(before).dtype == np.asarray(after).dtype
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "like",
    [
        {"x": jnp.zeros(3)},
        {"x": jnp.zeros(2), "y": jnp.zeros(1)},
        {"z": jnp.zeros(2)},
        {},
    ],
    ids=["shape", "missing", "name", "unknown"],
)
def test_a_tree_of_another_structure_is_refused(tmp_path, like):
    files.save_tree(tmp_path / "tree", {"x": jnp.zeros(2)}, {})
    with pytest.raises(CelltwinError, match="other arrays"):
        files.load_tree(tmp_path / "tree", like)


def damaged(content: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "truncated header": content[:20],
        "truncated arrays": content[:-3],
        "longer": content + b"more",
        "random": np.random.default_rng(0).bytes(500),
        "huge header": (2**60).to_bytes(8, "little") + content[8:],
        "text": b"PK\x03\x04 a zip",
    }


@pytest.mark.parametrize("how", damaged(b""))
def test_a_damaged_file_is_refused(tmp_path, how):
    path = tmp_path / "tree"
    files.save_tree(path, TREE, {"kind": "celltwin"})
    path.write_bytes(damaged(path.read_bytes())[how])
    for read in (files.load_about, lambda p: files.load_tree(p, zeros())):
        with pytest.raises(CelltwinError, match="not a file of celltwin, or is damaged"):
            read(path)


def test_numbers_that_are_not_those_saved_are_refused(tmp_path):
    path = tmp_path / "tree"
    files.save_tree(path, TREE, {})
    content = bytearray(path.read_bytes())
    content[-5] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(CelltwinError, match=r"damaged; got: numbers that are not those that were saved"):
        files.load_tree(path, zeros())


def test_a_path_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file.csv").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    for path, why in (("folder.csv", "a folder of that name"), ("file.csv/inside.csv", "File exists")):
        for refuse in (files.check_target, files.check_table, lambda p: files.write_text(p, "y")):
            with pytest.raises(CelltwinError, match=rf"cannot write .*{why}"):
                refuse(tmp_path / path)
    with pytest.raises(CelltwinError, match=r"cannot write /proc/none\.txt"):
        files.write_text("/proc/none.txt", "y")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.csv", "folder.csv"]


@pytest.mark.parametrize("header", [None, {}, {"about": "{"}, {"format": "pt"}])
def test_a_foreign_file_is_refused(tmp_path, header):
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors", header)
    with pytest.raises(CelltwinError, match="not a file of celltwin"):
        files.load_about(tmp_path / "other.safetensors")


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(CelltwinError, match="no file"):
        files.load_about(tmp_path / "none")
    with pytest.raises(CelltwinError, match=r"not a file of celltwin|no file"):
        files.load_about(tmp_path)
