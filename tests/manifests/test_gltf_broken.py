"""Broken files end with their own reasons in bounded memory and time; fuzzed ones end as an asset or `Rejected`."""

from __future__ import annotations

import copy
import os
import random
import time
import tracemalloc

import numpy as np
import pytest

from manifests.errors import Rejected
from manifests.gltf import Asset, Limits, Poser, read, read_bytes, static_glb
from tests.broken import join_glb, make_broken, small_asset, split_glb
from tests.manifests.gltf_samples import everything

MEMORY = 96 * 2**20
SECONDS = 5.0


def outcome(call) -> str:
    """The reason of a call, "" where it gives something."""
    try:
        call()
    except Rejected as error:
        return error.reason
    return ""


def test_broken_files_are_rejected_with_their_own_reason(tmp_path):
    """Oracle: the list in tests/broken.py, written with the files."""
    cases = make_broken(tmp_path)
    assert len(cases) >= 80
    wrong = {}
    for case in cases:
        found = outcome(lambda case=case: read(case.path))
        expected = case.reason if case.level == "asset" else ""
        if found != expected:
            wrong[case.path.name] = (found, expected)
    assert not wrong


def test_broken_files_cost_little(tmp_path):
    """Oracle: tracemalloc, which sees numpy's and Python's allocations, and the clock."""
    costly = {}
    for case in make_broken(tmp_path):
        start = time.perf_counter()
        tracemalloc.start()
        outcome(lambda case=case: read(case.path))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        seconds = time.perf_counter() - start
        if peak > MEMORY or seconds > SECONDS:
            costly[case.path.name] = (peak, seconds)
    assert not costly


def test_good_odd_files_pose_and_become_static(tmp_path):
    """Oracle: none; odd names and external images must go all the way through."""
    for case in make_broken(tmp_path):
        if not case.reason:
            poser = Poser(read(case.path))
            positions = [array[0] for array in poser.positions(0, np.array([0.5]))]
            assert read_bytes(static_glb(poser, positions)).images[0].width == 8


def test_external_files_enter_the_fingerprint(tmp_path):
    """Oracle: property; the fingerprint changes with an external file and with nothing else."""
    make_broken(tmp_path)
    path = tmp_path / "external" / "asset.gltf"
    first = read(path)
    assert [uri for uri, _ in first.files] == ["t%C3%AAte%20%231.png"]
    assert read(path).sha256 == first.sha256
    (image,) = path.parent.glob("*.png")
    image.write_bytes(image.read_bytes() + b"\0")
    assert read(path).sha256 != first.sha256


def test_pipes_are_refused_and_not_waited_for(tmp_path):
    """Oracle: property; opening a pipe without a writer would block for ever."""
    os.mkfifo(tmp_path / "pipe.glb")
    assert outcome(lambda: read(tmp_path / "pipe.glb")) == "unreadable"
    (tmp_path / "asset").mkdir()
    os.mkfifo(tmp_path / "asset" / "pipe.png")
    document, binary = split_glb(small_asset().to_bytes())
    document["images"] = [{"uri": "pipe.png"}]
    (tmp_path / "asset" / "a.glb").write_bytes(join_glb(document, binary))
    assert outcome(lambda: read(tmp_path / "asset" / "a.glb")) == "texture-missing"


def test_limits_are_honoured_one_by_one():
    """Oracle: property; each limit set to one less than the file needs is the one that is hit."""
    data = everything()
    asset = read_bytes(data)
    for name, value in {"vertices": 3, "triangles": 1, "keyframes": 2, "nodes": 1, "depth": 1, "morph_vertices": 3,
                        "parts": 1, "joints": 1, "images": 0, "image_pixels": 3, "json_bytes": 100, "file_bytes": 100,
                        "indices": 3, "morph_targets": 1}.items():  # fmt: skip
        reason = outcome(lambda name=name, value=value: read_bytes(data, limits=Limits(**{name: value})))
        assert reason in {"too-large", "node-too-deep", "texture-too-large"}, name
    assert isinstance(asset, Asset)


def use(data: bytes) -> str:
    """Everything that later stages do with an asset; only `Rejected` may come out."""

    def call() -> None:
        asset = read_bytes(data)
        poser = Poser(asset)
        for animation in asset.animations[:3]:
            times = np.linspace(animation.start_s, animation.end_s, 3)
            positions, normals = poser.positions(animation.index, times), poser.normals(animation.index, times)
            static_glb(poser, [p[0] for p in positions], [None if n is None else n[0] for n in normals])

    return outcome(call)


STRANGE = [
    None, True, False, -1, 0, 1, 2, 3, 7, 255, 65536, 2**31, 2**63, 10**400, 0.5, -0.5, 1e300, 1e308, "", "x",
    "LINEAR", "VEC3", "..", "\ud800", [], [0], [[]], [None], {}, {"a": 1}, [1e39] * 3, [0] * 16, ["x"] * 3,
    5121, 5125, 5126,
]  # fmt: skip


def places(document) -> list[tuple]:
    """Paths to every value in a JSON document."""
    found, stack = [], [((), document)]
    while stack:
        path, value = stack.pop()
        found.append(path)
        if isinstance(value, dict):
            stack += [((*path, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            stack += [((*path, i), item) for i, item in enumerate(value)]
    return [path for path in found if path]


@pytest.mark.parametrize("seed", range(4))
def test_mutated_json_gives_an_asset_or_a_rejection(seed):
    """Oracle: property; any other exception fails the test. Each value is replaced, deleted or duplicated."""
    rng = random.Random(seed)
    document, binary = split_glb(everything())
    every = places(document)
    for path in rng.sample(every, min(len(every), 400)):
        changed = copy.deepcopy(document)
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        if rng.random() < 0.15:
            del holder[path[-1]]
        else:
            holder[path[-1]] = rng.choice(STRANGE)
        use(join_glb(changed, binary))


def test_mutated_bytes_give_an_asset_or_a_rejection():
    """Oracle: property; bytes are flipped in the whole file, and the file is cut at every boundary and between."""
    rng = random.Random(5)
    data = everything()
    size = int.from_bytes(data[12:16], "little")
    for end in {*range(40), *range(20 + size - 4, 20 + size + 16), *(rng.randrange(len(data)) for _ in range(50))}:
        assert use(data[:end]) in {"truncated", "empty-file"}
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.choice([1, 4, 40])):
            changed[rng.randrange(20 + size if rng.random() < 0.3 else len(data))] = rng.randrange(256)
        use(bytes(changed))
    for _ in range(300):  # the binary chunk alone, so that the JSON still parses
        changed = bytearray(data)
        for _ in range(8):
            changed[rng.randrange(28 + size, len(data))] = rng.choice([0, 127, 128, 255, rng.randrange(256)])
        use(bytes(changed))
