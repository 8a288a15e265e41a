"""The table of `mvv clips`: every animation has its row, with the verdict that a build would give."""

from __future__ import annotations

from manifests.errors import REASONS
from manifests.tables import CLIPS, iter_rows
from pipelines.build import RunOptions
from pipelines.survey import survey
from tests.broken import small_asset
from tests.pipelines.runs import clip_rows, cube, inline, make_cubes, tiny

ONLY_BUILT = ("quality_", "shard", "position", "seconds", "attempts", "caption")
FACTS = [name for name in CLIPS.names if not name.startswith(ONLY_BUILT)]


def surveyed(source, out, config=None, **options):
    counts = survey(source, out, config or tiny(), RunOptions(**({"workers": 0} | options)))
    rows = list(iter_rows(out, schema=CLIPS))
    assert sum(counts.values()) == len(rows)
    return rows


def test_every_animation_of_a_large_rig_has_its_row(shared_assets, tmp_path):
    # Oracle: the 76 animations that the file's JSON lists; in each row either figures or a reason.
    rows = surveyed(shared_assets / "Barbarian.glb", tmp_path / "clips.parquet", tiny(max_animations=76))
    assert {row["animation"] for row in rows} == set(range(76))
    for row in rows:
        assert row["status"] in ("accepted", "rejected")
        assert (row["reason"] in REASONS) == (row["status"] == "rejected")
        assert row["animation_name"]
        if row["status"] == "accepted":
            assert row["clip_id"]
            assert 0.01 <= row["motion_peak_displacement"] < 4
            assert row["motion_mean_displacement"] <= row["motion_peak_displacement"]
            assert row["motion_mean_speed"] > 0
    stills = [row for row in rows if row["reason"] == "still-pose"]
    assert stills
    assert all(row["animation_duration_s"] < 0.05 or "all keys lie at" in row["detail"] for row in stills)
    assert sum(row["status"] == "accepted" for row in rows) > 60


def test_verdicts_are_those_of_the_build(tmp_path):
    # Oracle: the rows of a build with the same config, but for what only rendering tells.
    assets = make_cubes(tmp_path / "assets", 2)
    (assets / "many.glb").write_bytes(cube(9, ("a", "b", "c", "d")))
    (assets / "static.glb").write_bytes(small_asset(values=[[0, 0, 0]] * 3).to_bytes())
    (assets / "still.glb").write_bytes(small_asset(times=[0.5], values=[[1, 2, 3]]).to_bytes())
    rows = surveyed(assets, tmp_path / "clips.parquet")
    inline(assets, tmp_path / "d")
    built = clip_rows(tmp_path / "d")

    def facts(rows):
        return sorted(tuple(row[name] for name in FACTS) for row in rows)

    assert facts(rows) == facts(built)
    assert {row["reason"] for row in rows} == {"", "not-drawn", "static", "still-pose"}


def test_refused_asset_has_one_row_with_its_reason(tmp_path):
    # Oracle: the reasons of the reader; rows in the order of the sources whichever is faster.
    assets = make_cubes(tmp_path / "assets", 1)
    (assets / "a-copy.glb").write_bytes((assets / "cube0.glb").read_bytes())
    (assets / "empty.glb").write_bytes(b"")
    (assets / "no-mesh.glb").write_bytes(small_asset(mesh=False).to_bytes())
    rows = surveyed(assets, tmp_path / "clips.parquet")
    refused = {row["reason"]: row for row in rows if row["animation"] == -1}
    assert set(refused) == {"duplicate-asset", "empty-file", "no-mesh"}
    assert "a-copy.glb" in refused["duplicate-asset"]["detail"]
    assert len([row for row in rows if row["status"] == "accepted"]) == 2
    assert surveyed(assets, tmp_path / "again.parquet") == rows
