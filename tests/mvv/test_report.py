"""The report: what its pages say, that nothing of an asset's text becomes HTML, and that a browser plays the clips."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manifests import clip as clips
from manifests.dataset import Dataset
from manifests.errors import DatasetError, InputError
from manifests.finish import seal
from manifests.tables import CLIPS, TABLES, iter_rows, write_rows
from mvv.pages.markup import element, fill, script_json
from mvv.pictures import draw_sprite, evenly, plan_sprite
from mvv.report import build_report
from mvv.report.facts import Bins, gather
from tests.mvv.browser import Browser, find_chromium
from tests.tiny_dataset import make_tiny_dataset

NASTY = """</script><script>alert(1)</script><img src=x onerror="alert(2)"> ' " & $name \N{LINE SEPARATOR}\ud800 <!--"""


class Page(HTMLParser):
    """Elements, text, and every address that a page points to, as a foreign parser sees them."""

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

    def cards(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "article"]


def rename(folder: Path, **columns: str) -> None:
    """Overwrite text columns of both tables, as a hostile asset would have filled them."""
    for table in ("clips", "assets"):
        path = folder / f"{table}.parquet"
        rows = list(iter_rows(path))
        for row in rows:
            row.update({name: text for name, text in columns.items() if name in row})
        write_rows(path, rows, TABLES[table])
    seal(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", clips=5, views=4, frames=6)


@pytest.fixture(scope="module")
def report(dataset, tmp_path_factory) -> Path:
    return build_report(dataset, tmp_path_factory.mktemp("report") / "out")


@pytest.fixture
def browser(tmp_path):
    if not find_chromium():
        pytest.skip("no Chromium here; apt-get install -y chromium")
    with Browser(tmp_path / "profile") as browser:
        yield browser


def test_report_has_a_card_and_a_page_for_every_clip(dataset, report):
    # Oracle: the rows of clips.parquet.
    expected = [row["clip_id"] for row in Dataset.open(dataset).clips()]
    assert [card["id"] for card in Page(report).cards()] == [f"c-{clip_id}" for clip_id in expected]
    for clip_id in expected:
        assert (report.parent / "clips" / f"{clip_id}.html").is_file()


def test_report_points_only_to_files_of_its_own(report):
    # Oracle: the file system; every address on every page is relative and exists.
    for path in [*report.parent.glob("*.html"), *report.parent.glob("clips/*.html")]:
        for address in Page(path).addresses():
            assert not re.match(r"[a-z]+:|/", address), f"{path.name} points to {address}"
            assert (path.parent / address.partition("#")[0]).exists(), f"{path.name} points to {address}"


def test_report_forbids_loading_from_the_network(report):
    # Oracle: the policy's own grammar; nothing but this page's origin and the disk is named.
    for path in [report, *report.parent.glob("clips/*.html")]:
        policy = next(a["content"] for t, a in Page(path).tags if a.get("http-equiv") == "Content-Security-Policy")
        rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        assert "unsafe" not in rules["script-src"]
        assert set(" ".join(rules.values()).split()) <= {"'none'", "'self'", "file:", "'unsafe-inline'"}


def test_report_states_the_figures_of_the_dataset(dataset, report):
    # Oracle: dataset.json.
    manifest, text = Dataset.open(dataset).manifest, Page(report).text
    counts = manifest["counts"]
    for name in ("models", "animations", "multi_view_videos", "images"):
        assert f"{counts[name]:,}" in text
    assert manifest["fingerprint"] in text
    assert manifest["config_sha256"] in text
    for reason in ("static", "too-short", "truncated", "deadline"):
        assert reason in text
    for license in ("CC-BY-4.0", "CC0-1.0", "not stated"):
        assert license in text


def test_report_escapes_text_of_assets_everywhere(dataset, tmp_path):
    # Oracle: Python's HTML parser; the hostile name adds no element and no attribute to any page.
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    kinds = {}
    for text in ("harmless", NASTY):
        rename(
            folder, animation_name=text, name=text, author=text, license=text, detail=text, caption=text, source=text
        )
        index = build_report(folder, tmp_path / f"report-{len(kinds)}")
        pages = [Page(path) for path in [index, *sorted(index.parent.glob("clips/*.html"))]]
        kinds[text] = [[(tag, sorted(attrs)) for tag, attrs in page.tags] for page in pages]
        assert clips.SCHEMA in pages[1].text
        # The animation's name in the JSON of these clips is "Walk <b>0</b>|".
        assert "<b>0</b>" in pages[1].text
        assert not any(tag == "b" for page in pages for tag, _ in page.tags)
    assert kinds["harmless"] == kinds[NASTY]
    assert "</script><script>alert(1)" in Page(index).text  # the parser's text: it is shown, not run


def test_script_json_cannot_end_its_element():
    # Oracle: json, and the characters that matter to an HTML parser.
    text = script_json({"name": NASTY})
    assert json.loads(text) == {"name": NASTY}
    assert not set("<>&\u2028") & set(text)


def test_markup_escapes_everything_that_is_not_html_already():
    # Oracle: the HTML specification's rules for text and quoted attributes.
    assert element("b", "<i>", element("i", "x"), title='"') == '<b title="&quot;">&lt;i&gt;<i>x</i></b>'
    assert element("img", alt="<", src=None) == '<img alt="&lt;">'
    assert "<b>" not in fill("mvv.report", "page.html", policy="", title="<b>", root="", body="<b>")


def test_strip_shows_the_frames_in_order(dataset):
    # Oracle: the frames themselves, pasted by hand; at this size nothing is resized.
    source = Dataset.open(dataset)
    row = next(iter(source.clips()))
    sprite = plan_sprite(row["views"], row["frames"], row["width"], row["height"])
    strip = np.asarray(draw_sprite(lambda view, frames: source.frames(row["clip_id"], [view], frames)[0], sprite))
    frames = source.frames(row["clip_id"])
    size = row["height"]
    for step in range(row["frames"]):
        for view in range(4):
            top, left = (step * 2 + view // 2) * size, view % 2 * size
            np.testing.assert_array_equal(strip[top : top + size, left : left + size], frames[view, step])


@pytest.mark.parametrize(
    ("views", "frames", "size"), [(16, 48, 256), (12, 16, 1024), (1, 1, 64), (3, 400, 512), (2, 5, 7)]
)
def test_strip_stays_within_what_browsers_and_webp_hold(views, frames, size):
    # Oracle: WebP's largest side, and the size of one decoded strip.
    sprite = plan_sprite(views, frames, size, size)
    height = sprite.rows * sprite.cell_height * len(sprite.frames)
    width = sprite.columns * sprite.cell_width
    assert 1 <= sprite.cell_width <= size
    assert height <= 16_383
    assert width * height <= 3_000_000


def test_evenly_takes_the_first_and_equal_steps():
    # Oracle: properties.
    assert evenly(3, 8) == (0, 1, 2)
    for count, most in ((16, 4), (48, 16), (100, 48)):
        chosen = evenly(count, most)
        steps = np.diff(chosen)
        assert chosen[0] == 0
        assert len(chosen) == most
        assert steps.min() >= count // most
        assert steps.max() <= -(-count // most)


def test_pictures_keep_alpha(report):
    # Oracle: Pillow; the border of every view is blank in the tiny dataset.
    for path in (report.parent / "media").glob("*.webp"):
        image = Image.open(path)
        assert image.mode == "RGBA"
        assert np.asarray(image)[0, :, 3].max() < 40  # lossy alpha


def test_report_says_when_it_shows_only_some_clips(dataset, tmp_path):
    # Oracle: the numbers asked for.
    page = Page(build_report(dataset, tmp_path / "out", max_clips=2))
    assert len(page.cards()) == 2
    assert "first 2 of 5 clips" in page.text


def test_report_replaces_an_earlier_one_and_nothing_else(dataset, tmp_path):
    # Oracle: the listing of the folder.
    out = tmp_path / "out"
    build_report(dataset, out)
    first = sorted(path.relative_to(out) for path in out.rglob("*"))
    build_report(dataset, out, max_clips=1)
    assert len(list((out / "clips").iterdir())) == 1
    build_report(dataset, out)
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == first
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        build_report(dataset, foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_report_of_a_folder_that_is_no_dataset_leaves_nothing(tmp_path):
    with pytest.raises(DatasetError):
        build_report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_report_goes_on_when_a_clip_cannot_be_read(dataset, tmp_path):
    # Oracle: one byte of one frame is changed by hand.
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    source = Dataset.open(folder)
    row = next(iter(source.clips()))
    offset = source.index(row["shard"])[row["clip_id"]].frame_offsets()[0]
    with open(source.shard_path(row["shard"]), "r+b") as file:
        file.seek(offset)
        file.write(b"XXXX")
    page = Page(build_report(folder, tmp_path / "out"))
    assert len(page.cards()) == 4
    assert "1 clip could not be read" in page.text


def test_report_of_an_empty_dataset(tmp_path):
    page = Page(build_report(make_tiny_dataset(tmp_path / "data", clips=0), tmp_path / "out"))
    assert page.cards() == []
    assert "has no clip" in page.text


def test_failures_show_the_last_lines_of_the_log(dataset, tmp_path):
    # Oracle: the detail that was written.
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    rows = list(iter_rows(folder / "clips.parquet"))
    for row in rows:
        if row["status"] == "failed":
            row["detail"] = "deadline in frame 3: no frame in 60 s\nFra:3 Mem:212M\nFra:3 <b>Sample</b> 4/16"
    write_rows(folder / "clips.parquet", rows, CLIPS)
    seal(folder)
    [failure] = gather(Dataset.open(folder)).failures
    assert failure["said"] == "deadline in frame 3: no frame in 60 s"
    assert failure["log"].splitlines()[-1] == "Fra:3 <b>Sample</b> 4/16"
    assert "Fra:3 <b>Sample</b> 4/16" in Page(build_report(folder, tmp_path / "out")).text


def test_bins_count_every_value_once_and_quantiles_are_near():
    # Oracle: numpy's quantiles.
    values = np.random.default_rng(0).lognormal(0, 1, 5000)
    bins = Bins(0.01, 100.0, "s")
    for value in [*values, 0.0, 1e9]:
        bins.add(float(value))
    assert bins.counts.sum() == len(values) + 2
    for share in (0.05, 0.5, 0.95):
        assert bins.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.2)


def test_clips_play_in_a_browser(report, browser):
    # Oracle: Chromium; the frame shown by each strip is read from where it stands on the screen.
    browser.open(report)
    browser.wait("document.documentElement.dataset.playing === '5'")
    browser.ask("document.getElementById('play').click()")
    browser.ask("Promise.all(document.getAnimations().map(a => a.ready)).then(() => true)")  # pausing takes a frame
    stand = "[...document.querySelectorAll('.strip')].map(s => getComputedStyle(s).transform).join()"
    still = browser.ask(stand)
    browser.ask("new Promise(done => setTimeout(done, 400))")
    assert browser.ask(stand) == still
    assert browser.ask("document.getElementById('play').textContent") == "Play"
    assert browser.messages == []  # no error, no violation of the policy
    assert browser.requests
    assert all(address.startswith(report.parent.as_uri()) for address in browser.requests)


def test_policy_is_alive_in_a_browser(report, browser):
    # Canary: a picture from the network, a script in the page and a handler are refused, and the browser says so.
    page = report.parent / "canary.html"
    bad = '<img src="https://example.invalid/x.png"><script>document.title = "ran"</script><b onclick="1">b</b>'
    page.write_text(report.read_text("utf-8").replace("<main>", f"<main>{bad}"), "utf-8")
    browser.open(page)
    page.unlink()
    assert browser.ask("document.title") == "tiny"
    assert len([text for text in browser.messages if "Content Security Policy" in text]) >= 2


def test_background_filter_and_sort_work_in_a_browser(dataset, report, browser):
    # Oracle: the rows of clips.parquet, sorted and filtered by Python.
    rows = list(Dataset.open(dataset).clips())
    browser.open(report)
    shown = "[...document.querySelectorAll('.card')].map(card => card.id.slice(2))"
    browser.ask("document.querySelector('.swatches [value=black]').click()")
    assert browser.ask("getComputedStyle(document.querySelector('.stage')).backgroundColor") == "rgb(0, 0, 0)"
    browser.ask(
        "{const s = document.getElementById('sort'); s.value = '-motion'; s.dispatchEvent(new Event('change'))}"
    )
    by_motion = sorted(rows, key=lambda row: -row["motion_mean_displacement"])
    assert browser.ask(shown) == [row["clip_id"] for row in by_motion]
    browser.ask("{const f = document.getElementById('filter'); f.value = 'CC0'; f.dispatchEvent(new Event('input'))}")
    assert browser.ask(shown) == [row["clip_id"] for row in by_motion if row["license"] == "CC0-1.0"]
    assert browser.ask("document.getElementById('shown').textContent") == "2 clips"


def test_clip_page_plays_and_scrubs_in_a_browser(report, browser):
    # Oracle: Chromium; the strip moves by its own height over the number of frames.
    browser.open(next(iter(sorted((report.parent / "clips").glob("*.html")))))
    browser.wait("document.documentElement.dataset.playing === '1'")
    browser.ask("{const s = document.getElementById('scrub'); s.value = '4'; s.dispatchEvent(new Event('input'))}")
    step = "-new DOMMatrix(getComputedStyle(document.querySelector('.strip')).transform).m42"
    assert browser.ask(f"Math.round(6 * {step} / document.querySelector('.strip').offsetHeight)") == 4
    assert browser.ask("document.getElementById('frame').textContent").replace("\u00a0", " ").startswith("frame 4 of 6")
    assert browser.messages == []


def test_filter_reaches_clips_of_other_pages(tmp_path, browser):
    # Oracle: 65 clips on two pages; the last one is found from the first page and looks like a card of its own.
    dataset = make_tiny_dataset(tmp_path / "data", clips=65, views=1, frames=2, size=8)
    index = build_report(dataset, tmp_path / "out")
    assert sorted(path.name for path in index.parent.glob("*.html")) == ["index.html", "page-2.html"]
    assert len(Page(index).cards()) == 60
    assert len(Page(index.parent / "page-2.html").cards()) == 5
    last = list(Dataset.open(dataset).clips())[-1]["clip_id"]
    browser.open(index)
    browser.ask(
        f"{{const f = document.getElementById('filter'); f.value = '{last}'; f.dispatchEvent(new Event('input'))}}"
    )
    browser.wait(f"document.querySelectorAll('.card').length === 1 && !!document.getElementById('c-{last}')")
    browser.wait("document.querySelector('.strip').naturalWidth === 8")
    assert browser.ask("document.querySelector('.card a').getAttribute('href')") == f"clips/{last}.html"
    browser.ask("{const f = document.getElementById('filter'); f.value = ''; f.dispatchEvent(new Event('input'))}")
    assert browser.ask("document.querySelectorAll('.card').length") == 60
    assert browser.messages == []


def test_page_fits_a_phone(report, tmp_path):
    # Oracle: Chromium; nothing is wider than a screen of 390 pixels.
    if not find_chromium():
        pytest.skip("no Chromium here; apt-get install -y chromium")
    clip = next(iter((report.parent / "clips").glob("*.html")))
    with Browser(tmp_path / "profile", width=390, height=844, mobile=True) as browser:
        for path in (report, clip):
            browser.open(path)
            assert browser.ask("document.documentElement.scrollWidth") == 390


def test_report_of_a_still_does_not_move(tmp_path, browser):
    # Oracle: one frame cannot play.
    index = build_report(make_tiny_dataset(tmp_path / "data", clips=2, views=1, frames=1), tmp_path / "out")
    browser.open(index)
    browser.ask("new Promise(done => setTimeout(done, 600))")
    assert browser.ask("document.documentElement.dataset.playing") == "0"
    assert browser.ask("document.getAnimations().length") == 0


def test_hostile_names_run_nothing_in_a_browser(dataset, tmp_path, browser):
    # Oracle: Chromium; no dialog, no message, and the name is on the page as text.
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    rename(folder, animation_name="<script>alert(1)</script>", name="<img src=x onerror=alert(2)>")
    index = build_report(folder, tmp_path / "out")
    for path in (index, next((index.parent / "clips").glob("*.html"))):
        browser.open(path)
        assert "<script>alert(1)</script>" in browser.ask("document.body.innerText")
        assert browser.messages == []
