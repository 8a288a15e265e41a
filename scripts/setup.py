"""`make setup`: from a bare Python 3.11 to a `.venv` that has everything; a second run has nothing to do.

Runs before anything is installed, so it needs the standard library alone. What bpy links and its wheel does not contain
is read from the table in `mvv/doctor.py`, which is where the list is kept. The choice of a package index, a proxy or a
mirror is left to pip's and apt's own configuration.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["main", "missing_packages", "system_libraries"]

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "setup.stamp"
PYTHON = (3, 11)


class SetupError(Exception):
    """What is missing and what to do about it, in one message."""


def system_libraries(doctor: Path = ROOT / "mvv" / "doctor.py") -> dict[str, str]:
    """Shared library -> Debian package; the literal `SYSTEM_LIBRARIES` of the doctor, read without importing it."""
    for node in ast.parse(doctor.read_text("utf-8")).body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "SYSTEM_LIBRARIES" and node.value:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{doctor}: found no SYSTEM_LIBRARIES, expected a literal dict of that name")


def missing_packages(libraries: dict[str, str]) -> list[str]:
    """Debian packages of what this machine lacks: shared libraries that do not load, and Python's venv."""
    packages = []
    # Debian cuts ensurepip out of its Python; without it `python -m venv` makes an environment that has no pip.
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        packages.append("python{}.{}-venv".format(*PYTHON))
    if platform.system() == "Linux":
        packages += [package for library, package in libraries.items() if not _loads(library)]
    return list(dict.fromkeys(packages))


def main() -> int:
    """Do what is left to do.

    Returns:
        The exit code: 0 when `.venv` is complete, 1 with one message on stderr otherwise.
    """
    start = time.monotonic()
    try:
        _check_python()
        _install_system_packages()
        _make_venv()
        _install_project()
    except SetupError as error:
        print(f"make setup: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        print(f"make setup: `{command}` ended with code {error.returncode}; its output is above", file=sys.stderr)
        return 1
    STAMP.touch()
    print(f"make setup: done in {time.monotonic() - start:.0f} s; {VENV.name}/bin/mvv is ready", flush=True)
    return 0


def _check_python() -> None:
    if sys.version_info[:2] != PYTHON or platform.python_implementation() != "CPython":
        raise SetupError(
            f"found {platform.python_implementation()} {platform.python_version()} ({sys.executable}), expected CPython"
            " 3.11, the only one that Blender 4.5's bpy has wheels for; install it (Debian 12: apt-get install python3)"
            " and name it: make setup PYTHON=/path/to/python3.11"
        )


def _install_system_packages() -> None:
    libraries = system_libraries()
    packages = missing_packages(libraries)
    if not packages:
        return
    line = "apt-get install -y --no-install-recommends " + " ".join(packages)
    if shutil.which("apt-get") is None:
        lacking = [library for library in libraries if not _loads(library)]
        raise SetupError(
            f"found no {', '.join(lacking) or 'venv module'}, expected what bpy links and Python's venv module;"
            f" install the packages of your system for it (Debian's are: {' '.join(packages)}) and repeat"
        )
    if os.geteuid() != 0:
        raise SetupError(
            f"{len(packages)} system packages are missing and only root can install them; run\n"
            f"    sudo apt-get update && sudo {line}\nand repeat"
        )
    print(f"make setup: installing {' '.join(packages)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-q"], environment)
    _run([*line.split(), "-q"], environment)
    importlib.invalidate_caches()
    left = missing_packages(libraries)
    if left:
        raise SetupError(f"{' '.join(left)} still missing after apt-get; install what provides it by hand and repeat")


def _make_venv() -> None:
    python = VENV / "bin" / "python"
    if python.exists():
        probe = f"import sys, pip; sys.exit(sys.version_info[:2] != {PYTHON})"
        if subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0:
            return
    # Left half-made by an interrupted run, moved, or of another Python: nothing in it is worth keeping.
    _run([sys.executable, "-m", "venv", "--clear", VENV])


def _install_project() -> None:
    print("make setup: installing the project and what it needs", flush=True)
    pip = [VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--editable", f"{ROOT}[all]"])


def _run(command: list[str | Path], environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=environment)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
