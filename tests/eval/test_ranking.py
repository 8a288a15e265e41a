"""Tables: what stands together, who is ranked, and that every figure is the one the statistics give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.protocols import PROTOCOLS
from eval.ranking import Table, tables
from eval.runs import CONTROLS, METHOD, Run, content_hash, write_tables
from eval.statistics import estimate, holm, object_means, paired
from tests.eval.tiny_run import make_run

LPIPS, FLICKER, DYNAMIC = "lpips_reference@alex", "temporal_flickering@vbench", "dynamic_degree@vbench-0.1.5"
CLIP_I = "clip_i@b32"


def rewrite(folder: Path, change_info=None, change_row=None) -> Path:
    """Edits a run as if it had been made so: ``change_info(info)`` and ``change_row(row) -> rows`` of videos."""
    run = Run.open(folder)
    names = ("videos", "frames", "guards", "inputs")
    rows = {name: run.table(name).to_pylist() for name in names}
    if change_row is not None:
        rows["videos"] = [new for row in rows["videos"] for new in change_row(row)]
    write_tables(folder, rows)
    info = run.info | {"hash": content_hash(folder)}
    if change_info is not None:
        change_info(info)
    (folder / "run.json").write_text(json.dumps(info))
    return folder


def table_of(*folders: Path) -> Table:
    [table] = tables([Run.open(folder) for folder in folders])
    return table


def row_of(table: Table, method: str):
    return next(row for row in table.rows if row.method == method)


def constant(metric: str, value: float):
    """All values of one metric of the method become one."""

    def change(row):
        return [row | {"value": value}] if (row["metric"], row["variant"]) == (metric, METHOD) else [row]

    return change


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> list[Path]:
    """Eight objects: two good methods with equal noise, and one that is clearly worse."""
    root = tmp_path_factory.mktemp("three")
    return [
        make_run(root / "good", "good", seed=1, objects=8, better=4.0),
        make_run(root / "alike", "alike", seed=2, objects=8, better=3.8),
        make_run(root / "poor", "poor", seed=3, objects=8, better=-4.0),
    ]


def test_cells_are_the_statistics_of_the_rows(three):
    """Against `estimate` on the rows themselves."""
    run = Run.open(three[0])
    rows = [
        (r["object_id"], r["view"], r["value"]) for r in run.videos if r["variant"] == METHOD and r["metric"] == LPIPS
    ]
    expected, cell = estimate(object_means(rows)), row_of(table_of(*three), "good").cells[LPIPS]
    assert (cell.value, cell.n_objects, cell.half_width) == (expected.mean, 8, expected.half_width)
    assert (cell.low, cell.high) == (expected.interval.low, expected.interval.high)
    assert cell.value == pytest.approx(np.mean([value for _, _, value in rows]))
    assert -1 < cell.view_correlation < 1


def test_ranks_follow_the_direction_of_the_card(three):
    """By construction: the poor method has the largest LPIPS and the smallest flicker score."""
    table = table_of(*three)
    for metric, sign in ((LPIPS, 1), (FLICKER, -1)):
        ordered = sorted(table.rows, key=lambda row: sign * row.cells[metric].value)
        assert [row.cells[metric].rank for row in ordered] == [1, 2, 3]
        assert ordered[-1].method == "poor"
    assert all(row.cells[DYNAMIC].rank is None and row.cells[DYNAMIC].best_group is None for row in table.rows)


def test_table_order_is_the_mean_rank_over_the_protocols_metrics(three, tmp_path):
    """By hand: LPIPS is the only one of the protocol's metrics here with a direction; the flicker column has no say."""
    copy = make_run(tmp_path / "x", "x", seed=4, objects=8, better=9.0)
    rewrite(copy, change_row=constant(FLICKER, 0.0))
    table = table_of(*three, copy)
    assert [column.name for column in table.columns] == [LPIPS, DYNAMIC, FLICKER]
    assert [(c.required, c.counts) for c in table.columns] == [(True, True), (True, False), (False, False)]
    assert table.rows[0].method == "x"
    assert [row.place for row in table.rows] == [1, 2, 3, 4]
    assert all(row.mean_rank == row.cells[LPIPS].rank for row in table.rows)
    assert row_of(table, "x").cells[FLICKER].rank == 4
    assert set(table.absent) == set(PROTOCOLS["threetofour"].metrics) - {LPIPS, DYNAMIC}


def test_best_group_is_what_a_corrected_test_does_not_tell_from_the_best(three):
    """Against the paired tests and Holm, done by hand on the same rows."""
    table = table_of(*three)

    def means(folder):
        rows = Run.open(folder).videos
        return object_means(
            (r["object_id"], r["view"], r["value"]) for r in rows if r["variant"] == METHOD and r["metric"] == LPIPS
        )

    ranked = sorted(table.rows, key=lambda row: row.cells[LPIPS].rank)
    folders = {folder.name: folder for folder in three}
    best = means(folders[ranked[0].method])
    ps = holm([paired(best, means(folders[row.method])).p for row in ranked[1:]])
    assert [row.cells[LPIPS].best_group for row in ranked] == [True, *(p >= 0.05 for p in ps)]
    assert row_of(table, "poor").cells[LPIPS].best_group is False
    assert row_of(table, "alike").cells[LPIPS].best_group is True


def test_ties_share_a_rank(three, tmp_path):
    """By hand: 1, 1, 3, 4 in a column and in the places."""
    for name in ("a", "b"):
        folder = make_run(tmp_path / name, name, seed=5, objects=8)
        rewrite(folder, change_row=constant(LPIPS, 0.01))
    table = table_of(*three[1:], tmp_path / "a", tmp_path / "b")
    assert [row.cells[LPIPS].rank for row in table.rows] == [1, 1, 3, 4]
    assert [(row.method, row.place) for row in table.rows] == [("a", 1), ("b", 1), ("alike", 3), ("poor", 4)]
    assert table.rows[0].cells[LPIPS].low is None
    assert [row.cells[LPIPS].best_group for row in table.rows[:2]] == [True, True]


def test_incomplete_and_failed_rows_are_shown_and_not_ranked(three, tmp_path):
    """By the rule: the best values do not help a row that lacks objects or fails a guard, and move no rank."""
    make_run(tmp_path / "few", "few", objects=8, better=20, missing_objects=2)
    make_run(tmp_path / "still", "still", objects=8, better=20, failing_guard=True)
    table = table_of(*three, tmp_path / "few", tmp_path / "still")
    few, still = row_of(table, "few"), row_of(table, "still")
    assert [row.method for row in table.rows[3:]] == ["few", "still"]
    assert (few.coverage, few.ranked, few.why_not, few.place) == ("6 of 8", False, ("objects missing",), None)
    assert (few.cells[LPIPS].n_objects, few.cells[LPIPS].left_out) == (6, ("object-06", "object-07"))
    assert still.why_not == ("guard static failed on most videos",)
    assert (few.cells[LPIPS].rank, few.cells[LPIPS].best_group, few.cells[LPIPS].value > 0) == (None, None, True)
    assert [row.cells for row in table.rows[:3]] == [row.cells for row in table_of(*three).rows]


def test_a_run_that_claims_more_than_its_tables_have_is_not_ranked(three, tmp_path):
    """By the rule: coverage, values and views are looked up in the tables, whatever run.json says."""
    claims = {"ranked": True, "why_not": []}
    make_run(tmp_path / "few", "few", objects=8, missing_objects=1)
    rewrite(tmp_path / "few", lambda info: info.update(claims))
    make_run(tmp_path / "gap", "gap", objects=8)
    rewrite(
        tmp_path / "gap",
        change_row=lambda r: (
            [r | {"value": None, "reason": "one frame"}]
            if (r["metric"], r["object_id"], r["view"], r["variant"]) == (LPIPS, "object-03", "a090e+00", METHOD)
            else [r]
        ),
    )
    make_run(tmp_path / "views", "views", objects=8)
    rewrite(tmp_path / "views", change_row=lambda r: [] if r["view"] == "a180e+00" and r["metric"] == LPIPS else [r])
    table = table_of(*three, *(tmp_path / name for name in ("few", "gap", "views")))
    assert [row.ranked for row in table.rows] == [True] * 3 + [False] * 3
    assert "has 7 of 8 objects" in row_of(table, "few").why_not
    assert row_of(table, "gap").why_not == (f"{LPIPS} has no value for 1 of 8 objects (object-03)",)
    assert row_of(table, "gap").cells[LPIPS].n_objects == 7
    assert row_of(table, "views").why_not == (
        f"{LPIPS} has no value for 8 of 8 objects (object-00, object-01, object-02 and 5 more)",
    )


def test_off_protocol_rows_are_scored_and_not_ranked(three, tmp_path):
    """By the rule: a run of other views has values with a mark; further views of a complete run have no influence."""
    make_run(tmp_path / "off", "off", objects=8, better=20)
    rewrite(tmp_path / "off", change_row=lambda r: [r | {"on_protocol": False, "view": "own-" + r["view"]}])
    make_run(tmp_path / "more", "good", seed=1, objects=8, better=4.0)
    rewrite(
        tmp_path / "more",
        change_row=lambda r: [r, r | {"view": "own-" + r["view"], "on_protocol": False, "value": 99.0}],
    )
    table = table_of(*three, tmp_path / "off")
    off = row_of(table, "off")
    assert (off.ranked, off.cells[LPIPS].note, off.cells[LPIPS].rank) == (False, "off-protocol", None)
    assert off.cells[LPIPS].n_objects == 8
    assert f"{LPIPS} was scored off the protocol" in off.why_not
    assert row_of(table_of(tmp_path / "more", *three[1:]), "good").cells == row_of(table_of(*three), "good").cells


def test_missing_metrics_have_a_reason_and_keep_a_row_out(three, tmp_path):
    """By the rule: a metric of the protocol that others have and this run could not compute."""

    def drop(info):
        del info["cards"][LPIPS]
        info["missing"] = {LPIPS: "no weights alexnet"}

    make_run(tmp_path / "x", "x", objects=8, better=20)
    rewrite(tmp_path / "x", drop, lambda r: [] if r["metric"] == LPIPS else [r])
    row = row_of(table_of(*three, tmp_path / "x"), "x")
    assert (row.ranked, row.why_not) == (False, (f"{LPIPS} is missing: no weights alexnet",))
    assert (row.cells[LPIPS].value, row.cells[LPIPS].note) == (None, "no weights alexnet")


@pytest.mark.parametrize(("weights", "note"), [("b" * 64, "other weights"), ("a" * 64, "other version of the card")])
def test_cells_of_another_card_hash_are_marked_and_not_ranked(three, tmp_path, weights, note):
    """By the rule: the hash that most rows share is the column's; the others' values stay visible."""

    def change(info):
        info["cards"][LPIPS] |= {"hash": "f" * 64, "weights": {"alexnet": weights}}

    make_run(tmp_path / "x", "x", objects=8, better=20)
    rewrite(tmp_path / "x", change)
    table = table_of(*three, tmp_path / "x")
    row = row_of(table, "x")
    assert (row.cells[LPIPS].note, row.cells[LPIPS].rank, row.ranked) == (note, None, False)
    assert row.why_not[0].startswith(f"{LPIPS} has {note}")
    assert row.cells[LPIPS].value is not None
    assert [row.cells[LPIPS].rank for row in table.rows[:3]] == [1, 2, 3]


def test_runs_that_no_hash_joins_stand_in_tables_of_their_own(three, tmp_path):
    """By the rule: another set, another protocol, another kind of references."""
    make_run(tmp_path / "set", "set", set_hash="6" * 64)
    make_run(tmp_path / "protocol", "protocol", protocol="animate3d", objects=3)
    make_run(tmp_path / "references", "references", objects=8)
    rewrite(tmp_path / "references", lambda info: info.update(references="first-frame"))
    folders = [*three, *(tmp_path / name for name in ("set", "protocol", "references"))]
    found = tables([Run.open(folder) for folder in folders])
    assert [sorted(row.method for row in table.rows) for table in found] == [
        ["protocol"], ["references"], ["alike", "good", "poor"], ["set"],
    ]  # fmt: skip
    assert len({table.key for table in found}) == 4
    assert found[0].title == "animate3d 1, tiny (3 objects), references: stills"
    assert found[2].set == {"name": "tiny", "hash": "5" * 64, "objects": 8}


def test_two_objects_have_no_interval_and_no_best_group(tmp_path):
    """By the rule: not available, and the ranks stand alone."""
    folders = [make_run(tmp_path / str(k), str(k), seed=k, objects=2) for k in range(3)]
    for row in table_of(*folders).rows:
        cell = row.cells[LPIPS]
        assert (cell.low, cell.high, cell.half_width, cell.best_group, cell.view_correlation) == (None,) * 5
        assert cell.rank in (1, 2, 3)


def test_verification_is_shown_and_a_failed_one_unranks(three, tmp_path):
    """By the rule: unverified rows are ranked and marked; values that do not come out again are not."""
    folders = {name: make_run(tmp_path / name, name, objects=8) for name in ("yes", "no", "unknown")}
    for name, passed in (("yes", True), ("no", False)):
        told = {"passed": passed, "checked": 3, "hash": Run.open(folders[name]).info["hash"]}
        (folders[name] / "verification.json").write_text(json.dumps(told))
    table = table_of(*folders.values())
    assert {row.method: (row.verified, row.ranked) for row in table.rows} == {
        "yes": (True, True), "no": (False, False), "unknown": (None, True),
    }  # fmt: skip
    assert row_of(table, "no").why_not == ("its values did not agree when they were computed again",)


def test_controls_are_shown_with_their_row_and_never_ranked(three):
    """Against the mean of the rows of each variant."""
    table = table_of(*three)
    assert [control.variant for control in table.controls] == list(CONTROLS) * 3
    assert [control.method for control in table.controls[::4]] == [row.method for row in table.rows]
    run = Run.open(three[2])
    values = [r["value"] for r in run.videos if r["variant"] == "orbit" and r["metric"] == FLICKER]
    [cell] = [c.cells[FLICKER] for c in table.controls if (c.method, c.variant) == ("poor", "orbit")]
    assert (cell.value, cell.n_objects) == (pytest.approx(np.mean(values)), 8)
    assert all(cell.rank is None for control in table.controls for cell in control.cells.values())


def test_set_level_metrics_are_ranked_without_intervals(three, tmp_path):
    """By the rule: one value for the set."""
    folders = []
    for name, value in (("a", 40.0), ("b", 30.0)):

        def change(info):
            card = {
                **info["cards"][FLICKER]["card"],
                "id": "fvd",
                "version": "i3d",
                "level": "set",
                "higher_is_better": False,
            }
            info["cards"]["fvd@i3d"] = {"hash": "c" * 64, "weights": {}, "card": card}

        folder = make_run(tmp_path / name, name, objects=4)
        extra = {
            "object_id": "", "view": "", "variant": METHOD, "metric": "fvd@i3d", "value": value, "reason": "",
            "on_protocol": True, "extra": "{}",
        }  # fmt: skip
        seen = []

        def once(row, seen=seen, extra=extra):
            seen.append(row)
            return [row, extra] if len(seen) == 1 else [row]

        folders.append(rewrite(folder, change, once))
    cells = {row.method: row.cells["fvd@i3d"] for row in table_of(*folders).rows}
    assert {name: (cell.value, cell.rank, cell.n_objects) for name, cell in cells.items()} == {
        "a": (40.0, 2, 1), "b": (30.0, 1, 1),
    }  # fmt: skip
    assert all((cell.low, cell.best_group) == (None, None) for cell in cells.values())


def test_tables_do_not_depend_on_the_order_of_runs_and_are_json(three):
    """Round trip through strict JSON; runs reversed, and one given twice."""
    runs = [Run.open(folder) for folder in three]
    [once], [again] = tables(runs), tables([*runs[::-1], runs[0]])
    assert once == again
    text = json.dumps(once.to_dict(), allow_nan=False)
    assert json.loads(text)["rows"][0]["cells"][LPIPS]["rank"] == 1
    assert json.loads(text)["columns"][0]["card"]["failure_modes"] == ["A frozen copy scores 0."]
    assert tables([]) == []
