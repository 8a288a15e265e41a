"""The study's site: blind, balanced, playing in step, and its answers accepted by the score command."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.study import CRITERIA, Plan, Rules, read_key, score
from eval.study.design import BROKEN
from manifests.errors import InputError
from mvv.study import build_study, study_make, study_score
from mvv.study.build import StudyOptions, key_path
from mvv.study.pictures import broken, grid, save_strip
from tests.eval.tiny_run import make_run
from tests.mvv.browser import Browser, find_chromium

METHODS = ("Zeta4D", "Kappa Mesh", "Omega")
NASTY = """a fox </script><script>alert(1)</script><img src=x onerror="alert(2)"> & 'runs'"""
OPTIONS = StudyOptions(questions_per_rater=3, sheets=9)


def edit(run: Path, **changes: Any) -> Path:
    """Changes keys of run.json, which the hash of the run's tables does not cover."""
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | changes))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = [make_run(folder / name, name, seed=k, objects=4) for k, name in enumerate(METHODS)]
    return [edit(run, references="first-frame") for run in made]


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("study") / "site"
    return build_study(runs, out, OPTIONS).page


@pytest.fixture(scope="module")
def plan(site) -> Plan:
    return read_key(key_path(site.parent))


@pytest.fixture
def browser(tmp_path) -> Iterator[Browser]:
    if not find_chromium():
        pytest.skip("no Chromium here; apt-get install -y chromium")
    with Browser(tmp_path / "profile") as one:
        yield one


def visit(browser: Browser, page: Path, address: str) -> None:
    """Opens the page with an address behind #."""
    browser.open(page)
    browser.ask(f"{{ window.old = true; location.hash = {address!r}; location.reload(); }}")
    browser.wait("window.old === undefined && document.documentElement?.dataset.screen === 'start'")


_CHOOSE = """(ranks) => document.querySelectorAll('#choices fieldset').forEach((set) => {
  const rank = (input) => ranks[input.value] || 0;
  [...set.querySelectorAll('input')].sort((a, b) => rank(b) - rank(a))[0].click();
})"""


def answer(browser: Browser, ranks: dict[str, int] | None = None, *, count: int = 99) -> None:
    """Answers questions by the clip of the highest rank; by the first one where all are equal."""
    if browser.ask("document.documentElement.dataset.screen") == "start":
        browser.ask("document.getElementById('begin').click()")
    for _ in range(count):
        if browser.ask("document.documentElement.dataset.screen") == "end":
            return
        browser.wait("document.documentElement.dataset.shown === document.documentElement.dataset.place")
        browser.ask(f"({_CHOOSE})({json.dumps(ranks or {})})")
        browser.ask("document.getElementById('next').click()")


# -- what the site holds -----------------------------------------------------------------------------------------------


def test_site_says_nothing_of_methods_objects_or_checks(site, runs, plan):
    """Oracle: text search through every byte, every file name and every date of the site."""
    secrets = [
        *METHODS,
        *plan.prompts,
        plan.secret,
        *(json.loads((run / "run.json").read_text())["hash"] for run in runs),
    ]
    files = [path for path in site.parent.rglob("*") if path.is_file()]
    for path in files:
        content = path.name.encode() + path.read_bytes()
        assert not [word for word in secrets if word.encode() in content], path
        assert not [run for run in runs if str(run).encode() in content]
        assert path.stat().st_mtime == files[0].stat().st_mtime
    data = (site.parent / "assets" / "questions.js").read_text()
    assert '"again"' not in data
    assert '"broken"' not in data
    assert not list(site.parent.rglob("*key*"))
    media = {path.stem for path in (site.parent / "media").iterdir()}
    assert media == set(plan.clips) | {plan.name("picture", object_id) for object_id in plan.prompts}


def test_order_differs_between_raters_and_is_balanced(site, plan):
    """Oracle: the data that the page reads, decoded with the key."""
    text = (site.parent / "assets" / "questions.js").read_text()
    data = json.loads(text.removeprefix("window.mvvStudy=").rstrip().removesuffix(";"))
    places, orders = Counter(), set()
    for sheet in data["sheets"]:
        for id, *clips in sheet:
            if plan.questions[id][1] == "asked":
                order = tuple(plan.clips[clip][1] for clip in clips)
                places.update((method, place) for place, method in enumerate(order))
                orders.add(order)
    assert set(places.values()) == {9}  # 9 sheets of 3 questions, 3 places
    assert len(orders) == 6
    assert data["questions"].keys() == {question.id for sheet in plan.sheets for question in sheet}


def test_clips_show_the_frames_of_their_method_in_all_views(site, runs, plan):
    """Oracle: the strips of the run, put together by hand; the coding is lossy twice."""
    id = plan.clip_id("object-02", "Omega")
    strip = np.asarray(Image.open(site.parent / "media" / f"{id}.webp").convert("RGB")).astype(float)
    assert strip.shape == (16 * 96, 96, 3)
    for place, view in enumerate(("a000e+00", "a090e+00", "a180e+00", "a270e+00")):
        source = np.asarray(Image.open(runs[2] / "media" / "object-02" / f"{view}.webp").convert("RGB")).astype(float)
        top, left = place // 2 * 48, place % 2 * 48
        for frame in (0, 7, 15):
            shown = strip[frame * 96 + top : frame * 96 + top + 48, left : left + 48]
            assert np.abs(shown - source[frame * 48 : frame * 48 + 48]).mean() < 6
    still = np.asarray(Image.open(site.parent / "media" / f"{plan.name('picture', 'object-02')}.webp").convert("RGB"))
    assert still.shape == (96, 96, 3)


def test_grid_fills_up_and_broken_clips_keep_their_pixels():
    """Oracle: counting; a long clip is made smaller until WebP takes it."""
    rng = np.random.default_rng(0)
    views = [rng.integers(0, 255, (5, 16, 24, 3), np.uint8) for _ in range(3)]
    whole = grid(views)
    assert whole.shape == (5, 32, 48, 3)
    np.testing.assert_array_equal(whole[:, :16, 24:], views[1])
    assert (whole[:, 16:, 24:] == views[0][0, 0, 0]).all()
    assert grid([views[0]]).shape == (5, 16, 24, 3)
    assert grid([views[0], views[1][:3, ::2, ::2]]).shape == (3, 16, 48, 3)
    bad = broken(views[0], rng)
    np.testing.assert_array_equal(np.sort(bad.ravel()), np.sort(views[0].ravel()))
    assert (bad != views[0]).mean() > 0.9


def test_long_clips_fit_into_a_picture(tmp_path):
    """Oracle: WebP's largest side."""
    save_strip(np.zeros((400, 96, 96, 3), np.uint8), tmp_path / "x.webp")
    with Image.open(tmp_path / "x.webp") as image:
        assert image.size == (40, 16_000)


def test_references_are_taken_from_stills(runs, tmp_path):
    """Oracle: a picture of one colour with a transparent half, over the protocol's white."""
    for object_id in (f"object-{k:02d}" for k in range(4)):
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[:, :32] = (10, 200, 30, 255)
        (tmp_path / "stills" / object_id).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "stills" / object_id / "a090e+00.png")
    made = build_study(runs, tmp_path / "site", OPTIONS, references=[tmp_path / "stills"])
    picture = made.page.parent / "media" / f"{made.plan.name('picture', 'object-01')}.webp"
    shown = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert shown.shape == (48, 48, 3)
    assert np.abs(shown[24, 8] - (10, 200, 30)).max() < 30
    assert np.abs(shown[24, 40] - 255).max() < 12


def test_objects_that_a_method_lacks_are_left_out(runs, tmp_path):
    """Oracle: a run with fewer objects."""
    short = make_run(tmp_path / "short", "Short", seed=9, objects=4, missing_objects=1)
    made = build_study([*runs[:2], short], tmp_path / "site", OPTIONS)
    assert made.left_out == {"object-03": "no clips of Short"}
    assert set(made.plan.prompts) == {"object-00", "object-01", "object-02"}


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("one run", "found 1 methods, expected 2 to 6"),
        ("same method", "found two runs of 'Omega'"),
        ("other protocol", "found the protocol animate3d"),
        ("other set", "found the set tiny"),
        ("no prompt", "found no prompt in the runs"),
        ("no references", "found no picture of the object at rest"),
        ("telling title", "found the method 'Kappa Mesh' in it"),
        ("other files", "found other files"),
    ],
)
def test_studies_that_cannot_be_are_refused(runs, tmp_path, case, found):
    """Oracle: one thing wrong each; nothing is left behind."""
    out, options, chosen = tmp_path / "site", OPTIONS, list(runs)
    if case == "one run":
        chosen = runs[:1]
    elif case == "same method":
        chosen = [runs[2], make_run(tmp_path / "again", "Omega", seed=8, objects=4)]
    elif case == "other protocol":
        chosen = [runs[0], make_run(tmp_path / "p", "P", objects=4, protocol="animate3d")]
    elif case == "other set":
        chosen = [runs[0], make_run(tmp_path / "s", "S", objects=4, set_hash="6" * 64)]
    elif case == "no prompt":
        chosen = [edit(make_run(tmp_path / n, n, seed=k, objects=4), prompts={}) for k, n in enumerate("ab")]
    elif case == "no references":
        chosen = [make_run(tmp_path / n, n, seed=k, objects=4) for k, n in enumerate("ab")]
    elif case == "telling title":
        options = StudyOptions(title="Is kappa-mesh better?")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=found):
        build_study(chosen, out, options)
    assert not key_path(out).exists()


def test_study_whose_key_is_there_is_not_overwritten(runs, tmp_path):
    """Oracle: the bytes of the key."""
    made = build_study(runs, tmp_path / "site", OPTIONS)
    before = made.key.read_bytes()
    with pytest.raises(InputError, match="found the key of a study"):
        build_study(runs, tmp_path / "site", OPTIONS)
    assert made.key.read_bytes() == before
    made.key.unlink()
    again = build_study(runs, tmp_path / "site", OPTIONS)
    assert again.plan.study != made.plan.study
    assert not {path.stem for path in (tmp_path / "site" / "media").iterdir()} & set(made.plan.clips)


# -- in a browser ------------------------------------------------------------------------------------------------------


def test_answers_of_the_page_are_accepted_by_score(site, plan, browser, tmp_path):
    """Oracle: the key; three raters who always pick one method, and one who takes the broken clip too."""
    browser._call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    ranks = {"Omega": 2, BROKEN: 0}
    favourite = {clip: ranks.get(method, 1) for clip, (_, method) in plan.clips.items()}
    spoilt = {clip: rank or 3 for clip, rank in favourite.items()}
    files = []
    for sheet, (rater, choices) in enumerate(zip(("r0", "r1", "r2", "r3"), (favourite,) * 3 + (spoilt,), strict=True)):
        visit(browser, site, f"sheet={sheet}&rater={rater}")
        answer(browser, choices)
        saved = json.loads(browser.ask("document.getElementById('answers').value"))
        assert (saved["rater"], saved["sheet"], len(saved["answers"])) == (rater, sheet, 5)
        assert all(0 <= one["seconds"] < 60 for one in saved["answers"])
        browser.ask("document.getElementById('save').click()")
        files.append(tmp_path / f"answers-{plan.study[:8]}-{rater}.json")
        end = time.monotonic() + 10
        while not files[-1].exists() and time.monotonic() < end:
            time.sleep(0.02)
        assert json.loads(files[-1].read_text()) == saved
    result = score(files, key_path(site.parent), rules=Rules(min_seconds=0.0), draws=100)
    assert result.refused == ()
    assert {rater.id: len(rater.reasons) for rater in result.raters} == {"r0": 0, "r1": 0, "r2": 0, "r3": 1}
    assert {share.share for share in result.shares if share.method == "Omega"} == {1.0}
    assert {share.of for share in result.shares} == {9}
    assert browser.messages == []
    assert all(address.startswith((site.parent.as_uri(), "blob:")) for address in browser.requests)


def test_clips_play_in_step_and_pause(site, browser):
    """Oracle: Chromium; where each strip stands, read in one go."""
    browser.open(site)
    browser.ask("document.getElementById('begin').click()")
    browser.wait("document.documentElement.dataset.shown === '0'")
    stand = (
        "[...document.querySelectorAll('#clips .strip')].map((strip) =>"
        " Math.round(-16 * new DOMMatrix(getComputedStyle(strip).transform).m42 / strip.offsetHeight)).join()"
    )
    seen = set()
    for _ in range(12):
        frames = browser.ask(stand).split(",")
        assert len(frames) == 3
        assert len(set(frames)) == 1
        seen.add(frames[0])
        browser.ask("new Promise((done) => setTimeout(done, 60))")
    assert len(seen) >= 4
    browser.ask("document.getElementById('play').click()")
    browser.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    still = browser.ask(stand)
    browser.ask("new Promise((done) => setTimeout(done, 300))")
    assert browser.ask(stand) == still
    assert browser.ask("document.getElementById('play').textContent") == "Play"


def test_keys_answer_and_go_on(site, browser):
    """Oracle: what is checked; four letters, then Enter."""
    browser.open(site)
    browser.ask("document.getElementById('begin').click()")
    browser.wait("document.documentElement.dataset.shown === '0'")
    press = "document.dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    browser.ask(press % "Enter")
    assert browser.ask("document.documentElement.dataset.place") == "0"  # not before all is answered
    for key in ("b", "c", "A", "f", "b"):  # there is no F
        browser.ask(press % key)
    checked = "[...document.querySelectorAll('#choices input:checked')].map((one) => one.ariaLabel)"
    titles = [criterion.title for criterion in CRITERIA]
    assert browser.ask(checked) == [f"{title}: {letter}" for title, letter in zip(titles, "BCAB", strict=True)]
    assert not browser.ask("document.getElementById('next').disabled")
    browser.ask(press % " ")
    assert browser.ask("document.getElementById('play').textContent") == "Play"
    browser.ask(press % "Enter")
    browser.wait("document.documentElement.dataset.shown === '1'")
    assert browser.ask(checked) == []
    assert browser.messages == []


def test_progress_is_kept_when_the_page_is_left(site, browser):
    """Oracle: the same rater and sheet after a reload; another rater in the address begins anew."""
    visit(browser, site, "")
    answer(browser, count=2)
    before = browser.ask("localStorage.getItem('mvv-study-' + mvvStudy.study)")
    visit(browser, site, "")
    assert browser.ask("document.getElementById('begin').textContent") == "Go on (2 of 5 done)"
    answer(browser)
    saved = json.loads(browser.ask("document.getElementById('answers').value"))
    assert saved["rater"] == json.loads(before)["rater"]
    assert len(saved["answers"]) == 5
    assert len(saved["rater"]) == 16
    visit(browser, site, "rater=somebody")
    assert browser.ask("document.getElementById('begin').textContent") == "Begin"


def test_missing_clip_is_told_and_cannot_be_answered(site, plan, browser, tmp_path):
    """Oracle: a picture taken away."""
    folder = tmp_path / "site"
    shutil.copytree(site.parent, folder)
    (folder / "media" / f"{plan.sheets[0][0].clips[1]}.webp").unlink()
    visit(browser, folder / "index.html", "sheet=0")
    browser.ask("document.getElementById('begin').click()")
    browser.wait("!document.getElementById('broken').hidden")
    browser.ask("document.querySelectorAll('#choices fieldset').forEach((set) => set.querySelector('input').click())")
    assert browser.ask("document.getElementById('next').disabled")


def test_page_fits_a_phone_on_every_screen(site, tmp_path):
    """Oracle: Chromium; nothing is wider than a screen of 390 pixels, and letters are large enough for a finger."""
    if not find_chromium():
        pytest.skip("no Chromium here; apt-get install -y chromium")
    width = "document.documentElement.scrollWidth"
    with Browser(tmp_path / "profile", width=390, height=844, mobile=True) as phone:
        visit(phone, site, "")
        assert phone.ask(width) == 390
        phone.ask("document.getElementById('begin').click()")
        phone.wait("document.documentElement.dataset.shown === '0'")
        assert phone.ask(width) == 390
        smallest = "Math.min(...[...document.querySelectorAll('.picks label')].map((one) => one.offsetHeight))"
        assert phone.ask(smallest) >= 44
        answer(phone)
        phone.ask("document.querySelector('details').open = true")
        assert phone.ask(width) == 390


def test_hostile_prompts_and_titles_run_nothing(tmp_path, browser):
    """Oracle: Chromium; no dialog, no message, and the text is on the page as it is."""
    runs = [
        edit(make_run(tmp_path / n, n, seed=k, objects=3, prompt=NASTY), references="first-frame")
        for k, n in enumerate("xy")
    ]
    page = build_study(
        runs, tmp_path / "site", StudyOptions(title="<b>A</b> $title & more", questions_per_rater=1)
    ).page
    browser.open(page)
    assert browser.ask("document.querySelector('h1').textContent") == "<b>A</b> $title & more"
    browser.ask("document.getElementById('begin').click()")
    browser.wait("document.documentElement.dataset.shown === '0'")
    assert browser.ask("document.getElementById('prompt').textContent") == NASTY
    assert browser.messages == []


# -- commands ----------------------------------------------------------------------------------------------------------


def test_commands_make_and_score(runs, tmp_path, capsys):
    """Oracle: text and exit codes as documented; answers written by hand from the key."""
    out = tmp_path / "site"
    assert study_make(tuple(runs), out=out, options=OPTIONS) == 0
    said = capsys.readouterr().out
    assert "4 objects, 3 methods, 9 sheets of 5 questions" in said
    assert f"--key {key_path(out)}" in said
    plan = read_key(key_path(out))
    (tmp_path / "answers").mkdir()
    for k in range(4):
        given = [
            {"question": q.id, "seconds": 8 + k, "choices": dict.fromkeys((c.id for c in CRITERIA), next(
                clip for clip in q.clips if plan.clips[clip][1] in ("Omega", "Zeta4D")))}
            for q in plan.sheets[k]
        ]  # fmt: skip
        saved = {
            "schema": "mvvideo.study-answers/1",
            "study": plan.study,
            "rater": f"r{k}",
            "sheet": k,
            "answers": given,
        }
        (tmp_path / "answers" / f"{k}.json").write_text(json.dumps(saved))
    (tmp_path / "answers" / "z.json").write_text("{}")
    rules = Rules(min_repeat_agreement=0.0)
    code = study_score((tmp_path / "answers",), key=key_path(out), out=tmp_path / "result.json", rules=rules)
    assert code == 3
    said = capsys.readouterr().out
    assert "4 of 4 raters counted" in said
    assert "refused: z.json: found no answers of schema" in said
    assert "Krippendorff's alpha" in said
    result = json.loads((tmp_path / "result.json").read_text())
    assert {share["method"] for share in result["shares"]} == set(METHODS)
    assert result["refused"][0][0] == "z.json"
    with pytest.raises(InputError, match="RUN: found none"):
        study_make((), out=out)
