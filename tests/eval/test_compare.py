"""The paired comparison of runs: its figures are the statistics', its refusals say why, its files say the same."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from scipy import stats

from eval.compare import Comparison, compare
from eval.runs import METHOD, Run, content_hash, write_tables
from eval.statistics import NOT_AVAILABLE, Resampling, holm
from manifests.errors import InputError
from tests.eval.tiny_run import make_run

LPIPS, FLICKER, DYNAMIC = "lpips_reference@alex", "temporal_flickering@vbench", "dynamic_degree@vbench-0.1.5"


def edited(folder: Path, **changes) -> Path:
    """A run with other entries in run.json; the tables stay."""
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | changes))
    return folder


def with_card(folder: Path, metric: str, **changes) -> Path:
    """A run with another entry for one card."""
    cards = json.loads((folder / "run.json").read_text())["cards"]
    return edited(folder, cards=cards | {metric: cards[metric] | changes})


def pair_of(comparison: Comparison, metric: str, first: str, second: str):
    [pair] = [p for p in comparison.pairs if (p.metric, p.first, p.second) == (metric, first, second)]
    return pair


def object_values(folder: Path, metric: str) -> dict[str, float]:
    """Means over views by a loop of its own."""
    values: dict[str, list[float]] = {}
    for row in Run.open(folder).videos:
        if (row["metric"], row["variant"]) == (metric, METHOD):
            values.setdefault(row["object_id"], []).append(row["value"])
    return {name: float(np.mean(found)) for name, found in values.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Ten objects; the third method lacks two of them."""
    root = tmp_path_factory.mktemp("compare")
    return [
        make_run(root / "a", "good", seed=1, objects=10, better=3),
        make_run(root / "b", "poor", seed=2, objects=10, better=-3),
        make_run(root / "c", "partial", seed=3, objects=10, missing_objects=2),
    ]


@pytest.fixture(scope="module")
def comparison(folders) -> Comparison:
    return compare([Run.open(folder) for folder in folders])


def test_pairs_are_all_pairs_of_runs_on_all_metrics(comparison):
    """By hand: three pairs, three metrics, the protocol's first."""
    who = [("good", "poor"), ("good", "partial"), ("poor", "partial")]
    assert [(p.metric, p.first, p.second) for p in comparison.pairs] == [
        (metric, *pair) for metric in (LPIPS, DYNAMIC, FLICKER) for pair in who
    ]
    assert comparison.num_tests == 9
    assert {label: run["objects"] for label, run in comparison.runs.items()} == {"good": 10, "poor": 10, "partial": 8}


@pytest.mark.parametrize("metric", [LPIPS, FLICKER])
def test_differences_are_paired_on_shared_objects(folders, comparison, metric):
    """Against means by a loop and SciPy's exact permutation test."""
    first, third = object_values(folders[0], metric), object_values(folders[2], metric)
    shared = sorted(first.keys() & third.keys())
    a, b = np.array([first[o] for o in shared]), np.array([third[o] for o in shared])
    found = pair_of(comparison, metric, "good", "partial").difference
    assert (found.n_objects, found.left_out) == (8, ("object-08", "object-09"))
    assert (found.first_mean, found.second_mean) == (pytest.approx(a.mean()), pytest.approx(b.mean()))
    assert found.mean == pytest.approx((a - b).mean())
    expected = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=np.inf,
    )  # fmt: skip
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
    assert found.interval.low < found.mean < found.interval.high


def test_correction_is_over_all_tests(comparison):
    """Against Holm on all p values of the result."""
    assert [p.p_holm for p in comparison.pairs] == holm([p.difference.p for p in comparison.pairs])


def test_better_follows_the_cards_direction_and_needs_a_corrected_test(comparison):
    """By construction: good is better in both directions; how much moves has no better."""
    for metric in (LPIPS, FLICKER):
        pair = pair_of(comparison, metric, "good", "poor")
        assert (pair.better, pair.p_holm < 0.05) == ("good", True)
    assert pair_of(comparison, LPIPS, "good", "poor").difference.mean < 0
    assert all(pair.better == "" for pair in comparison.pairs if pair.metric == DYNAMIC)


def test_five_objects_can_show_nothing_and_the_result_says_so(tmp_path):
    """By formula: of five objects the smallest p is 2 / 2^5, above 0.05 however far the methods are apart."""
    runs = [Run.open(make_run(tmp_path / str(k), f"m{k}", seed=k, better=50 * k)) for k in range(2)]
    pair = pair_of(compare(runs), LPIPS, "m0", "m1")
    assert (pair.difference.p, pair.difference.smallest_p, pair.better) == (0.0625, 0.0625, "")


def test_two_objects_are_not_available_everywhere(tmp_path):
    """By the rule: None in the data, the words in lines and CSV, null in JSON."""
    runs = [Run.open(make_run(tmp_path / str(k), f"m{k}", seed=k, objects=2)) for k in range(2)]
    found = compare(runs)
    assert found.num_tests == 0
    assert [line[-1] for line in found.lines()] == [NOT_AVAILABLE, "no direction", NOT_AVAILABLE]
    by_name = dict(zip(found.headings, found.lines()[0], strict=True))
    told = {name for name, text in by_name.items() if text == NOT_AVAILABLE}
    assert told == {"95 % interval", "p", "p (Holm)", "smallest p", "detectable", "better"}
    found.write(tmp_path / "x.csv")
    found.write(tmp_path / "x.json")
    with (tmp_path / "x.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert {name for name, text in row.items() if text == NOT_AVAILABLE} == {
        "low", "high", "percentile_low", "percentile_high", "p", "p_holm", "smallest_p", "detectable",
    }  # fmt: skip
    assert json.loads((tmp_path / "x.json").read_text())["pairs"][0]["difference"]["p"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hash": "f" * 64, "weights": {"alexnet": "b" * 64}}, "different weights"),
        ({"hash": "f" * 64}, "different versions of the card"),
    ],
)
def test_metrics_of_other_cards_are_refused_with_the_reason(folders, tmp_path, change, words):
    """By the rule: no figure for that metric, the others stay, and the correction is over what was tested."""
    other = with_card(make_run(tmp_path / "x", "x", seed=4, objects=10), LPIPS, **change)
    found = compare([Run.open(folders[0]), Run.open(other)])
    refused = pair_of(found, LPIPS, "good", "x")
    assert (refused.difference, refused.p_holm) == (None, None)
    assert words in refused.refused
    assert found.num_tests == 2
    assert words in found.lines()[0][-1]


def test_metrics_that_one_run_lacks_are_refused_with_its_reason(folders, tmp_path):
    """By the rule: the run's own words for what is missing."""
    other = make_run(tmp_path / "x", "x", seed=4, objects=10)
    cards = json.loads((other / "run.json").read_text())["cards"]
    del cards[FLICKER]
    edited(other, cards=cards, missing={FLICKER: "left out by --metrics"})
    found = compare([Run.open(other), Run.open(folders[0])])
    assert pair_of(found, FLICKER, "x", "good").refused == "x has no value: left out by --metrics"


def test_runs_on_other_views_are_refused(folders, tmp_path):
    """By the rule: off the protocol against on it, and two sets of views of their own, cannot be paired."""
    own = {}
    for name in ("x", "y"):
        folder = own[name] = make_run(tmp_path / name, name, objects=10)
        run = Run.open(folder)
        rows = {table: run.table(table).to_pylist() for table in ("videos", "frames", "guards", "inputs")}
        for row in rows["videos"]:
            row |= {"view": name + row["view"], "on_protocol": False}
        write_tables(folder, rows)
        edited(folder, hash=content_hash(folder))
    found = compare([Run.open(folder) for folder in (folders[0], own["x"], own["y"])])
    assert pair_of(found, LPIPS, "good", "x").refused == "x was scored off the protocol, the other on it"
    assert pair_of(found, LPIPS, "x", "y").refused == "the two were scored on different views"
    assert found.num_tests == 0


@pytest.mark.parametrize("what", ["set", "protocol", "references"])
def test_runs_that_nothing_makes_comparable_are_refused(folders, tmp_path, what):
    """The message names the folder, what was found and what was expected."""
    options = {"set": {"set_hash": "6" * 64}, "protocol": {"protocol": "animate3d"}, "references": {}}[what]
    other = make_run(tmp_path / "x", "x", objects=3, **options)
    if what == "references":
        edited(other, references="none", set=Run.open(folders[0]).info["set"])
    with pytest.raises(InputError, match=rf"{other}: found .*{what}.*, expected .* as in {folders[0]}"):
        compare([Run.open(folders[0]), Run.open(other)])


def test_one_run_is_refused(folders):
    """There is nothing to compare it with."""
    with pytest.raises(InputError, match="found 1, expected at least two"):
        compare([Run.open(folders[0])])


def test_equal_names_are_told_apart(folders, tmp_path):
    """By hand: by folder, and by number where the folders are called alike."""
    again = make_run(tmp_path / "again", "good", seed=7, objects=10)
    found = compare([Run.open(folder) for folder in (folders[0], again, again)])
    assert list(found.runs) == ["good (a)", "good (again) #1", "good (again) #2"]
    same = pair_of(found, LPIPS, "good (again) #1", "good (again) #2")
    assert (same.difference.mean, same.difference.p, same.difference.interval, same.better) == (0.0, 1.0, None, "")


def test_written_files_hold_every_figure(comparison, tmp_path):
    """Round trip: CSV and JSON read back give the values to the last digit."""
    comparison.write(tmp_path / "deep" / "x.csv")
    comparison.write(tmp_path / "x.json")
    told = json.loads((tmp_path / "x.json").read_text())
    with (tmp_path / "deep" / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(told["pairs"]) == len(comparison.pairs)
    for row, entry, pair in zip(rows, told["pairs"], comparison.pairs, strict=True):
        assert float(row["difference"]) == entry["difference"]["mean"] == pair.difference.mean
        assert float(row["low"]) == entry["difference"]["interval"]["low"] == pair.difference.interval.low
        assert float(row["p_holm"]) == entry["p_holm"] == pair.p_holm
        assert row["left_out"].split() == entry["difference"]["left_out"] == list(pair.difference.left_out)
    assert told["schema"] == "mvvideo.comparison/1"


def test_write_refuses_other_endings(comparison, tmp_path):
    """The message names the file and the two endings."""
    with pytest.raises(InputError, match=r"found 'x.xlsx', expected a name that ends in .csv or .json"):
        comparison.write(tmp_path / "x.xlsx")


def test_lines_make_a_table_with_the_cards_scale(comparison):
    """By hand: LPIPS is printed x100 with one more digit than the card's; rich takes headings and lines as they are."""
    table = Table(*comparison.headings)
    for line in comparison.lines():
        table.add_row(*line)
    out = io.StringIO()
    Console(file=out, width=400).print(table)
    pair = pair_of(comparison, LPIPS, "good", "poor")
    assert f"{100 * pair.difference.first_mean:.2f}" in out.getvalue()
    assert f"{100 * pair.difference.mean:+.2f}" in out.getvalue()
    assert "none shown" in out.getvalue()


def test_comparison_is_the_same_again_and_seeds_only_move_draws(folders):
    """Against itself; another seed moves interval ends and nothing exact."""
    runs = [Run.open(folder) for folder in folders[:2]]
    assert compare(runs) == compare(runs)
    other = compare(runs, Resampling(seed=5))
    one, two = compare(runs).pairs[0].difference, other.pairs[0].difference
    assert (one.p, one.mean, one.detectable) == (two.p, two.mean, two.detectable)
    assert one.interval != two.interval
