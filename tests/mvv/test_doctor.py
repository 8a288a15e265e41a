"""The doctor: what it finds, what it says where something is missing, and that nothing it asks can hang it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from mvv import doctor as module
from mvv.doctor import PACKAGES, SYSTEM_LIBRARIES, Check, diagnose, doctor


@pytest.fixture(scope="module")
def checks(tmp_path_factory) -> dict[str, Check]:
    """One look at this machine, by name."""
    return {check.name: check for check in diagnose(tmp_path_factory.mktemp("out"))}


def printed(monkeypatch, checks: list[Check]) -> tuple[int, str]:
    """Exit code and text of a doctor who found this."""
    monkeypatch.setattr(module, "diagnose", lambda *_, **__: checks)
    console = Console(file=io.StringIO(), width=100)
    return doctor(console=console), console.file.getvalue()


def test_doctor_reports_the_versions_that_are_installed(checks):
    # Oracle: the interpreter and the package metadata.
    assert checks["python"].found.startswith(platform.python_version())
    for package in PACKAGES:
        try:
            assert checks[package].found == importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            assert not checks[package].ok


def test_doctor_asks_blender_without_importing_it(checks):
    # Oracle: the module table of this process, and the version of the wheel.
    if not checks["bpy"].ok:
        pytest.skip("bpy is not installed")
    assert "bpy" not in sys.modules
    assert checks["import bpy"].found.startswith(checks["bpy"].found)
    assert checks["Cycles on the CPU"].ok


def test_doctor_finds_webp_lossless(checks):
    assert checks["lossless WebP"].ok


def test_every_missing_thing_that_is_needed_has_a_remedy(checks):
    # Oracle: the checks as they are, with nothing there.
    for check in checks.values():
        assert check.found
        if check.required and not check.ok:
            assert check.remedy, check.name


def test_system_libraries_are_all_that_bpy_links():
    # Oracle: ldd on bpy's own library; what it finds outside the wheel and outside libc's packages is in the list.
    spec = importlib.util.find_spec("bpy")
    if spec is None or platform.system() != "Linux":
        pytest.skip("bpy is not installed")
    answer = subprocess.run(["ldd", spec.origin], capture_output=True, text=True, check=False)
    linked = {line.split()[0]: line for line in answer.stdout.splitlines() if "=>" in line}
    outside = {name for name, line in linked.items() if "bpy" not in line.partition("=>")[2]}
    known = ("libc.", "libm.", "libdl.", "librt.", "libutil.", "libpthread.", "libgcc_s.", "libstdc++.")
    # Packages of the list bring these with them.
    brought = (
        "libxcb.",
        "libXext.",
        "libXau.",
        "libXdmcp.",
        "libuuid.",
        "libbsd.",
        "libmd.",
        "libGLdispatch.",
        "libGLX.",
    )
    unknown = {name for name in outside if not name.startswith((*known, *brought))}
    assert unknown <= set(SYSTEM_LIBRARIES), unknown


def test_exit_code_is_zero_exactly_when_everything_needed_is_there(monkeypatch):
    # Oracle: the rule itself on the four combinations.
    for required in (True, False):
        for ok in (True, False):
            check = Check(group="G", name="thing", found="x", ok=ok, required=required, remedy="do this")
            code, text = printed(monkeypatch, [check])
            assert code == int(required and not ok)
            assert ("do this" in text) == (not ok)
            assert ("cannot run here" in text) == (required and not ok)


def test_missing_library_is_named_with_its_package(monkeypatch):
    # Oracle: the table of Debian's package names.
    monkeypatch.setattr(module, "_loads", lambda name: name not in ("libXi.so.6", "libSM.so.6"))
    monkeypatch.setattr(module, "_blender", lambda _: [])
    code, text = printed(monkeypatch, module._libraries())
    assert code == 1
    assert "libXi.so.6" in text
    assert "apt-get install -y libxi6 libsm6" in text


def test_found_text_is_not_markup(monkeypatch):
    code, text = printed(monkeypatch, [Check(group="G", name="n", found="[red]/dev/[0][/red]")])
    assert code == 0
    assert "[red]/dev/[0][/red]" in text


def test_a_crash_in_a_child_is_a_finding():
    # Oracle: a child that aborts, as EEVEE does without EGL.
    answer, why = module._ask("import os, sys; print('no EGL display', file=sys.stderr, flush=True); os.abort()", 30)
    if why == "not installed":
        pytest.skip("bpy is not installed")
    assert answer is None
    assert "SIGABRT" in why
    assert "no EGL display" in why


def test_a_child_that_hangs_is_killed_with_its_children(tmp_path):
    # Oracle: the process table.
    pid = tmp_path / "pid"
    program = (
        f"import subprocess; p = subprocess.Popen(['sleep', '60']); open({str(pid)!r}, 'w').write(str(p.pid)); p.wait()"
    )
    start = time.monotonic()
    answer, why = module._ask(program, 2)
    if why == "not installed":
        pytest.skip("bpy is not installed")
    assert answer is None
    assert "2 s" in why
    assert time.monotonic() - start < 20
    time.sleep(0.2)
    stat = Path("/proc", pid.read_text(), "stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_doctor_survives_without_egl(monkeypatch):
    # Oracle: the loader of EGL drivers is told that there are none.
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", os.devnull)
    [check] = module._egl(120)
    if "not installed" in check.found:
        pytest.skip("bpy is not installed")
    assert not check.ok
    assert not check.required
    assert "libegl1" in check.remedy
