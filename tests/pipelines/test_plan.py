"""Which clip goes where: a permutation that depends on content and config alone, in memory that does not grow."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from manifests.errors import REASONS
from manifests.tables import CLIPS, iter_rows, write_rows
from pipelines.plan import PLAN, Probes, draw_animations, plan_clips, rejected_rows, split_of_asset, waves
from tests.pipelines.runs import tiny

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "plan_memory.py"


def sha_of(k):
    return hashlib.sha256(f"asset {k}".encode()).hexdigest()


def probed(k, animations=5, windows=2):
    """As a probe leaves it, with the fields that the plan reads."""
    clips = [
        {"status": "accepted", "reason": "", "detail": "", "motion": {},
         "window": {"index": w, "start_s": w / 2, "loops": 1, "time_scale": 1.0, "fps": 8.0}}
        for w in range(windows)
    ]  # fmt: skip
    entries = [
        {"index": a, "name": f"a{a}", "duration_s": 1.0, "status": "accepted", "reason": "", "detail": "",
         "motion": {}, "clips": [dict(clip) for clip in clips]}
        for a in range(animations)
    ]  # fmt: skip
    asset = {"asset_id": f"asset{k}-{sha_of(k)[:10]}", "sha256": sha_of(k), "license": "", "attribution": ""}
    return {"asset": asset, "found": {"animations": entries}}


def planned(tmp_path, entries, config=None, first=None):
    config = config or tiny(max_animations=6)
    counts = plan_clips(entries, config, tmp_path / "buckets", tmp_path / "plan.parquet", first_shard=first or {})
    rows = list(iter_rows(tmp_path / "plan.parquet", schema=PLAN))
    assert sum(counts.values()) == len(rows)
    return rows


def test_plan_is_a_permutation_of_the_clips(tmp_path):
    # Oracle: every accepted clip, counted by hand; shards filled in order to the size that the config says.
    rows = planned(tmp_path, [probed(k) for k in range(37)])
    expected = {f"asset{k}-{sha_of(k)[:10]}-{a:03d}-{w:02d}" for k in range(37) for a in range(5) for w in range(2)}
    assert len(rows) == 370
    assert {row["clip_id"] for row in rows} == expected
    assert [row["shard"] for row in rows] == [f"train-{i // 4:05d}" for i in range(370)]
    assert not list((tmp_path / "buckets").iterdir())


def test_plan_does_not_depend_on_the_order_of_assets(tmp_path):
    # Oracle: the same assets shuffled.
    entries = [probed(k) for k in range(60)]
    rows = planned(tmp_path, entries)
    random.Random(1).shuffle(entries)
    assert planned(tmp_path, entries) == rows


def test_plan_depends_on_the_seed(tmp_path):
    # Oracle: another order of the same clips.
    entries = [probed(k) for k in range(20)]
    one, two = (planned(tmp_path, entries, tiny(max_animations=6, seed=seed)) for seed in (0, 1))
    assert [row["clip_id"] for row in one] != [row["clip_id"] for row in two]
    assert {row["clip_id"] for row in one} == {row["clip_id"] for row in two}


def test_neighbours_are_mostly_of_different_assets(tmp_path):
    # Oracle: a random permutation has (clips of an asset - 1) / (clips - 1) of its neighbours alike; three times that.
    rows = planned(tmp_path, [probed(k) for k in range(100)])
    alike = sum(a["asset_id"] == b["asset_id"] for a, b in itertools.pairwise(rows))
    assert alike / len(rows) < 3 * 9 / 999


def test_rejected_windows_and_animations_are_not_planned(tmp_path):
    # Oracle: what is marked; each of them has its row among the rejected instead.
    entry = probed(0, animations=3)
    first, second, _ = entry["found"]["animations"]
    first |= {"status": "rejected", "reason": "static", "detail": "still"}
    second["clips"][1] |= {"status": "rejected", "reason": "frame0-too-small", "detail": "small"}
    rows = planned(tmp_path, [entry])
    assert sorted((row["animation"], row["window"]) for row in rows) == [(1, 0), (2, 0), (2, 1)]
    refused = list(rejected_rows(entry["asset"], entry["found"], tiny()))
    assert [(row["animation"], row["window"], row["reason"]) for row in refused] == [
        (0, -1, "static"), (1, 1, "frame0-too-small"),
    ]  # fmt: skip
    write_rows(tmp_path / "rejected.parquet", refused, CLIPS)  # every column is there
    assert all(row["status"] == "rejected" and row["shard"] == "" for row in refused)


def test_animations_beyond_the_maximum_are_drawn_by_content_and_seed():
    # Oracle: the count, the reason, and equal draws for equal keys.
    def drawn(seed, k=0):
        found = probed(k, animations=9)["found"]
        draw_animations(found, sha_of(k), tiny(max_animations=4, seed=seed))
        reasons = {entry["reason"] for entry in found["animations"] if entry["status"] == "rejected"}
        assert reasons == {"not-drawn"} <= REASONS.keys()
        return [entry["index"] for entry in found["animations"] if entry["status"] == "accepted"]

    assert len(drawn(0)) == 4
    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 3
    assert len({tuple(drawn(0, k)) for k in range(8)}) > 3


def test_draw_keeps_animations_that_were_rejected_already():
    # Oracle: their reason.
    found = probed(0, animations=3)["found"]
    found["animations"][0] |= {"status": "rejected", "reason": "static"}
    draw_animations(found, sha_of(0), tiny(max_animations=2))
    assert [entry["status"] for entry in found["animations"]] == ["rejected", "accepted", "accepted"]
    assert found["animations"][0]["reason"] == "static"


def test_splits_go_by_content_and_have_about_their_shares(tmp_path):
    # Oracle: shares within four standard deviations of 3,000 draws; copies under other names land together.
    config = tiny(splits="train:0.8,val:0.15,test:0.05", max_animations=6)
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for k in range(3000):
        counts[split_of_asset(sha_of(k), config)] += 1
    for name, share in (("train", 0.8), ("val", 0.15), ("test", 0.05)):
        assert abs(counts[name] - 3000 * share) < 4 * (3000 * share * (1 - share)) ** 0.5, counts
    entries = [probed(k) for k in range(40)]
    copies = [{**entry, "asset": {**entry["asset"], "asset_id": f"copy{k}"}} for k, entry in enumerate(entries)]
    split_of = {}
    rows = planned(tmp_path, [*entries, *copies], config)
    for row in rows:
        assert split_of.setdefault(row["asset_sha256"], row["split"]) == row["split"]
        assert row["shard"].startswith(f"{row['split']}-")
    assert set(split_of.values()) == {"train", "val", "test"}
    for split in ("train", "val", "test"):  # each is numbered from 0, without a gap
        numbers = [int(row["shard"][-5:]) for row in rows if row["split"] == split]
        assert numbers == [i // 4 for i in range(len(numbers))]


def test_later_generation_begins_in_new_shards(tmp_path):
    # Oracle: the number that is asked for.
    rows = planned(tmp_path, [probed(1)], first={"train": 7})
    assert [row["shard"] for row in rows] == ["train-00007"] * 4 + ["train-00008"] * 4 + ["train-00009"] * 2


def test_waves_are_whole_shards_without_those_that_are_done(tmp_path):
    # Oracle: the plan's own order.
    rows = planned(tmp_path, [probed(k) for k in range(300)])
    skip = {"train-00003", "train-00700"}
    found = list(waves(tmp_path / "plan.parquet", skip))
    assert len(found) > 1
    assert all(sum(len(entries) for _, entries in wave) <= 1024 + 4 for wave in found)
    flat = [row for wave in found for shard, entries in wave for row in entries if row["shard"] == shard]
    assert flat == [row for row in rows if row["shard"] not in skip]


def test_probes_give_back_what_was_put(tmp_path):
    # Oracle: round trip.
    probes, entry = Probes(tmp_path), probed(3)
    assert sha_of(3) not in probes
    probes.put(entry["asset"], entry["found"])
    assert sha_of(3) in probes
    assert probes.get(sha_of(3)) == entry


def measured(rows):
    command = [sys.executable, str(SCRIPT), "--rows", str(rows)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_clips():
    # Oracle: the process's peak and Python's heap for ten times as many clips.
    small, large = measured(10_000), measured(100_000)
    assert large["rows"] == 100_000
    assert large["peak_mb"] - small["peak_mb"] < 32, (small, large)
    assert large["heap_peak_mb"] - small["heap_peak_mb"] < 16, (small, large)


def test_memory_of_a_plan_stays_small():
    # Oracle: the process's peak for 1,000 and 8,000 clips; the long form is marked slow.
    small, large = measured(1_000), measured(8_000)
    assert large["peak_mb"] - small["peak_mb"] < 24, (small, large)
