"""Runs: resume, independence of order, refusals before work, verification, and what makes a row unranked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval import score
from eval.protocols import protocol
from eval.run import ObjectSet, RunOptions, run
from eval.runs import CONTROLS, METHOD, Run, content_hash
from eval.verify import verify
from eval.weights import Store
from manifests.errors import InputError
from tests.eval.items import make_items

RULES = dataclasses.replace(protocol("threetofour"), size=48, frames=6)
"""The protocol at a size that tests can afford."""


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("eval.protocols").protocols.PROTOCOLS, "threetofour", RULES)
    return RULES


def options(**changes) -> RunOptions:
    return RunOptions(**{"method": "disc", "metrics": "offline", "references": "stills"} | changes)


def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "weights")


def test_run_has_a_row_for_every_object_view_variant_and_metric(tmp_path, rules):
    # Oracle: counting. Two objects, four views, the method and four controls.
    summary = run(make_items(2), rules, tmp_path / "run", options(), store=store(tmp_path))
    made = Run.open(tmp_path / "run")
    rows = [row for row in made.videos if row["view"]]
    video_metrics = [n for n, e in summary.info["cards"].items() if e["card"]["level"] == "video"]
    assert len(rows) == 2 * 4 * (1 + len(CONTROLS)) * len(video_metrics)
    assert all((row["value"] is None) == bool(row["reason"]) for row in made.videos)
    assert {row["variant"] for row in rows} == {METHOD, *CONTROLS}
    assert len(list((tmp_path / "run" / "media").rglob("*.webp"))) == 8
    assert not (tmp_path / "run" / "parts").exists()
    assert summary.info["coverage"] == {"objects": 2, "of": 2, "missing": []}


def test_run_does_not_depend_on_order_or_interruption(tmp_path, rules, monkeypatch):
    # Oracle: the undisturbed run, hash against hash.
    items = make_items(3)
    run(items, rules, tmp_path / "whole", options(), store=store(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run(items[::-1], rules, tmp_path / "cut", options(), store=store(tmp_path), progress=stop_at(2))
    scored = []
    real = score.Scorer.score
    monkeypatch.setattr(score.Scorer, "score", lambda self, item: scored.append(item.object_id) or real(self, item))
    summary = run(items, rules, tmp_path / "cut", options(), store=store(tmp_path))
    assert summary.resumed == 2
    assert scored == ["disc-2"], "finished objects are not computed again"
    assert content_hash(tmp_path / "whole") == content_hash(tmp_path / "cut")


def test_parts_by_several_processes_give_the_same_tables(tmp_path, rules):
    # Oracle: one process, hash against hash.
    items = make_items(3)
    run(items, rules, tmp_path / "one", options(), store=store(tmp_path))
    for k in (1, 0):
        made = run(items, rules, tmp_path / "two", options(), store=store(tmp_path), part=(k, 2))
        assert made.info == {}
        assert not (tmp_path / "two" / "run.json").exists()
    assert run(items, rules, tmp_path / "two", options(), store=store(tmp_path)).resumed == 3
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")


def stop_at(count: int):
    def progress(done: int, total: int, text: str) -> None:
        if done == count:
            raise KeyboardInterrupt

    return progress


def test_finished_run_is_kept_and_another_request_is_refused(tmp_path, rules):
    # Oracle: the modification time of run.json, and the refusal's words.
    items = make_items(1)
    run(items, rules, tmp_path / "run", options(), store=store(tmp_path))
    before = (tmp_path / "run" / "run.json").stat().st_mtime_ns
    assert run(items, rules, tmp_path / "run", options(), store=store(tmp_path)).finished_before
    assert (tmp_path / "run" / "run.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="method"):
        run(items, rules, tmp_path / "run", options(method="other"), store=store(tmp_path))


def test_run_killed_before_its_settings_were_written_goes_on(tmp_path, rules):
    # Oracle: the folder as such a kill, or another process that has just begun, leaves it.
    (tmp_path / "run" / "parts").mkdir(parents=True)
    assert not run(make_items(1), rules, tmp_path / "run", options(), store=store(tmp_path)).finished_before


def test_missing_weights_are_refused_before_any_work(tmp_path, rules):
    # Oracle: nothing on disk afterwards; the message lists what to fetch.
    with pytest.raises(InputError, match=r"mvv weights fetch .*openai-clip-vit-b-32"):
        run(make_items(1), rules, tmp_path / "run", options(metrics="all"), store=store(tmp_path))
    assert not (tmp_path / "run").exists()


def test_missing_weights_are_marked_when_allowed(tmp_path, rules):
    # Oracle: the protocol's own list.
    summary = run(
        make_items(1), rules, tmp_path / "run", options(metrics="all", allow_missing=True), store=store(tmp_path)
    )
    assert set(rules.metrics) <= set(summary.info["missing"])
    assert not summary.info["ranked"]
    assert any("missing" in why for why in summary.info["why_not"])


def test_unknown_metric_is_refused_with_the_nearest(tmp_path, rules):
    with pytest.raises(InputError, match="did you mean temporal_flickering@vbench"):
        run(make_items(1), rules, tmp_path / "run", options(metrics="temporal_flicker@vbench"), store=store(tmp_path))


def test_metric_without_its_need_is_refused_by_name_and_left_out_of_groups(tmp_path, rules):
    # Oracle: the card's needs.
    items = make_items(1)
    with pytest.raises(InputError, match="--truth"):
        run(items, rules, tmp_path / "run", options(metrics="psnr@truth"), store=store(tmp_path))
    summary = run(items, rules, tmp_path / "run", options(), store=store(tmp_path))
    assert "psnr@truth" in summary.info["not_applicable"]
    assert "psnr@truth" not in summary.info["cards"]


def test_unreadable_video_becomes_rows_and_the_rest_is_scored(tmp_path, rules):
    # Oracle: the run without that object's trouble has the same values elsewhere.
    items = make_items(2)

    def broken() -> np.ndarray:
        raise InputError("disc-0/a000e+00.mp4: found 0 bytes, expected a video; render it again")

    bad = dataclasses.replace(items[0].videos[0], read=broken)
    hurt = dataclasses.replace(items[0], videos=(bad, *items[0].videos[1:]), content="other")
    summary = run([hurt, items[1]], rules, tmp_path / "hurt", options(), store=store(tmp_path))
    run(items, rules, tmp_path / "whole", options(), store=store(tmp_path))
    assert summary.unread == 1
    again = run([hurt, items[1]], rules, tmp_path / "hurt", options(), store=store(tmp_path))
    assert again.finished_before
    assert again.unread == 1, "a repeated command says the same"
    assert any("could not be read" in why for why in summary.info["why_not"])
    key = lambda row: (row["object_id"], row["view"], row["variant"], row["metric"])  # noqa: E731
    whole = {key(row): row["value"] for row in Run.open(tmp_path / "whole").videos}
    for row in Run.open(tmp_path / "hurt").videos:
        if row["view"] and row["value"] is not None:
            assert row["value"] == whole[key(row)]


def test_absent_objects_are_coverage(tmp_path, rules):
    # Oracle: the set's list.
    evalset = ObjectSet(name="tiny", hash="0" * 64, objects=("disc-0", "disc-1", "disc-9"))
    summary = run(make_items(2), rules, tmp_path / "run", options(), store=store(tmp_path), evalset=evalset)
    assert summary.info["coverage"] == {"objects": 2, "of": 3, "missing": ["disc-9"]}
    assert not summary.info["ranked"]


def test_departures_from_the_protocol_are_written_and_not_ranked(tmp_path):
    # Oracle: the protocol asks for 256 px and 16 frames, the videos have 48 px and 6.
    rules = protocol("threetofour")
    summary = run(make_items(1), rules, tmp_path / "run", options(), store=store(tmp_path))
    departures = Run.open(tmp_path / "run").table("inputs").to_pylist()[0]["departures"]
    assert any("size 48x48" in line for line in departures)
    assert any("frames 6" in line for line in departures)
    assert any("off-protocol" in why for why in summary.info["why_not"])


def test_picture_on_another_background_is_off_protocol(tmp_path, rules):
    # Oracle: the videos are on white, the protocol of the same cameras asked for grey has another background.
    grey = dataclasses.replace(rules, background=(127, 127, 127))
    run(make_items(1, with_alpha=False), grey, tmp_path / "run", options(), store=store(tmp_path))
    departures = Run.open(tmp_path / "run").table("inputs").to_pylist()[0]["departures"]
    assert any("background (255, 255, 255)" in line for line in departures)


def test_verify_agrees_with_an_honest_run_and_finds_a_changed_value(tmp_path, rules):
    # Oracle: a value changed by 0.01 and the run's hash brought in line, as a cheat would.
    items = make_items(2)
    run(items, rules, tmp_path / "run", options(), store=store(tmp_path))
    honest = verify(Run.open(tmp_path / "run"), items, share=1.0, store=store(tmp_path))
    assert honest.passed
    assert honest.worst == 0.0
    assert Run.open(tmp_path / "run").verification["passed"]
    path = tmp_path / "run" / "videos.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    row = next(row for row in rows if row["metric"] == "temporal_flickering@vbench" and row["variant"] == METHOD)
    row["value"] += 0.01
    pq.write_table(type(table).from_pylist(rows, table.schema), path)
    with pytest.raises(InputError, match="changed after the run"):
        Run.open(tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    info["hash"] = content_hash(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    cheat = Run.open(tmp_path / "run")
    assert cheat.verification is None, "a verification is bound to the content it saw"
    found = verify(cheat, items, share=1.0, store=store(tmp_path))
    assert not found.passed
    assert "temporal_flickering" in found.problems[0]


def test_verify_finds_other_frames(tmp_path, rules):
    # Oracle: the same objects with another motion.
    run(make_items(2), rules, tmp_path / "run", options(), store=store(tmp_path))
    found = verify(Run.open(tmp_path / "run"), make_items(2, speed=2.0), share=1.0, store=store(tmp_path))
    assert any("other frames" in problem for problem in found.problems)


def test_groups_of_views_do_not_change_a_value(tmp_path, rules, monkeypatch):
    # Oracle: all views in one group.
    run(make_items(1), rules, tmp_path / "one", options(), store=store(tmp_path))
    monkeypatch.setattr(score, "_GROUP_BYTES", 1)
    run(make_items(1), rules, tmp_path / "four", options(), store=store(tmp_path))
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "four")
