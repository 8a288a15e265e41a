"""The evaluation set: its file, its hash, the small set of procedural objects and the recipe of the public one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random

import pandas as pd
import pytest

from eval.evalset import EVALSET, Entry, EvalSet, read_evalset, small_set, write_evalset
from eval.inputs import read_prompts, safe_name
from eval.recipe import Annotation, assemble, read_annotations, read_recipe, select
from manifests.errors import InputError
from pipelines.intake import asset_id
from pipelines.procedural import FAMILIES


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def small() -> EvalSet:
    return small_set((family, 0, sha(family)) for family in FAMILIES)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_set_is_read_back(tmp_path):
    """Round trip, and against pandas; every column has its description."""
    path = tmp_path / "evalset.parquet"
    write_evalset(path, small())
    assert read_evalset(path) == small()
    table = pd.read_parquet(path)
    assert list(table.columns) == EVALSET.names
    assert table.prompt[0] == small().entries[0].prompt
    assert all(len(field.metadata[b"description"]) > 5 for field in EVALSET)
    assert read_prompts(path) == small().prompts


def test_same_set_gives_the_same_file_and_hash_in_any_order(tmp_path):
    """Against a shuffled copy; any changed field changes the hash."""
    entries = list(small().entries)
    random.Random(0).shuffle(entries)
    shuffled = EvalSet(tuple(entries))
    assert shuffled.hash == small().hash
    for name, evalset in (("a", small()), ("b", shuffled)):
        write_evalset(tmp_path / name, evalset)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    first = small().entries[0]
    hashes = {small().hash, EvalSet(small().entries[1:]).hash}
    for field, value in (("object_id", "x"), ("uri", "x"), ("sha256", "0" * 64), ("license", "x"), ("word", "a")):
        changed = dataclasses.replace(first, **{field: value})
        hashes.add(EvalSet((changed, *small().entries[1:])).hash)
    hashes.add(EvalSet(tuple(dataclasses.replace(entry, version="2") for entry in small().entries)).hash)
    assert len(hashes) == 8


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sha256": "abc"}, "sha256 'abc'"), ({"prompt": " "}, "prompt ' '"), ({"word": "cat"}, "word 'cat'"),
        ({"version": "other"}, "versions"), ({"object_id": "fox-1"}, "fox-1 twice"), ({"license": ""}, "license ''"),
    ],
)  # fmt: skip
def test_rows_that_are_no_set_are_refused(change, word, tmp_path):
    """Each fault is named, with the file when it is read."""
    one = Entry(
        object_id="fox-1", uri="u", sha256=sha("fox"), license="CC0-1.0", prompt="a Fox runs", word="fox", version="v-1"
    )
    rows = [dataclasses.asdict(entry) for entry in (one, dataclasses.replace(one, **{"object_id": "fox-2", **change}))]
    with pytest.raises(InputError, match=word):
        EvalSet(tuple(Entry(**row) for row in rows))
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet"):
        read_evalset(tmp_path / "a.parquet")


def test_missing_foreign_and_empty_files_are_refused(tmp_path):
    """No file, no Parquet, another table, no row."""
    (tmp_path / "text.parquet").write_text("x")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    for name in ("none", "text", "other"):
        with pytest.raises(InputError, match=rf"{name}\.parquet"):
            read_evalset(tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match="no object"):
        EvalSet(())


# -- the small set -----------------------------------------------------------------------------------------------------


def test_small_set_names_objects_as_datasets_do():
    """Against the intake of `mvv build`, for every family that there is."""
    assert len(small().entries) == len(FAMILIES) >= 12
    expected = {asset_id(f"{family}-000", sha(family)) for family in FAMILIES}
    assert set(small().objects) == expected
    assert all(safe_name(name) == name for name in expected)
    assert small().name == "mvvideo-small-1"
    assert {entry.license for entry in small().entries} == {"CC0-1.0"}
    assert {entry.uri for entry in small().entries} == {f"procedural:{family}?seed=0" for family in FAMILIES}


def test_small_set_prompts_are_sentences_of_their_own():
    """One prompt a family, with its word, none twice."""
    prompts = list(small().prompts.values())
    assert len({prompt for prompt, _ in prompts}) == len(prompts)
    assert all(len(prompt.split()) >= 5 and word in prompt for prompt, word in prompts)


def test_family_without_a_prompt_is_refused():
    """The message lists those that have one."""
    with pytest.raises(InputError, match="'dragon', expected one of quadruped"):
        small_set([("dragon", 0, sha("dragon"))])


# -- the public set ----------------------------------------------------------------------------------------------------


def annotations(count: int = 400) -> list[Annotation]:
    """Made-up objects of both sources, half of them with a licence or animations that do not do."""
    draw = random.Random(1)
    licenses = {"objaverse": ["by", "cc0", "by-nc", "by-sa"], "gso": ["CC-BY-4.0", "unknown"]}
    return [
        Annotation(
            uid=f"{source}{k:04d}", source=source, name=f"thing {k}", license=draw.choice(licenses[source]),
            uri=f"https://example.org/{source}/{k}", category=f"kind {draw.randrange(60)}",
            animations=draw.randrange(3) if source == "objaverse" else 0,
        )
        for source in licenses
        for k in range(count)
    ]  # fmt: skip


def test_selection_obeys_the_recipe_and_no_order():
    """Against the recipe's own words, and a shuffled list."""
    rows, recipe = annotations(), read_recipe()
    chosen = select(rows)
    shuffled = rows[:]
    random.Random(2).shuffle(shuffled)
    assert select(shuffled) == chosen
    assert len(chosen) == 50
    assert [sum(entry.source == source for entry in chosen) for source in ("objaverse", "gso")] == [30, 20]
    assert {recipe.licenses[entry.license] for entry in chosen} == {"CC0-1.0", "CC-BY-4.0"}
    assert all(entry.animations >= 1 for entry in chosen if entry.source == "objaverse")
    categories = [entry.category for entry in chosen]
    assert max(categories.count(name) for name in categories) == 2


def test_selection_changes_little_with_more_objects():
    """A keyed hash order: one object more displaces at most a few."""
    rows = annotations()
    new = Annotation(uid="new", source="objaverse", name="", license="by", uri="u", category="kind 1", animations=1)
    assert len(set(select(rows)) & set(select([*rows, new]))) >= 48


def test_excluded_objects_are_never_drawn():
    """Consistent4D's seven, offered as the only ones."""
    recipe = read_recipe()
    assert len(set(recipe.excluded)) == 7
    rows = [dataclasses.replace(annotations()[0], uid=uid, license="by", animations=1) for uid in recipe.excluded]
    with pytest.raises(InputError, match="0 fit objects of objaverse, expected 30"):
        select(rows)


def test_annotations_are_read_in_the_sources_forms(tmp_path):
    """Objaverse's dict of uids with tags as objects, a list, and Parquet by another writer."""
    objaverse = {
        "u1": {
            "name": "Fox", "license": "by", "viewerUrl": "https://example.org/u1", "animationCount": 2,
            "tags": [{"name": "zoo"}, {"name": "Animal"}], "categories": [],
        }
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(objaverse))
    expected = Annotation(
        uid="u1",
        source="objaverse",
        name="Fox",
        license="by",
        uri="https://example.org/u1",
        category="animal",
        animations=2,
    )
    assert read_annotations(tmp_path / "a.json", "objaverse") == [expected]
    flat = {
        "uid": "u1",
        "name": "Fox",
        "license": "by",
        "uri": "https://example.org/u1",
        "category": "animal",
        "animations": 2,
    }
    (tmp_path / "b.json").write_text(json.dumps([flat]))
    pd.DataFrame([flat]).to_parquet(tmp_path / "c.parquet")
    for name in ("b.json", "c.parquet"):
        assert read_annotations(tmp_path / name, "objaverse") == [expected]
    for name, text in (
        ("none.json", None),
        ("bad.json", "{"),
        ("number.json", "3"),
        ("no-uid.json", '[{"name": "x"}]'),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            read_annotations(tmp_path / name, "objaverse")


def test_public_set_is_assembled_from_hashes_and_prompts():
    """Each object with its SPDX licence; a missing prompt is named."""
    chosen = select(annotations())
    hashes = {entry.uid: sha(entry.uid) for entry in chosen}
    prompts = {entry.uid: ("a thing spins", "thing") for entry in chosen}
    evalset = assemble(chosen, hashes, prompts)
    assert (evalset.name, len(evalset.entries)) == ("mvvideo-public-1", 50)
    assert {entry.license for entry in evalset.entries} <= {"CC0-1.0", "CC-BY-4.0"}
    assert evalset.sha256 == hashes
    del prompts[chosen[3].uid]
    with pytest.raises(InputError, match=f"no prompt of {chosen[3].uid}"):
        assemble(chosen, hashes, prompts)
