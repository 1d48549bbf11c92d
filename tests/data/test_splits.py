"""Whole records on one side each, and no way around the guard."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import reference
from celltwin.data.domain import Domain
from celltwin.data.record import Record
from celltwin.data.splits import Split, by_patterns, folds, matches, refuse_label, refuse_seen, select
from celltwin.errors import CelltwinError


@pytest.fixture(scope="module")
def records():
    """Two cells, two ambients, three cycles."""
    names, ambients, cells = ("Mixed1", "UDDS", "LA92"), (25.0, -10.0), ("A", "B")
    places = [(c, a, n) for c in cells for a in ambients for n in names]
    return [
        reference.drive(name, seed=i, ambient=ambient, samples=60, group=cell)
        for i, (cell, ambient, name) in enumerate(places)
    ]


def keys(records):
    return sorted(r.key for r in records)


# --- patterns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("UDDS", {"A/25degC/UDDS", "A/n10degC/UDDS", "B/25degC/UDDS", "B/n10degC/UDDS"}),
        ("Mix*", {"A/25degC/Mixed1", "A/n10degC/Mixed1", "B/25degC/Mixed1", "B/n10degC/Mixed1"}),
        ("25degC/UDDS", {"A/25degC/UDDS", "B/25degC/UDDS"}),
        ("n10degC/*", {f"{c}/n10degC/{n}" for c in "AB" for n in ("Mixed1", "UDDS", "LA92")}),
        ("B/*/LA92", {"B/25degC/LA92", "B/n10degC/LA92"}),
        ("B/25degC/LA92", {"B/25degC/LA92"}),
        ("udds", set()),
        ("A", set()),
        ("x/B/25degC/LA92", set()),
    ],
)
def test_a_pattern_names_records(records, pattern, expected):
    assert {r.key for r in records if matches(r, pattern)} == expected


@pytest.mark.parametrize(
    ("patterns", "test"),
    [
        ({"train": ["Mixed*"], "validate": ["UDDS"], "test": ["LA92"]}, "*/*/LA92"),
        ({"train": ["A/*/*"], "test": ["B/*/*"]}, "B/*/*"),
        ({"train": ["25degC/*"], "test": ["n10degC/*"]}, "*/n10degC/*"),
    ],
    ids=["by cycle", "by cell", "by temperature"],
)
def test_whole_records_go_to_one_side(records, patterns, test):
    split = by_patterns(records, patterns)
    assert keys(split.test) == keys(r for r in records if matches(r, test))
    sides = [*split.train, *split.validate, *split.test]
    assert len({id(r) for r in sides}) == len(sides) == len(records)


def test_a_pattern_that_matches_nothing_is_refused(records):
    with pytest.raises(CelltwinError, match=r"the pattern 'LA93' matches no record; got: A/25degC/LA92"):
        by_patterns(records, {"train": ["Mixed*"], "test": ["LA93"]})


def test_select_keeps_the_order_and_takes_a_record_once(records):
    assert list(select(records, ["LA92", "A/*/*"])) == [r for r in records if r.group == "A" or r.name == "LA92"]


# --- one side each -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [("train", "test"), ("train", "validate"), ("validate", "test")])
def test_a_record_on_two_sides_is_refused(records, sides):
    parts = {side: (records[0],) if side in sides else () for side in ("train", "validate", "test")}
    with pytest.raises(CelltwinError, match=f"on two sides of the split; got: {sides[0]} and {sides[1]}"):
        Split(**parts)


def in_single_precision(record: Record) -> Record:
    return replace(
        record,
        voltage=record.voltage.astype(np.float32),
        current=record.current.astype(np.float32),
        time=record.time.astype(np.float32),
    )


DISGUISES = {
    "same": lambda r: replace(r),
    "renamed": lambda r: replace(r, name="Other", group="C", ambient_degC=40.0),
    "single precision": lambda r: replace(in_single_precision(r), name="Other"),
    "later": lambda r: replace(r, name="Other", time=r.time + 1e4),
    "other SOC": lambda r: replace(r, name="Other", initial_soc=0.5, net_capacity=None),
}


@pytest.mark.parametrize("how", DISGUISES)
def test_a_copy_in_disguise_is_refused(records, how):
    with pytest.raises(CelltwinError, match="the same measurement is used twice"):
        Split(train=(records[0],), validate=(), test=(DISGUISES[how](records[0]),))


def test_a_copy_in_single_precision_or_turned_twice_is_the_same(records):
    record = records[0]
    rough = replace(
        record, voltage=np.round(record.voltage, 4), current=np.where(record.current < 0, record.current, 0.0)
    )
    single = {c: getattr(rough, c).astype(np.float32).astype(float) for c in ("voltage", "current")}
    assert replace(rough, **single).content_hash == rough.content_hash
    turned = replace(rough, current=np.where(rough.current == 0, -0.0, rough.current))
    assert (rough.current == 0).any()
    assert turned.content_hash == rough.content_hash


def test_a_copy_on_the_same_side_is_refused(records):
    with pytest.raises(CelltwinError, match="the same measurement is used twice"):
        Split(train=(records[0], replace(records[0], name="Copy")), validate=(), test=())


@with_settings(max_examples=30)
@given(st.data())
def test_a_split_either_parts_the_records_or_is_refused(records, data):
    names = st.sampled_from(["Mixed1", "UDDS", "LA92", "25degC/*", "A/*/*", "*"])
    patterns = {side: data.draw(st.lists(names, max_size=2)) for side in ("train", "validate", "test")}
    wanted = [{r.key for r in records for p in patterns[s] if matches(r, p)} for s in patterns]
    fine = not (wanted[0] & wanted[1] or wanted[0] & wanted[2] or wanted[1] & wanted[2])
    if fine:
        split = by_patterns(records, patterns)
        assert [{r.key for r in side} for side in (split.train, split.validate, split.test)] == wanted
    else:
        with pytest.raises(CelltwinError):
            by_patterns(records, patterns)


# --- scalings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["validate", "test"])
def test_a_scaling_that_saw_another_side_is_refused(records, side):
    parts = {"train": (records[0],), "validate": (), "test": ()} | {side: (records[1],)}
    split = Split(**parts)
    refuse_seen(Domain.of(split.train), split)
    with pytest.raises(CelltwinError, match=f"the scaling saw {side} record 'A UDDS 25degC'"):
        refuse_seen(Domain.of(records[:2]), split)
    with pytest.raises(CelltwinError, match="the scaling saw"):
        refuse_seen(Domain.of([in_single_precision(records[1])]), split)


# --- inputs that are the label -------------------------------------------------------------------------------------

VOLTAGE = {"x": ["voltage_volt"]}


@pytest.fixture(scope="module")
def long():
    return reference.drive("long", seed=3, samples=1500)


def trailing_mean(values, window):
    return np.convolve(np.r_[np.full(window - 1, values[0]), values], np.full(window, 1 / window), mode="valid")


def test_measurements_pass(long):
    inputs = {"voltage": long.voltage, "current": long.current, "temperature": long.temperature}
    origin = {"voltage": ["voltage_volt"], "current": ["current_ampere"], "temperature": ["temperature_t1_celsius"]}
    refuse_label(inputs, origin, long.soc)


def test_an_input_of_undeclared_origin_is_refused(long):
    with pytest.raises(CelltwinError, match="the origin of input 'x' is not declared"):
        refuse_label({"x": long.voltage}, {}, long.soc)


@pytest.mark.parametrize("column", ["soc", "net_capacity_ah", "charge_ah"])
def test_an_input_computed_from_the_label_is_refused(long, column):
    with pytest.raises(CelltwinError, match=f"leaks the label; got: computed from {column}"):
        refuse_label({"x": long.voltage}, {"x": ["voltage_volt", column]}, long.soc)
    with pytest.raises(CelltwinError, match="leaks the label"):
        refuse_label({column: long.voltage}, {column: ["voltage_volt"]}, long.soc)


LEAKS = {
    "itself": lambda soc: soc,
    "depth of discharge": lambda soc: 1 - soc,
    "percent": lambda soc: 100 * soc + 3,
    "charge": lambda soc: 2.78 * (soc - 1),
    "single precision": lambda soc: soc.astype(np.float32),
    "mean of 5": lambda soc: trailing_mean(soc, 5),
    "mean of 50": lambda soc: trailing_mean(soc, 50),
    "mean of 500": lambda soc: 7 - 2 * trailing_mean(soc, 500),
}


@pytest.mark.parametrize("how", LEAKS)
def test_an_input_whose_values_are_the_label_is_refused(long, how):
    with pytest.raises(CelltwinError, match="affine function of the label's trailing mean"):
        refuse_label({"x": LEAKS[how](long.soc)}, VOLTAGE, long.soc)


# --- folds ---------------------------------------------------------------------------------------------------------


@given(st.integers(2, 9))
def test_every_cycle_is_left_out_once_everywhere_it_was_driven(records, count):
    split = Split(tuple(records[:9]), tuple(records[9:10]), tuple(records[10:]))
    made = folds(split, count)
    assert len(made) == min(count, 3)
    assert sorted(r.key for fold in made for r in fold.left_out) == keys(split.train)
    for fold in made:
        kept, left_out = ({r.name for r in side} for side in (fold.split.train, fold.left_out))
        assert kept.isdisjoint(left_out)
        assert keys((*fold.split.train, *fold.left_out)) == keys(split.train)
        assert fold.split.validate == split.validate
        assert fold.split.test == ()


def test_where_all_cycles_have_one_name_each_record_is_its_own(records):
    alike = tuple(r for r in records if r.name == "Mixed1")
    made = folds(Split(alike, (), ()), 4)
    assert [keys(fold.left_out) for fold in made] == [[key] for key in keys(alike)]


def test_one_cycle_cannot_be_divided(records):
    with pytest.raises(CelltwinError, match=r"cannot be divided.*1 cycles"):
        folds(Split(tuple(records[:1]), (), ()), 2)
    with pytest.raises(CelltwinError, match="1 folds"):
        folds(Split(tuple(records), (), ()), 1)
