"""The user study: balanced sheets that tell nothing, answer files good and bad, shares, intervals and agreement."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.study import CRITERIA, Plan, Rules, fleiss_kappa, krippendorff_alpha, make_plan, read_answers, read_key
from eval.study import score as score_study
from eval.study.design import BROKEN
from eval.study.results import _wilson, write_result
from manifests.errors import InputError

METHODS = ("alpha-net", "beta-net", "gamma-net")
PROMPTS = {f"object-{k:02d}": f"thing {k} walks" for k in range(10)}
SECRET = "5a" * 32
IDS = [criterion.id for criterion in CRITERIA]


def plan(**changes: Any) -> Plan:
    options = {"questions_per_rater": 6, "sheets": 12, "seed": 1, "secret": SECRET}
    return make_plan(changes.pop("methods", METHODS), changes.pop("prompts", PROMPTS), **(options | changes))


Choose = Callable[[str, str, str], str]
"""(object, criterion, rater) -> method."""


def answers(study: Plan, sheet: int, rater: str, choose: Choose, /, **changes: Any) -> dict[str, Any]:
    """What the page saves for a rater who always does what `choose` says."""
    given = []
    for question in study.sheets[sheet]:
        object_id = study.questions[question.id][0]
        clips = {study.clips[clip][1]: clip for clip in question.clips}
        choices = {}
        for criterion in IDS:
            wanted = choose(object_id, criterion, rater)
            choices[criterion] = clips.get(wanted) or next(clip for method, clip in clips.items() if method != BROKEN)
        given.append({"question": question.id, "seconds": 9.5 + len(rater) / 8, "choices": choices})
    made = {"schema": "mvvideo.study-answers/1", "study": study.study, "rater": rater, "sheet": sheet, "answers": given}
    return made | changes


def save(folder: Path, *contents: Any) -> list[Path]:
    paths = []
    for content in contents:
        paths.append(folder / f"a{len(list(folder.iterdir())):03d}.json")
        paths[-1].write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


def key_of(study: Plan, tmp_path: Path) -> Path:
    study.write_key(tmp_path / "key.json")
    return tmp_path / "key.json"


def random_choice(seed: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Choose:
    def choose(object_id: str, criterion: str, rater: str) -> str:
        rng = np.random.default_rng([seed, *map(ord, f"{object_id}/{criterion}/{rater}")])
        return str(rng.choice(METHODS, p=shares))

    return choose


# -- the sheets --------------------------------------------------------------------------------------------------------


def test_sheets_ask_each_object_equally_often():
    """Oracle: counting."""
    for count in (1, 4, 6, 10):
        study = plan(questions_per_rater=count, sheets=7)
        asked = Counter(
            o for sheet in study.sheets for q in sheet for o, kind in [study.questions[q.id]] if kind == "asked"
        )
        assert sum(asked.values()) == 7 * count
        assert max(asked.values()) - min(asked[o] for o in PROMPTS) <= 1
        for sheet in study.sheets:
            kinds = Counter(study.questions[q.id][1] for q in sheet)
            assert kinds == {"asked": count, "again": 1, "broken": 1}
            assert len({study.questions[q.id] for q in sheet}) == count + 2


@pytest.mark.parametrize("methods", [2, 3, 4, 6])
def test_sheets_put_each_method_in_each_place_equally_often(methods):
    """Oracle: counting; within a sheet where the number of objects is a multiple of that of the methods."""
    names = [f"m{k}" for k in range(methods)]
    study = plan(methods=names, questions_per_rater=methods, sheets=20)
    for sheet in study.sheets:
        places = Counter(
            (study.clips[clip][1], place)
            for q in sheet
            if study.questions[q.id][1] == "asked"
            for place, clip in enumerate(q.clips)
        )
        assert set(places.values()) == {1}
        assert len(places) == methods**2


def test_order_differs_between_raters():
    """Oracle: over many sheets every order of three methods comes up for the same object, none much more often."""
    study = plan(sheets=120)
    orders = Counter(
        tuple(study.clips[clip][1] for clip in q.clips)
        for sheet in study.sheets
        for q in sheet
        if study.questions[q.id] == ("object-03", "asked")
    )
    assert set(orders) == set(permutations(METHODS))
    assert max(orders.values()) <= 3 * min(orders.values())


def test_checks_show_an_object_again_and_a_broken_clip_among_real_ones():
    """Oracle: the rules of the design."""
    study = plan()
    for sheet in study.sheets:
        kinds = [study.questions[q.id] for q in sheet]
        assert kinds[-1][1] == "again"
        assert (kinds[-1][0], "asked") in kinds
        [broken] = [q for q in sheet if study.questions[q.id][1] == "broken"]
        shown = [study.clips[clip] for clip in broken.clips]
        assert sum(method == BROKEN for _, method in shown) == 1
        assert len({method for _, method in shown}) == len(METHODS)
        assert {o for o, _ in shown} == {study.questions[broken.id][0]}


def test_names_and_order_say_nothing_without_the_secret():
    """Oracle: text search; and another secret with the same seed gives another order."""
    study, other = plan(), plan(secret="7b" * 32)
    public = json.dumps([[(q.id, q.clips) for q in sheet] for sheet in study.sheets]) + study.study
    assert not [word for word in (*METHODS, *PROMPTS, SECRET) if word in public]
    assert not set(study.clips) & set(other.clips)

    def orders(one: Plan) -> list[list[str]]:
        return [[one.clips[clip][1] for clip in q.clips] for sheet in one.sheets for q in sheet]

    assert orders(study) != orders(other)
    assert orders(study) == orders(plan())
    assert (
        make_plan(METHODS, PROMPTS, questions_per_rater=2).secret
        != make_plan(METHODS, PROMPTS, questions_per_rater=2).secret
    )


def test_key_is_read_as_it_was_written(tmp_path):
    """Oracle: round trip."""
    study = plan(about={"title": "T", "protocol": {"name": "animate3d"}})
    assert read_key(key_of(study, tmp_path)) == study
    with pytest.raises(InputError, match="No such file"):
        read_key(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match="expected the JSON"):
        read_key(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(InputError, match="found schema None"):
        read_key(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"methods": ["a"]}, "found 1 methods, expected 2 to 6"),
        ({"methods": list("abcdefg")}, "found 7 methods"),
        ({"methods": ["a", "b", "a"]}, "two runs of 'a'"),
        ({"methods": ["a", ""]}, "with names"),
        ({"prompts": {}}, "no object that all runs have"),
        ({"questions_per_rater": 0}, "--questions-per-rater: found 0"),
        ({"sheets": 0}, "--sheets: found 0"),
    ],
)
def test_impossible_plans_are_refused(changes, found):
    with pytest.raises(InputError, match=found):
        plan(**changes)


# -- answers -----------------------------------------------------------------------------------------------------------


def test_shares_are_those_of_plain_counting(tmp_path):
    """Oracle: a loop over what was chosen; the order of the files does not matter."""
    study, choose = plan(), lambda o, c, r: METHODS[(int(o[-2:]) + len(c) + len(r)) % 3]
    files = save(tmp_path, *(answers(study, k % 12, "r" * (k + 1), choose) for k in range(15)))
    key = key_of(study, tmp_path)
    result = score_study(files, key, draws=200)
    wanted = Counter()
    for k in range(15):
        for q in study.sheets[k % 12]:
            o, kind = study.questions[q.id]
            if kind == "asked":
                wanted.update((c, choose(o, c, "r" * (k + 1))) for c in IDS)
    assert {(s.criterion, s.method): s.votes for s in result.shares} == {
        (c, m): wanted[c, m] for c in IDS for m in METHODS
    }
    for share in result.shares:
        assert share.of == 15 * 6
        assert share.share == share.votes / share.of
        assert share.low <= share.share <= share.high
    assert result == score_study(files[::-1], key, draws=200)
    assert (result.counted_raters, result.counted_objects, result.not_available) == (15, 10, "")
    assert result.refused == ()
    for difference in result.differences:
        one, two = (wanted[difference.criterion, name] / 90 for name in (difference.first, difference.second))
        assert difference.difference == pytest.approx(one - two, abs=1e-12)


def test_unanimous_raters_agree_fully_and_leave_no_doubt(tmp_path):
    """Oracle: the definitions."""
    study = plan()
    files = save(tmp_path, *(answers(study, k, f"r{k}", lambda o, c, r: METHODS[int(o[-1]) % 2]) for k in range(8)))
    result = score_study(files, key_of(study, tmp_path), draws=200)
    assert list(result.kappa.values()) == pytest.approx([1.0] * 4)
    assert list(result.alpha.values()) == pytest.approx([1.0] * 4)
    never = [share for share in result.shares if share.method == METHODS[2]]
    assert {(share.share, share.low, share.high) for share in never} == {(0.0, 0.0, 0.0)}
    assert all(share.wilson_high > 0.03 for share in never)  # which is why Wilson's stands beside it


@pytest.mark.parametrize(("raters", "objects", "why"), [(2, 10, "2 raters"), (4, 2, "2 objects")])
def test_too_few_give_shares_and_nothing_else(tmp_path, raters, objects, why):
    """Oracle: the rule; the file says null and why."""
    study = plan(prompts=dict(list(PROMPTS.items())[:objects]))
    files = save(tmp_path, *(answers(study, k, f"r{k}", random_choice(k)) for k in range(raters)))
    result = score_study(files, key_of(study, tmp_path), rules=Rules(min_repeat_agreement=0.0))
    assert why in result.not_available
    assert set(result.kappa.values()) == set(result.alpha.values()) == {None}
    assert {(share.low, share.high) for share in result.shares} == {(None, None)}
    assert sum(share.share for share in result.shares) == pytest.approx(4.0)
    write_result(result, tmp_path / "result.json")
    saved = json.loads((tmp_path / "result.json").read_text())
    assert saved["schema"] == "mvvideo.study-result/1"
    assert saved["kappa"]["motion"] is None
    assert why in saved["not_available"]


def test_raters_who_fail_a_check_are_left_out_with_the_reason(tmp_path):
    """Oracle: raters made to fail one check each; the shares are those of the other raters."""
    study = plan()
    steady = lambda o, c, r: METHODS[0]  # noqa: E731
    good = [answers(study, k, f"good{k}", steady) for k in range(4)]
    careless, blind, hasty, unfinished = (
        answers(study, 5, name, steady) for name in ("careless", "blind", "hasty", "half")
    )
    for answer in careless["answers"]:
        if study.questions[answer["question"]][1] == "again":
            clips = next(q.clips for q in study.sheets[5] if q.id == answer["question"])
            other = next(clip for clip in clips if study.clips[clip][1] == METHODS[1])
            answer["choices"] |= dict.fromkeys(IDS[:3], other)
    for answer in blind["answers"]:
        if study.questions[answer["question"]][1] == "broken":
            clips = next(q.clips for q in study.sheets[5] if q.id == answer["question"])
            answer["choices"]["motion"] = next(clip for clip in clips if study.clips[clip][1] == BROKEN)
    for answer in hasty["answers"]:
        answer["seconds"] = 0.4
    unfinished["answers"] = unfinished["answers"][:3]
    for k, one in enumerate((careless, blind, hasty, unfinished)):
        one["answers"][0]["seconds"] += 0.01 * k  # no copies of each other
    result = score_study(save(tmp_path, *good, careless, blind, hasty, unfinished), key_of(study, tmp_path), draws=100)
    reasons = {rater.id: rater.reasons for rater in result.raters}
    assert [reasons[f"good{k}"] for k in range(4)] == [()] * 4
    assert reasons["careless"] == ("judged an object shown again alike on 25% of the criteria only",)
    assert reasons["blind"] == ("called a broken clip the best on 1 of 4 criteria",)
    assert reasons["hasty"] == ("took 0.4 s a question",)
    assert reasons["half"][0] == "left 5 of 8 questions open"
    assert result.counted_raters == 4
    assert {share.of for share in result.shares} == {4 * 6}


def test_bad_files_are_refused_with_the_reason_and_the_rest_is_used(tmp_path):
    """Oracle: files edited by hand, one mistake each."""
    study, other = plan(), plan(secret="11" * 32)
    good = [answers(study, k, f"r{k}", random_choice(k)) for k in range(4)]
    foreign_clip = answers(study, 1, "c", random_choice(9))
    foreign_clip["answers"][0]["choices"]["text"] = next(iter(other.clips))
    twice = answers(study, 1, "d", random_choice(9))
    twice["answers"].append(twice["answers"][0])
    lacking = answers(study, 1, "e", random_choice(9))
    del lacking["answers"][0]["choices"]["motion"]
    slow = answers(study, 1, "f", random_choice(9))
    slow["answers"][0]["seconds"] = math.nan
    bad = {
        "answers to study": answers(other, 0, "a", random_choice(9)),
        "which sheet 1 does not have": answers(study, 0, "b", random_choice(9), sheet=1),
        "which did not show it": foreign_clip,
        "twice": twice,
        "without all of": lacking,
        "nan seconds": slow,
        "no JSON": "{" * 20,
        "no answers of schema": {"schema": "else"},
        "no rater's id": answers(study, 0, "", random_choice(9)),
        "expected 0 to 11": answers(study, 0, "g", random_choice(9), sheet=12),
        "no list of answers": answers(study, 0, "h", random_choice(9), answers={}),
        "the same rater as in a000.json": answers(study, 3, "r0", random_choice(8)),
        "the same answers as in a001.json": good[1] | {"rater": "somebody else"},
    }  # fmt: skip
    files = save(tmp_path, *good, *bad.values())
    read = read_answers(files, study, Rules(min_repeat_agreement=0.0))
    assert [rater.id for rater in read.raters] == ["r0", "r1", "r2", "r3"]
    assert [name for name, _ in read.refused] == [path.name for path in files[4:]]
    for (name, reason), found in zip(read.refused, bad, strict=True):
        assert found in reason, (name, reason)
    key = key_of(study, tmp_path)
    with pytest.raises(InputError, match=r"no file that can be used.*\na004\.json: found answers to study"):
        score_study(files[4:6], key)
    with pytest.raises(InputError, match="found none"):
        score_study([], key)
    assert read_answers([tmp_path / "gone.json"], study).refused[0][1].startswith("found No such file")


# -- statistics --------------------------------------------------------------------------------------------------------


def table(rows: list[list[Any]]) -> np.ndarray:
    """(item, category) counts of a (rater, item) table, None where a rater did not judge."""
    categories = sorted({value for row in rows for value in row if value is not None})
    return np.array([[sum(row[k] == c for row in rows) for c in categories] for k in range(len(rows[0]))])


def test_fleiss_kappa_of_the_published_example():
    """Oracle: Fleiss (1971) by way of its usual worked example, 14 raters, 10 items, 5 categories: 0.210."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(np.array(counts)) == pytest.approx(0.210, abs=5e-4)


@pytest.mark.parametrize(
    ("rows", "alpha"),
    [
        (["0100000010", "1110010000"], 0.095),
        (["aabbdcccedda", "babbbcccedd" + "d"], 0.692),
        (["123321412...", "123322412" + "5.3", ".333234225" + "1.", "12332441251" + "."], 0.743),
    ],
)
def test_krippendorff_alpha_of_the_published_examples(rows, alpha):
    """Oracle: the worked examples of Krippendorff's Computing Alpha-Reliability (2011): two raters, four with gaps."""
    values = [[None if value == "." else value for value in row] for row in rows]
    assert krippendorff_alpha(table(values)) == pytest.approx(alpha, abs=5e-4)


def test_agreement_equals_counting_pairs():
    """Oracle: slow versions that go over every pair of judgements, on random tables with gaps."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows = rng.integers(0, 3, (5, 8)).astype(object)
        rows[rng.uniform(size=rows.shape) < 0.2] = None
        counts = table(rows.tolist())
        pairs, agreements = 0.0, 0.0
        item_means, pooled = [], []
        for item in rows.T:
            given = [value for value in item if value is not None]
            if len(given) < 2:
                continue
            same = [a == b for i, a in enumerate(given) for j, b in enumerate(given) if i != j]
            pairs += len(given)
            agreements += sum(same) / (len(given) - 1)
            item_means.append(np.mean(same))
            pooled += given
        chance = np.mean([a == b for i, a in enumerate(pooled) for j, b in enumerate(pooled) if i != j])
        assert krippendorff_alpha(counts) == pytest.approx(1 - (1 - agreements / pairs) / (1 - chance), abs=1e-12)
        chance = np.mean([a == b for a in pooled for b in pooled])
        assert fleiss_kappa(counts) == pytest.approx((np.mean(item_means) - chance) / (1 - chance), abs=1e-12)


def test_agreement_is_none_where_it_means_nothing():
    """Oracle: nobody judged twice; all judgements alike."""
    for counts in ([[1, 0], [0, 1]], [[3, 0], [3, 0]], np.zeros((0, 2))):
        assert fleiss_kappa(np.array(counts)) is None
        assert krippendorff_alpha(np.array(counts)) is None


def test_wilson_of_the_published_example():
    """Oracle: R. Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 gives 0.2553 to 0.3662."""
    assert _wilson(81, 263) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


def test_intervals_equal_drawing_raters_and_objects_one_by_one(tmp_path):
    """Oracle: a slow bootstrap with lists; the quantiles of two streams of draws agree."""
    study = plan(sheets=12)
    files = save(tmp_path, *(answers(study, k, f"r{k}", random_choice(k)) for k in range(9)))
    rules = Rules(min_repeat_agreement=0.0)
    result = score_study(files, key_of(study, tmp_path), rules=rules, draws=4000)
    votes = [j for j in read_answers(files, study, rules).judgements if j.criterion == "motion"]
    rng, drawn = np.random.default_rng(5), []
    raters, objects = sorted({j.rater for j in votes}), sorted({j.object_id for j in votes})
    chosen = {(j.rater, j.object_id): j.method for j in votes}
    for _ in range(1500):
        some = [raters[k] for k in rng.integers(len(raters), size=len(raters))]
        things = [objects[k] for k in rng.integers(len(objects), size=len(objects))]
        found = [chosen[r, o] for r in some for o in things if (r, o) in chosen]
        drawn.append(found.count(METHODS[0]) / len(found))
    [share] = [s for s in result.shares if (s.criterion, s.method) == ("motion", METHODS[0])]
    assert (share.low, share.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)


def test_intervals_cover_the_truth_where_raters_and_objects_differ(tmp_path):
    """Oracle: simulation with known shares and strong tastes of raters and objects; Wilson's is too narrow there."""
    from eval.study.results import _interval, _weights

    rng = np.random.default_rng(0)
    hits, wilson, runs = 0, 0, 150
    for _ in range(runs):
        taste = 0.5 + 0.25 * rng.standard_normal(12)[:, None] + 0.25 * rng.standard_normal(10)[None]
        votes = (rng.uniform(size=taste.shape) < taste).astype(float)
        by_rater, by_object = _weights(12, 10, 400, rng)
        sums = np.einsum("br,ro,bo->b", by_rater, votes, by_object, optimize=True)
        low, high = _interval(sums / (by_rater.sum(1) * by_object.sum(1)))
        hits += low <= 0.5 <= high
        under, over = _wilson(votes.sum(), votes.size)
        wilson += under <= 0.5 <= over
    assert 0.92 <= hits / runs <= 1.0
    assert wilson / runs < 0.85
