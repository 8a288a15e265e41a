"""`mvv animate` as a user runs it: what its help teaches, what presets fill in, a whole run and its page."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from animate.config import PRESETS, preset, to_dict
from mvv import animate as module
from mvv.cli import main
from mvv.pages.markup import Html
from mvv.preview.curves import loss_curve, read_log
from mvv.preview.page import State, write_preview
from pipelines.procedural import make
from tests.animate.tiny_motion import write_sliding_cube
from tests.mvv.browser import Browser, find_chromium

PROMPT = "a <cube> slides & turns"
SMALL = (
    "--preset", "small", "--subject.surface-points", 60, "--subject.fit-steps", 2, "--deformation.space", 4,
    "--deformation.time", 3, "--recon.steps", 12, "--recon.size", 16, "--recon.frames", 3,
    "--recon.curriculum-steps", 3, "--frame-size", 16, "--preview-s", 0,
)  # fmt: skip


@pytest.fixture
def call(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in arguments])
        return exit.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Such small tensors are slower on several threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(procedural model, run) of a whole run; not to be changed."""
    base = tmp_path_factory.mktemp("animated")
    [made] = make(base / "assets", 1, 0)
    model = made.rename(base / "a #1 'model' 50%.glb")
    words = ["animate", model, "--prompt", PROMPT, "--prior", f"oracle:{model}", "--out", base / "run", *SMALL]
    with pytest.raises(SystemExit) as exit:
        main([str(word) for word in words])
    assert not exit.value.code
    return model, base / "run"


class Page(HTMLParser):
    """Elements and text, as a foreign parser sees them."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def addresses(self) -> set[str]:
        return {attrs[name] for _, attrs in self.tags for name in ("href", "src") if attrs.get(name)}

    def reloads(self) -> bool:
        return any(attrs.get("http-equiv") == "refresh" for _, attrs in self.tags)


@pytest.fixture
def browser(tmp_path):
    if not find_chromium():
        pytest.skip("no Chromium here; apt-get install -y chromium")
    with Browser(tmp_path / "profile", width=390, height=844, mobile=True) as browser:
        yield browser


def test_help_of_animate_tells_every_field_with_its_default(call):
    """Oracle: the fields of the config, and the kinds of priors."""
    code, said, _ = call("animate", "--help")
    assert code == 0
    assert "usage: mvv animate" in said
    for name, value in to_dict(preset("small")).items():
        inside = [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name]
        assert [field for field in inside if f"--{field.replace('_', '-')}" not in said] == []
    flat = " ".join(said.replace("│", "").split())
    for word in ("clip:DATASET/CLIP_ID", "oracle:FILE.glb[#ANIMATION]", "Stable Video Diffusion", "--resume", "bind"):
        assert word in flat


@pytest.mark.parametrize("method", ["animate3d", "animate3d-mesh", "threetofour"])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_fill_in_what_the_method_wants(method, name):
    """Oracle: the room's own presets."""
    for words in (["--preset", name, "--method", method], [f"--preset={name}", f"--method={method}"]):
        assert module.Animate.defaults(words).config == preset(name, method)


def test_auto_preset_follows_the_card(monkeypatch):
    """Oracle: the rule, on machines with and without the driver's program."""
    for there, device, expected in ((None, "auto", "small"), ("x", "auto", "released"), ("x", "cpu", "small")):
        monkeypatch.setattr(module.shutil, "which", lambda _, there=there: there)
        monkeypatch.setattr(module.Path, "exists", lambda _: False)
        assert module.fitting_preset("auto", device) == expected
        assert module.fitting_preset("released", device) == "released"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--method", "animate3d-mehs"], "did you mean animate3d-mesh?"),
        (["--preset", "smal"], "did you mean small?"),
        (["--recon.size", "4"], "size: found 4, expected at least 8"),
        (["--prompt", " "], "--prompt: found no words"),
        (["--out", "full"], "found a folder with other things in it"),
    ],
)
def test_wrong_animate_arguments_are_one_clear_error(call, tmp_path, arguments, hint):
    """Oracle: the hint; nothing is written."""
    cube = write_sliding_cube(tmp_path / "cube.glb")
    mine = tmp_path / "full" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("x")
    how = {"--prompt": "a cube", "--prior": f"oracle:{cube}", "--out": "run", "--preset": "small"}
    how |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    how["--out"] = str(tmp_path / how["--out"])
    code, said, errors = call("animate", cube, *(word for pair in how.items() for word in pair))
    assert code in (1, 2)
    assert hint in " ".join((said + errors).split())
    assert "Traceback" not in errors
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {cube, mine}


def test_run_leaves_what_it_promises(finished):
    """Oracle: the list of outputs; the record's own list; frames of the protocols."""
    model, run = finished
    record = json.loads((run / "animate.json").read_text("utf-8"))
    for name in ("animated.glb", "animated.usdz", "preview.html", "preview.webp", "log.jsonl", *record["files"]):
        assert (run / name).exists(), name
    assert record["prompt"] == PROMPT
    assert len(list((run / "frames" / "eval-3to4d" / model.stem).iterdir())) == 4
    with Image.open(run / "preview.webp") as shown:
        assert (shown.n_frames, shown.size[0]) == (3, 2 * shown.size[1])
        first = np.asarray(shown.convert("RGB")).astype(int)
    half = first.shape[1] // 2
    assert abs(first[:, :half] - first[:, half:]).mean() < 20


def test_finished_run_says_so_and_another_is_not_written_over(call, finished, tmp_path):
    """Oracle: what is said, and the bytes of the record."""
    model, made = finished
    run = tmp_path / "run"
    shutil.copytree(made, run)
    (run / "preview.html").unlink()
    before = (run / "animate.json").read_bytes()
    how = ("animate", model, "--prompt", PROMPT, "--prior", f"oracle:{model}", "--out", run, *SMALL)
    code, said, errors = call(*how, "--resume")
    assert (code, "finished before, nothing to do" in said) == (0, True), errors
    assert not Page(run / "preview.html").reloads()
    code, _, errors = call(*how)
    assert (code, "--resume" in errors) == (1, True)
    code, _, errors = call(*how, "--resume", "--seed", 1)
    assert (code, "seed" in errors) == (1, True)
    assert (run / "animate.json").read_bytes() == before


def test_page_of_a_finished_run_points_only_to_its_own_files(finished):
    """Oracle: the file system; videos of all views are there, and nothing reloads."""
    _, run = finished
    page = Page(run / "preview.html")
    for address in page.addresses():
        assert not re.match(r"[a-z]+:|/", address), address
        assert (run / unquote(address.partition("?")[0])).exists(), address
    videos = {path.relative_to(run).as_posix() for path in run.rglob("*.mp4")}
    assert len(videos) == 17
    assert videos <= {unquote(address) for address in page.addresses()}
    assert {"animated.glb", "animated.usdz", "animate.json"} <= page.addresses()
    assert PROMPT in page.text
    assert not page.reloads()


def test_page_of_a_running_and_of_a_stopped_run(finished, tmp_path):
    """Oracle: steps and picture while it runs; the reason, and no reload, once it stopped."""
    run = tmp_path / "run"
    shutil.copytree(finished[1], run)
    (run / "animate.json").unlink()
    state = State(model="cube.glb", doing="reconstruction", done=5, total=12, left_s=30.0, shown="step 5")
    page = Page(write_preview(run, state))
    assert page.reloads()
    assert "5 of 12 steps" in page.text
    assert "about 30 s left" in page.text
    assert any(address.startswith("preview.webp?") for address in page.addresses())
    page = Page(write_preview(run, State(model="cube.glb", doing="x", stopped="stage x: found nan <b>")))
    assert not page.reloads()
    assert "stage x: found nan <b>" in page.text
    assert "left of it" not in page.text


def test_stopped_run_tells_why_on_its_page(call, tmp_path, monkeypatch):
    """Oracle: an interruption at a step; the run then goes on to its end."""
    cube = write_sliding_cube(tmp_path / "cube.glb")
    how = ("animate", cube, "--prompt", PROMPT, "--prior", f"oracle:{cube}#slide", "--out", tmp_path / "run", *SMALL)

    def stop(self, name, done, total, losses):
        if done == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module._Screen, "stage", stop)
        assert call(*how, "--checkpoint-s", 0)[0] == 130
    page = Page(tmp_path / "run" / "preview.html")
    assert "--resume goes on" in page.text
    assert not page.reloads()
    code, said, errors = call(*how, "--resume")
    assert (code, "animated in" in said) == (0, True), errors
    assert not (tmp_path / "run" / "preview.html").read_text("utf-8").count("--resume goes on")


def test_page_opens_from_disk_on_a_phone(finished, tmp_path, browser):
    """Oracle: Chromium; no message, nothing asked of the network, no sideways scrolling, videos load, both grounds."""
    running = tmp_path / "running"
    shutil.copytree(finished[1], running)
    (running / "animate.json").unlink()
    write_preview(running, State(model="cube.glb", doing="reconstruction", done=5, total=12, left_s=30.0))
    grounds = []
    for folder in (finished[1], running):
        for dark in (False, True):
            browser.open(folder / "preview.html", dark=dark)
            browser.wait("[...document.images].every(i => i.loading === 'lazy' || i.complete && i.naturalWidth > 0)")
            assert browser.ask("document.documentElement.scrollWidth") == 390
            grounds.append(browser.ask("getComputedStyle(document.documentElement).backgroundColor"))
            browser.screenshot(tmp_path / f"{folder.name}-{dark}.png", whole=True)
    assert len(set(grounds)) == 2
    browser.open(finished[1] / "preview.html")
    browser.ask("document.querySelector('.views').scrollIntoView()")
    browser.wait("[...document.querySelector('.views').querySelectorAll('img')].every(i => i.naturalWidth > 0)")
    browser.wait("[...document.querySelectorAll('video')].every(v => v.readyState >= 1 && !v.error)")
    assert browser.messages == []
    # Chromium draws its own player with images inside itself.
    asked = [address for address in browser.requests if not address.startswith("data:")]
    assert all(address.startswith("file:") for address in asked)


def test_running_page_reloads_itself(finished, tmp_path, browser):
    """Oracle: a mark on the page's window is gone after a while."""
    run = tmp_path / "run"
    shutil.copytree(finished[1], run)
    (run / "animate.json").unlink()
    browser.open(write_preview(run, State(model="cube.glb", doing="one", done=1, total=9)))
    write_preview(run, State(model="cube.glb", doing="two", done=2, total=9))
    browser.wait("(document.body?.innerText ?? '').includes('2 of 9 steps')", timeout_s=15)


def test_loss_curve_shows_the_log(tmp_path):
    """Oracle: places of the first and last point; an unfinished line is left out; thousands of lines stay small."""
    path = tmp_path / "log.jsonl"
    rows = [{"stage": "a", "step": 10 * n + 1, "loss": 100 * 0.9**n + 0.01} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "a", "st')
    assert read_log(path) == {"a": rows}
    curve = loss_curve("a", rows)
    assert isinstance(curve, Html)
    d = re.search(r'class="loss" d="M([^"]+)"', curve)
    points = np.array([[float(value) for value in point.split()] for point in d[1].split("L")])
    assert points.shape == (40, 2)
    assert (np.diff(points[:, 0]) > 0).all()
    assert (np.diff(points[:, 1]) > 0).all()
    assert points[-1, 0] == 480
    many = [{"step": n, "loss": 1.0} for n in range(5000)]
    assert loss_curve("b", many).count("L") <= 310
    for values in ([0.0], [0.5], [0.0, 0.0], [3.0, 3.0], [-1.0, 2.0]):
        drawn = loss_curve("c", [{"step": n, "loss": value} for n, value in enumerate(values)])
        assert "nan" not in drawn
        assert "inf" not in drawn
