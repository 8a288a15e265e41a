"""The same clean environment for every test, whoever runs them, and the fixtures that more than one room needs.

The environment is cleaned before anything is collected, because libraries read it when they are imported. Nothing of
the user's home, no Ray cluster, no Blender folders, no colours and no network for Hugging Face libraries gets in.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

SHARED_ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"

KEPT = {"PATH", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "USER", "LOGNAME", "CI"}
KEPT_PREFIXES = ("CUDA_VISIBLE", "NVIDIA_", "COVERAGE_", "PYTEST_")
SET = {
    "LANG": "C.UTF-8",
    "COLUMNS": "120",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Threads that wait for each other sleep: spinning makes torch many times slower where others want the cores.
    "OMP_WAIT_POLICY": "PASSIVE",
}

_outside: dict[str, str] = {}


def pytest_configure() -> None:
    """Swap the environment for a clean one with a home of its own."""
    _outside.update(os.environ)
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    home = tempfile.mkdtemp(prefix="mvv-tests-home-")
    os.environ.clear()
    os.environ.update(kept | SET | {"HOME": home})


def pytest_unconfigure() -> None:
    """Give the environment back and remove the home."""
    home = os.environ.get("HOME", "")
    os.environ.clear()
    os.environ.update(_outside)
    if Path(home).name.startswith("mvv-tests-home-"):
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True)
def _leave_no_trace():
    """What a test does to the environment or the working folder ends with it."""
    environment, folder = dict(os.environ), Path.cwd()
    yield
    os.chdir(folder)
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)


@pytest.fixture(scope="session")
def shared_assets() -> Path:
    """The folder of real assets beside the checkout; tests that want it are skipped where it is not."""
    if not SHARED_ASSETS.is_dir():
        pytest.skip("../shared/assets is not there")
    return SHARED_ASSETS
