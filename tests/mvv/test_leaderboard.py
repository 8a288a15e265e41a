"""The leaderboard: what its pages say against the runs, that no text of a run becomes HTML, and that a browser plays,
sorts and filters them from disk."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.inputs.names import safe_name
from eval.ranking import Cell, tables
from eval.reported import reported_rows
from eval.runs import METHOD, Run, content_hash
from manifests.errors import InputError
from mvv.leaderboard import build_leaderboard
from mvv.leaderboard.entries import entries_of
from mvv.leaderboard.figures import interval_text, score_text
from mvv.leaderboard.plots import Mark, axis_of, round_ticks, whisker
from mvv.pages.blocks import POLICY
from tests.eval.tiny_run import CARDS, make_run
from tests.mvv.browser import Browser, find_chromium

NASTY = """</script><script>alert(1)</script><img src=x onerror="alert(2)"> ' " & $name <!--"""
OBJECT = "../<b>Fox</b> é"


class Page(HTMLParser):
    """Elements, text and rows of tables, as a foreign parser sees them."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[tuple[dict[str, str | None], list[str]]] = []
        self._inside: str | None = None
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append((dict(attrs), []))
        elif tag in ("td", "th"):
            self.rows[-1][1].append("")
            self._inside = tag

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data):
        self.text += data
        if self._inside:
            self.rows[-1][1][-1] += data + " "

    def kind(self, kind: str) -> list[list[str]]:
        """Cells of the rows of one kind."""
        return [cells for attrs, cells in self.rows if attrs.get("data-kind") == kind]


def rename_object(run: Path, old: str, new: str) -> None:
    """Another id for an object, as a run of such an input would have been written."""
    for name in ("videos", "frames", "guards", "inputs"):
        table = pq.read_table(run / f"{name}.parquet")
        rows = [row | {"object_id": new if row["object_id"] == old else row["object_id"]} for row in table.to_pylist()]
        pq.write_table(type(table).from_pylist(rows, table.schema), run / f"{name}.parquet")
    (run / "media" / old).rename(run / "media" / safe_name(new))
    edit(run, set={**read(run)["set"], "objects": [new if o == old else o for o in read(run)["set"]["objects"]]},
         prompts={new if o == old else o: prompt for o, prompt in read(run)["prompts"].items()})  # fmt: skip


def read(run: Path) -> dict:
    return json.loads((run / "run.json").read_text("utf-8"))


def edit(run: Path, **changes) -> None:
    (run / "run.json").write_text(json.dumps({**read(run), **changes, "hash": content_hash(run)}), "utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    made = [
        make_run(root / "first", "Alpha", seed=1, better=3.0, objects=6),
        make_run(root / "second", "beta", seed=2, better=1.0, objects=6),
        make_run(root / "third", "Gamma & co", seed=3, objects=6),
        make_run(root / "static", "Statue", seed=4, objects=6, failing_guard=True),
        make_run(root / "half", "Half", seed=5, objects=6, missing_objects=2),
        make_run(root / "other", "Alpha", seed=6, objects=3, protocol="animate3d", set_hash="7" * 64),
    ]
    edit(made[0], links={"paper": "https://example.invalid/paper", "code": "javascript:alert(1)"}, note="Our note.")
    found = {"passed": True, "checked": ["object-01"], "values": 12, "worst": 1e-7, "hash": read(made[0])["hash"]}
    (made[0] / "verification.json").write_text(json.dumps(found))
    return made


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory) -> Path:
    return build_leaderboard(runs, tmp_path_factory.mktemp("site") / "out", title="Tiny").parent


@pytest.fixture
def browser(tmp_path):
    if not find_chromium():
        pytest.skip("no Chromium here; apt-get install -y chromium")
    with Browser(tmp_path / "profile") as browser:
        yield browser


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def object_page(site: Path, name: str = "object-01") -> Path:
    [folder] = (site / "objects").glob("threetofour-*")
    return folder / f"{name}.html"


# -- what the pages say ------------------------------------------------------------------------------------------------


def test_site_points_only_to_files_of_its_own_and_to_sources(site):
    # Oracle: the file system; every other address is of the web and only ever a link.
    for path in pages(site):
        for tag, attrs in Page(path).tags:
            for name in ("href", "src"):
                address = attrs.get(name)
                if address is None:
                    continue
                if tag == "a" and address.startswith("https://"):
                    continue
                assert not re.match(r"[a-z]+:|/", address), f"{path.name} points to {address}"
                assert (path.parent / address.partition("#")[0]).exists(), f"{path.name} points to {address}"


def test_site_has_the_policy_of_all_pages(site):
    # Oracle: the policy of the report, whose grammar its own test reads.
    for path in pages(site):
        said = [a["content"] for t, a in Page(path).tags if a.get("http-equiv") == "Content-Security-Policy"]
        assert said == [POLICY]


def test_index_shows_the_ranking_and_nothing_else_as_ranked(runs, site):
    # Oracle: eval.ranking on the same runs.
    rows = [row for table in tables([Run.open(run) for run in runs]) for row in table.rows]
    shown = [(attrs, cells) for attrs, cells in Page(site / "index.html").rows if attrs.get("data-kind") == "measured"]
    assert len(shown) == len(rows) == 6
    for row, (attrs, cells) in zip(rows, shown, strict=True):
        assert row.method in cells[0]
        assert attrs["data-ranked"] == str(int(row.ranked))
        assert ("✓ verified" in cells[0]) == (row.verified is True)
        assert ("unverified" in cells[0]) == (row.verified is None)
        for reason in row.why_not:
            assert reason in cells[0]
        found = [re.match(r"\d+ ", text) and text.split()[0] for text in cells[2:]]
        ranks = {name: cell.rank for name, cell in row.cells.items()}
        assert [int(rank) if rank else None for rank in found] == list(ranks.values())


def test_index_prints_scores_with_intervals_scaled_as_the_card_says(runs, site):
    # Oracle: eval.ranking's numbers, scaled and rounded by hand.
    table = next(t for t in tables([Run.open(run) for run in runs]) if t.protocol["name"] == "threetofour")
    cells = next(cells for cells in Page(site / "index.html").kind("measured") if "beta" in cells[0])
    row = next(row for row in table.rows if row.method == "beta")
    place = [column.name for column in table.columns].index("lpips_reference@alex")
    cell = row.cells["lpips_reference@alex"]
    assert f"{cell.value * 100:.1f}" in cells[2 + place]
    assert f"{cell.low * 100:.1f}\u2009–\u2009{cell.high * 100:.1f}" in cells[2 + place]


def test_scores_are_printed_as_cards_say():
    # Oracle: by hand; minus is a minus sign, and zero has none.
    card = dataclasses.asdict(CARDS[0])
    assert score_text(0.1234, card) == "12.3"
    assert score_text(-0.1234, card) == "\u221212.3"
    assert score_text(-0.0001, card) == "0.0"
    assert score_text(None, card) == "–"
    assert interval_text(0.1, 0.2, card) == "10.0\u2009–\u200920.0"
    assert interval_text(None, None, card) == ""


def test_controls_are_rows_of_their_own(runs, site):
    # Oracle: the run format; four controls a run, and a control that scores alike for several runs is one row.
    controls = Page(site / "index.html").kind("control")
    assert len(controls) == 4 * len(runs)  # their values are drawn by run here, so none coincide
    assert {text for cells in controls for text in re.findall(r"^(.*?)  ?of ", cells[0])} <= {
        "Frozen copy", "Frozen with noise", "Camera orbit", "First frame only"
    }  # fmt: skip


def test_equal_controls_of_several_runs_are_one_row(tmp_path):
    # Oracle: two runs of one seed have the same controls.
    made = [make_run(tmp_path / name, name, seed=1, objects=3) for name in ("one", "two")]
    # Only the method differs: what it scored is changed by hand.
    table = pq.read_table(made[1] / "videos.parquet")
    rows = [row | {"value": row["value"] + 0.1 * (row["variant"] == METHOD)} for row in table.to_pylist()]
    pq.write_table(type(table).from_pylist(rows, table.schema), made[1] / "videos.parquet")
    edit(made[1])
    controls = Page(build_leaderboard(made, tmp_path / "site")).kind("control")
    assert len(controls) == 4
    assert all("of every method" in cells[0] for cells in controls)


def test_reported_rows_stand_apart_and_have_no_rank(site):
    # Oracle: eval.reported; a row a method of each published table.
    page = Page(site / "index.html")
    told = {(row.paper, row.table, row.set, row.method) for row in reported_rows()}
    reported = [(attrs, cells) for attrs, cells in page.rows if attrs.get("data-kind") == "reported"]
    assert len(reported) == len(told)
    assert all(attrs["data-ranked"] == "0" and "reported" in cells[0] for attrs, cells in reported)
    markup = (site / "index.html").read_text("utf-8")
    for table in re.findall(r"<table class=\"board printed\">.*?</table>", markup, re.DOTALL):
        assert 'data-kind="measured"' not in table
        assert 'class="rank' not in table


def test_object_page_has_every_value_of_every_view(runs, site):
    # Oracle: videos.parquet.
    text = Page(object_page(site)).text
    of = {path: Run.open(path) for path in runs[:3]}
    for run in of.values():
        for row in run.videos:
            if row["object_id"] == "object-01" and row["variant"] == METHOD:
                card = run.info["cards"][row["metric"]]["card"]
                assert f"{row['value'] * card['scale']:.{card['decimals']}f}" in text
    assert "a fox runs" in text
    rows = [cells for _, cells in Page(object_page(site)).rows]
    [guard] = [cells for cells in rows if "static" in cells[1]]
    assert "Statue" in guard[0]
    assert guard[2].split() == ["a000e+00,", "a090e+00,", "a180e+00,", "a270e+00"]


def test_object_page_says_who_has_no_video_of_it(site):
    # Oracle: the run that lacks the last two objects.
    assert "No video by Half." in Page(object_page(site, "object-05")).text
    assert "No video by" not in Page(object_page(site, "object-00")).text


def test_run_page_tells_where_the_run_comes_from(runs, site):
    # Oracle: run.json, and the guards counted by hand: four views of six objects.
    [path] = (site / "runs").glob("Statue-*.html")
    info, page = read(runs[3]), Page(path)
    for text in (info["hash"], info["protocol"]["hash"][:12], info["created"], "guard static failed on most videos",
                 "no weights openai-clip-vit-b-32"):  # fmt: skip
        assert text in page.text
    [guards] = [cells for _, cells in page.rows if cells and cells[0].strip() == "static"]
    assert [text.strip() for text in guards[1:]] == ["24 of 24", "24 of 24", "0 of 24", "0 of 24", "24 of 24"]
    [first] = (site / "runs").glob(f"Alpha-{read(runs[0])['hash'][:8]}.html")
    assert "12" in Page(first).text
    assert "Our note." in Page(first).text


def test_only_addresses_of_the_web_become_links(runs, site):
    # Oracle: the run's links, one of which would run a script.
    [path] = (site / "runs").glob(f"Alpha-{read(runs[0])['hash'][:8]}.html")
    page = Page(path)
    addresses = {attrs.get("href") for tag, attrs in page.tags if tag == "a"}
    assert "https://example.invalid/paper" in addresses
    assert not any(str(address).startswith("javascript") for address in addresses)
    assert "code: javascript:alert(1)" in page.text


def test_card_page_has_everything_that_decides_a_score(runs, site):
    # Oracle: the card itself and the hash in the run.
    for card in CARDS:
        used = read(runs[0])["cards"][card.name]
        path = site / "metrics" / f"{card.id}-{card.version}-{used['hash'][:8]}.html"
        text = Page(path).text
        for fact in (card.name, card.formula, card.preprocess, card.backbone, *card.failure_modes, used["hash"],
                     *used["weights"].values()):  # fmt: skip
            assert fact in text
        assert path.name in (site / "metrics.html").read_text("utf-8")


def test_cards_of_other_weights_are_pages_of_their_own(tmp_path):
    # Oracle: two hashes, two pages; the table says that they are not ranked together.
    made = [make_run(tmp_path / name, name, seed=seed, objects=3) for seed, name in enumerate(("one", "two"))]
    cards = read(made[1])["cards"]
    cards["lpips_reference@alex"] |= {"weights": {"alexnet": "b" * 64}, "hash": "b" * 64}
    edit(made[1], cards=cards)
    index = build_leaderboard(made, tmp_path / "site")
    assert len(list((index.parent / "metrics").glob("lpips_reference-alex-*.html"))) == 2
    assert "other weights" in Page(index).text


def test_names_of_runs_never_become_markup_or_paths(tmp_path):
    # Oracle: Python's HTML parser; hostile names add no element and no attribute to any page, and no file elsewhere.
    seen = []
    for number, (method, object_id) in enumerate((("harmless", "..fox"), (NASTY, OBJECT))):
        run = make_run(tmp_path / f"run{number}", method, seed=1, objects=3, prompt=method)
        rename_object(run, "object-01", object_id)
        edit(run, note=method, links={method: "https://example.invalid/"})
        index = build_leaderboard([run], tmp_path / "sites" / str(number), title=method)
        found = {}
        for path in pages(index.parent):
            kind = path.relative_to(index.parent).parts[0]
            found.setdefault(kind, []).append([(tag, sorted(attrs)) for tag, attrs in Page(path).tags])
        seen.append({kind: sorted(map(str, tags)) for kind, tags in found.items()})
    assert seen[0] == seen[1]
    assert NASTY in Page(index).text
    assert sorted(path.name for path in (tmp_path / "sites").iterdir()) == ["0", "1"]
    assert all(path.resolve().is_relative_to(index.parent.resolve()) for path in index.parent.rglob("*"))


def test_strips_are_copied_and_played_at_their_own_rate(runs, site):
    # Oracle: the run's media folder, byte for byte, and inputs.parquet.
    [entry] = entries_of([runs[0]])
    strip = entry.strips["object-01"]["a090e+00"]
    assert (site / strip.address).read_bytes() == (runs[0] / "media/object-01/a090e+00.webp").read_bytes()
    assert (strip.frames, strip.fps, strip.ratio) == (16, 8.0, 1.0)


def test_strip_of_a_long_video_keeps_its_duration(tmp_path):
    # Oracle: 16 frames are left of 32 at 8 fps, so they play at 4.
    run = make_run(tmp_path / "run", "long", objects=3)
    table = pq.read_table(run / "inputs.parquet")
    rows = [row | {"frames": 32} for row in table.to_pylist()]
    pq.write_table(type(table).from_pylist(rows, table.schema), run / "inputs.parquet")
    edit(run)
    [entry] = entries_of([run])
    strip = entry.strips["object-00"]["a000e+00"]
    assert strip.frames / strip.fps == pytest.approx(32 / 8)


def test_a_strip_that_is_no_picture_is_left_out(tmp_path):
    # Oracle: a file overwritten by hand.
    run = make_run(tmp_path / "run", "broken", objects=3)
    (run / "media/object-00/a000e+00.webp").write_text("<svg onload='alert(1)'/>")
    (run / "media/object-01/a000e+00.webp").unlink()
    index = build_leaderboard([run], tmp_path / "site")
    names = {
        path.relative_to(index.parent / "media").as_posix().partition("/")[2] for path in index.parent.rglob("*.webp")
    }
    assert len(names) == 3 * 4 - 2
    assert "object-00/a000e+00.webp" not in names


def test_whiskers_stand_where_their_values_are():
    # Oracle: the linear map from the axis to percentages, by hand; six percent are left at each end.
    cells = [Cell(value=0.2, low=0.0, high=0.5), Cell(value=1.0)]
    axis = axis_of(cells)
    assert axis.low == pytest.approx(-0.06)
    assert axis.high == pytest.approx(1.06)
    drawing = whisker(Mark(name="", cells=(cells[0],)), axis)
    at = dict(re.findall(r'(x1|x2|cx)="([\d.]+)%"', drawing.replace('x2="100%"', "")))
    assert float(at["cx"]) == pytest.approx(100 * 0.26 / 1.12, abs=0.01)
    assert float(at["x1"]) == pytest.approx(100 * 0.06 / 1.12, abs=0.01)
    assert float(at["x2"]) == pytest.approx(100 * 0.56 / 1.12, abs=0.01)
    assert axis_of([Cell()]) is None
    assert axis_of([Cell(value=0.0)]).low < 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.1, 77.7), (0.9801, 0.9832), (120, 121), (-1e-6, 2e-6)])
def test_ticks_are_round_and_within(low, high):
    # Oracle: properties.
    ticks = round_ticks(low, high)
    steps = np.diff(ticks)
    assert 2 <= len(ticks) <= 6
    assert low - 1e-12 <= ticks[0]
    assert ticks[-1] <= high + 1e-12
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert f"{steps[0]:.0e}"[0] in "125"


# -- the folder --------------------------------------------------------------------------------------------------------


def test_site_replaces_an_earlier_one_and_nothing_else(runs, tmp_path):
    # Oracle: the listing of the folder.
    out = tmp_path / "out"
    build_leaderboard(runs[:2], out)
    first = sorted(path.relative_to(out) for path in out.rglob("*"))
    build_leaderboard(runs[:1], out)
    assert len(list((out / "runs").iterdir())) == 1
    build_leaderboard(runs[:2], out)
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == first
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        build_leaderboard(runs[:1], foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_a_run_that_was_changed_leaves_an_earlier_site_alone(runs, tmp_path):
    # Oracle: a value changed by hand; the listing before and after.
    out = tmp_path / "out"
    build_leaderboard(runs[:1], out)
    before = sorted(out.rglob("*"))
    changed = tmp_path / "changed"
    shutil.copytree(runs[1], changed)
    table = pq.read_table(changed / "videos.parquet")
    rows = [row | {"value": 1.0} for row in table.to_pylist()]
    pq.write_table(type(table).from_pylist(rows, table.schema), changed / "videos.parquet")
    with pytest.raises(InputError, match="changed after the run"):
        build_leaderboard([runs[0], changed], out)
    with pytest.raises(InputError, match="at least one"):
        build_leaderboard([], out)
    assert sorted(out.rglob("*")) == before


def test_the_same_run_twice_counts_once(runs, tmp_path):
    # Oracle: the same run once.
    again = tmp_path / "again"
    shutil.copytree(runs[1], again)
    assert [entry.name for entry in entries_of([runs[1], again])] == [entry.name for entry in entries_of([runs[1]])]


# -- in a browser ------------------------------------------------------------------------------------------------------

_FRAMES = """[...document.querySelectorAll('.player .stage:not(.absent)')].map(stage => {
  const strip = stage.querySelector('.strip');
  return Math.round(-new DOMMatrix(getComputedStyle(strip).transform).m42 / (strip.offsetHeight / stage.frames));
})"""


def test_index_opens_from_disk_without_a_word_and_asks_for_nothing_else(site, browser):
    # Oracle: Chromium's console and requests.
    browser.open(site / "index.html")
    browser.wait("document.querySelector('.player .stage .strip').naturalWidth > 0")
    assert browser.messages == []
    assert browser.requests
    assert all(address.startswith(site.as_uri()) for address in browser.requests)


def test_sorting_changes_the_order_within_each_group(runs, site, browser):
    # Oracle: eval.ranking's values, sorted by Python; first click is the good direction, the second the other one.
    table = next(t for t in tables([Run.open(run) for run in runs]) if t.protocol["name"] == "threetofour")
    values = {row.method: row.cells["lpips_reference@alex"].value for row in table.rows if row.ranked}
    browser.open(site / "index.html")
    board = f"document.querySelector('#{table.key} .board')"
    order = f"[...{board}.querySelectorAll('tbody.ranked tr')].map(r => r.querySelector('a').textContent)"
    head = f"[...{board}.querySelectorAll('th')].find(h => h.textContent.startsWith('LPIPS'))"
    assert browser.ask(order) == [row.method for row in table.rows if row.ranked]
    browser.ask(f"{head}.querySelector('.sort').click()")
    assert browser.ask(order) == sorted(values, key=values.get)
    assert browser.ask(f"{head}.getAttribute('aria-sort')") == "ascending"
    browser.ask(f"{head}.querySelector('.sort').click()")
    assert browser.ask(order) == sorted(values, key=values.get, reverse=True)
    browser.ask(f"{board}.querySelector('th .sort').click()")
    assert browser.ask(order) == sorted(values, key=str.lower)
    assert browser.ask(f"{board}.querySelectorAll('[aria-sort]').length") == 1
    others = (
        f"[...{board}.querySelectorAll('tbody.unranked tr:not(.group)')].map(r => r.querySelector('a').textContent)"
    )
    assert sorted(browser.ask(others)) == ["Half", "Statue"]


def test_filter_hides_rows(site, browser):
    # Oracle: the names and kinds of the rows.
    browser.open(site / "index.html")
    shown = (
        "[...document.querySelectorAll('.board tbody tr:not(.group)')].filter(r => r.checkVisibility())"
        ".map(r => r.dataset.kind + ' ' + r.dataset.ranked)"
    )

    def choose(kind: str) -> set[str]:
        browser.ask(f"{{const s = document.querySelector('#filters select'); s.value = '{kind}';"
                    " s.dispatchEvent(new Event('input', {bubbles: true}))}")  # fmt: skip
        return set(browser.ask(shown))

    assert choose("") == {"measured 0", "measured 1", "reported 0"}
    assert choose("ranked") == {"measured 1"}
    assert choose("measured") == {"measured 0", "measured 1"}
    assert choose("reported") == {"reported 0"}
    assert choose("") == {"measured 0", "measured 1", "reported 0"}
    browser.ask("document.getElementById('controls').click()")
    assert "control 0" in browser.ask(shown)
    browser.ask("{const f = document.querySelector('#filters [type=search]'); f.value = 'BETA';"
                " f.dispatchEvent(new Event('input', {bubbles: true}))}")  # fmt: skip
    names = shown.replace("r.dataset.kind + ' ' + r.dataset.ranked", "r.dataset.name")
    assert all("beta" in name for name in browser.ask(names))
    assert browser.ask("document.querySelector('#filters output').textContent").startswith("1 measured")
    assert browser.messages == []


def test_further_metrics_show_when_they_are_asked_for(site, browser):
    # Oracle: flicker is no metric of the protocol.
    browser.open(site / "index.html")
    flicker = "[...document.querySelectorAll('.board th')].find(h => h.textContent.startsWith('Flicker'))"
    seen = f"{flicker}.checkVisibility()"
    assert browser.ask(seen) is False
    browser.ask("document.getElementById('further').click()")
    assert browser.ask(seen) is True


def test_clips_of_all_methods_play_in_step(site, browser):
    # Oracle: Chromium; the frame that each strip shows is read from where it stands on the screen.
    browser.open(object_page(site))
    browser.wait("[...document.querySelectorAll('.strip')].every(s => s.naturalWidth > 0)")
    moments = []
    for _ in range(6):
        moments.append(browser.ask(_FRAMES))
        browser.ask("new Promise(done => setTimeout(done, 170))")
    assert all(len(frames) == 5 and len(set(frames)) == 1 for frames in moments)
    assert len({frames[0] for frames in moments}) > 2  # it plays
    browser.ask("document.querySelector('.play').click()")
    still = browser.ask(_FRAMES)
    browser.ask("new Promise(done => setTimeout(done, 400))")
    assert browser.ask(_FRAMES) == still
    scrub = "document.querySelector('.player [type=range]')"
    browser.ask(f"{scrub}.value = '11', {scrub}.dispatchEvent(new Event('input'))")
    assert browser.ask(_FRAMES) == [11] * 5
    assert browser.ask("document.querySelector('.frame').textContent") == "frame 12 of 16"
    assert browser.messages == []


def test_only_the_clips_that_are_shown_are_loaded(site, browser):
    # Oracle: the requests; another view and another object load theirs and no more.
    browser.open(site / "index.html")
    browser.wait("document.querySelector('.player .strip').naturalWidth > 0")

    def loaded() -> set[str]:
        return {"/".join(a.split("/")[-2:]) for a in browser.requests if a.endswith(".webp") and "/Half-" in a}

    player = "[...document.querySelectorAll('.player')].find(p => p.dataset.clips.includes('Half-'))"
    assert loaded() <= {"object-00/a000e+00.webp"}
    browser.ask(
        f"{{const v = {player}.querySelector('.view'); v.value = 'a180e+00'; v.dispatchEvent(new Event('change'))}}"
    )
    browser.wait(f"{player}.querySelector('.strip').getAttribute('src').endsWith('a180e+00.webp')")
    browser.wait(f"![...{player}.querySelectorAll('.stage')].some(s => s.classList.contains('loading'))")
    browser.ask(f"{{const o = {player}.querySelector('.object'); o.value = '5'; o.dispatchEvent(new Event('change'))}}")
    browser.wait(f"![...{player}.querySelectorAll('.stage')].some(s => s.classList.contains('loading'))")
    assert loaded() == {"object-00/a000e+00.webp", "object-00/a180e+00.webp"}  # it has no sixth object
    assert browser.ask(f"{player}.querySelectorAll('.stage.absent').length") == 1
    assert browser.ask(f"{player}.querySelector('.page').getAttribute('href')").endswith("object-05.html")
    assert browser.ask(f"{player}.querySelector('.view').value") == "a180e+00"
    assert browser.messages == []


def test_scatter_draws_every_run_that_has_both(site, browser):
    # Oracle: the number of rows of the table.
    browser.open(site / "index.html")
    browser.ask("document.querySelectorAll('details').forEach(d => { d.open = true })")
    scatter = "[...document.querySelectorAll('.scatter')].find(s => s.dataset.points.includes('Statue'))"
    assert browser.ask(f"{scatter}.querySelectorAll('.dot').length") == 5
    assert browser.ask(f"{scatter}.querySelectorAll('.hollow').length") == 4 * 5
    assert browser.messages == []


def test_pages_fit_a_phone(site, tmp_path):
    # Oracle: Chromium; nothing is wider than a screen of 390 pixels, in the light or in the dark.
    if not find_chromium():
        pytest.skip("no Chromium here; apt-get install -y chromium")
    one_of_each = {path.relative_to(site).parts[0]: path for path in pages(site)}
    with Browser(tmp_path / "profile", width=390, height=844, mobile=True) as browser:
        for path in one_of_each.values():
            browser.open(path, dark=True)
            assert browser.ask("document.documentElement.scrollWidth") == 390, path
        ground = "getComputedStyle(document.documentElement).backgroundColor"
        assert browser.ask(ground) == "rgb(18, 19, 21)"


def test_hostile_names_run_nothing_in_a_browser(tmp_path, browser):
    # Oracle: Chromium; no dialog, no message, the name is on the page as text, and its clips play.
    run = make_run(
        tmp_path / "run", "<script>alert(1)</script>", seed=1, objects=3, prompt="<img src=x onerror=alert(2)>"
    )
    rename_object(run, "object-01", OBJECT)
    index = build_leaderboard([run], tmp_path / "site")
    [page] = index.parent.glob(f"objects/*/{safe_name(OBJECT)}.html")
    for path in (index, page):
        browser.open(path)
        browser.wait("document.querySelector('.player .strip').naturalWidth > 0")
        assert "<script>alert(1)</script>" in browser.ask("document.body.innerText")
        assert browser.messages == []
    assert (
        browser.ask("document.querySelector('.player .strip').naturalHeight")
        == Image.open(next((run / "media" / safe_name(OBJECT)).iterdir())).height
    )
    assert html.unescape(page.read_text("utf-8")).count(OBJECT) > 1
