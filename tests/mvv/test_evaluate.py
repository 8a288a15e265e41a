"""The evaluation's commands from the shell's side: a dataset in, a leaderboard out, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mvv.cli import main
from tests.tiny_dataset import make_tiny_dataset


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs the command line in this process: (exit code, stdout, stderr). No weights are at hand."""
    monkeypatch.setenv("MVVIDEO_WEIGHTS", str(tmp_path / "weights"))

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in arguments])
        return exit.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_tiny_dataset(tmp_path_factory.mktemp("tiny") / "dataset", 3)


def test_dataset_becomes_a_leaderboard(call, dataset, tmp_path):
    # Oracle: the files that the documents promise, and what the pages say.
    runs = tmp_path / "runs"
    code, said, _ = call(
        "eval", "run", dataset, "--protocol", "threetofour", "--metrics", "offline", "--out", runs / "a"
    )
    assert code == 0
    assert "temporal_flickering@vbench" in said
    assert "not ranked" in said
    info = json.loads((runs / "a" / "run.json").read_text())
    assert info["references"] == "first-frame"
    assert set(info["controls"]) == {"frozen", "jitter", "orbit", "first_frame"}
    again = call("eval", "run", dataset, "--protocol", "threetofour", "--metrics", "offline", "--out", runs / "a")
    assert "finished before" in again[1]
    arguments = ("--protocol", "threetofour", "--metrics", "offline", "--method", "b & <b>", "--seed", 1)
    assert call("eval", "run", dataset, *arguments, "--out", runs / "b")[0] == 0
    code, said, _ = call("eval", "verify", runs / "a", dataset, "--share", "1")
    assert (code, "agrees" in said) == (0, True)
    code, said, _ = call("eval", "compare", runs / "a", runs / "b", "--out", tmp_path / "pairs.json")
    assert code == 0
    pairs = json.loads((tmp_path / "pairs.json").read_text())["pairs"]
    flicker = next(pair for pair in pairs if pair["metric"] == "temporal_flickering@vbench")
    assert flicker["difference"]["mean"] == 0.0, "the same videos"
    assert call("leaderboard", "build", runs / "a", runs / "b", "--out", tmp_path / "site")[0] == 0
    page = (tmp_path / "site" / "index.html").read_text()
    assert "b &amp; &lt;b&gt;" in page
    assert "<b>" not in page.replace("b &amp; &lt;b&gt;", "")


def test_folders_of_frames_want_fps_and_references_by_name(call, tmp_path):
    # Oracle: the message names the option.
    rng = np.random.default_rng(0)
    for frame in range(4):
        path = tmp_path / "mine" / "fox with spaces é" / "a000e+00" / f"{frame}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 24, 4), np.uint8)).save(path)
    base = ("eval", "run", tmp_path / "mine", "--protocol", "threetofour", "--out", tmp_path / "run", "--metrics")
    code, _, told = call(*base, "lpips_reference@alex")
    assert (code, "--references" in told) == (1, True)
    code, _, told = call(*base, "clip_t@b32")
    assert (code, "--prompts" in told) == (1, True)
    code, _, told = call(*base, "dynamic_degree@vbench-0.1.5")
    assert (code, "--fps" in told) == (1, True)
    assert not (tmp_path / "run").exists()
    assert call(*base, "temporal_flickering@vbench")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["eval", "run", "x", "--protocol", "animate3", "--out", "r"], "did you mean animate3d?"),
        (["eval", "run", "x", "--protocol", "animate3d", "--out", "r", "--part", "2", "2"], "I from 0 to N - 1"),
        (["eval", "compare", "x"], "at least two"),
        (["eval", "cards", "clip_tt@b32"], "did you mean clip_t@b32?"),
        (["eval", "rn"], "did you mean `mvv eval run`?"),
        (["leaderboard", "build", "nowhere", "--out", "s"], "expected a finished run"),
        (["weights", "add", "dino", "file"], "dino-vitb16"),
    ],
)
def test_wrong_use_is_told_in_one_line(call, arguments, hint):
    # Oracle: the hint a user needs; no traceback.
    code, _, told = call(*arguments)
    assert code == 1
    assert hint in told
    assert "Traceback" not in told


def test_background_is_three_numbers(call, dataset, tmp_path):
    base = ("eval", "run", dataset, "--protocol", "threetofour", "--metrics", "offline", "--out", tmp_path / "run")
    assert "expected R,G,B" in call(*base, "--background", "grey")[2]
    assert call(*base, "--background", "10,20,30")[0] == 0
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert any("off-protocol" in why for why in info["why_not"])


def test_evaluation_set_names_the_objects_of_its_models(call, tmp_path):
    # Oracle: the ids that a dataset gives the same files.
    from eval.evalset import read_evalset
    from pipelines.intake import scan

    assert call("eval", "set", "--out", tmp_path / "set.parquet", "--count", 3)[0] == 0
    rows = list(scan([tmp_path / "set"]))
    assert set(read_evalset(tmp_path / "set.parquet").objects) == {row["asset_id"] for row in rows}


def test_families_of_commands_list_their_members(call):
    for family, member in (("eval", "eval run"), ("eval study", "eval study make"), ("weights", "weights fetch")):
        code, said, _ = call(*family.split(), "--help")
        assert (code, f"mvv {member}" in said) == (0, True)


def test_prompts_of_a_set_cannot_be_changed(call, dataset, tmp_path):
    # Oracle: rows of one set hash would otherwise have been scored with different prompts.
    assert call("eval", "set", "--out", tmp_path / "set.parquet", "--count", 1)[0] == 0
    (tmp_path / "p.json").write_text("{}")
    base = ("eval", "run", dataset, "--protocol", "threetofour", "--metrics", "offline", "--out", tmp_path / "run")
    code, _, told = call(*base, "--set", tmp_path / "set.parquet", "--prompts", tmp_path / "p.json")
    assert (code, "--prompts: found together with --set" in told) == (1, True)
