"""One Blender child for the tests of a module; each test starts where others left it, as clips do in a build."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from render.process import BlenderProcess
from tests.render.studio import still_life, write

NEED_BLENDER = {"test_exr", "test_scene", "test_masks", "test_series", "test_interpolation", "test_process"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("bpy") is not None:
        return
    for item in items:
        if item.path.parent.name == "render" and item.path.stem in NEED_BLENDER:
            item.add_marker(pytest.mark.skip(reason="bpy is not installed"))


@pytest.fixture(scope="module")
def blender() -> Iterator[BlenderProcess]:
    with BlenderProcess() as process:
        yield process


@pytest.fixture(scope="session")
def scene_arrays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What ``blender_scene.py`` writes, of a still life."""
    folder = tmp_path_factory.mktemp("scene")
    asset = write(folder / "still-life.glb", still_life())
    command = [sys.executable, str(Path(__file__).with_name("blender_scene.py")), str(asset), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    with np.load(folder / "result.npz") as data:
        return dict(data)
