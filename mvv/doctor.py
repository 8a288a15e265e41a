"""What this machine can do for the data engine, and what to do about each thing that it cannot.

Looks only: it installs nothing and imports neither Blender nor Ray into this process. Blender is asked in child
processes with a deadline, because EEVEE and Workbench abort the whole process where no EGL driver exists. The list of
system libraries is what bpy 4.5's ``__init__.so`` and the libraries beside it link and do not bring along.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["PACKAGES", "SYSTEM_LIBRARIES", "Check", "diagnose", "doctor"]

SYSTEM_LIBRARIES: dict[str, str] = {
    "libX11.so.6": "libx11-6",
    "libXrender.so.1": "libxrender1",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libGL.so.1": "libgl1",
}
"""Shared library -> Debian package, for everything that bpy links and its wheel does not contain."""

PACKAGES: tuple[str, ...] = (
    "numpy", "scipy", "pillow", "pyarrow", "crc32c", "jsonschema", "rich", "tyro", "psutil", "ray", "bpy", "DracoPy",
)  # fmt: skip
"""What `mvv build` imports; DracoPy only for assets that are compressed with it."""

_ANIMATION = {
    "torch": "for `mvv animate`, as for `mvv train` and most metrics",
    "embreex": "for `mvv animate`: rays against the mesh",
    "usd-core": "for `mvv animate`: USD files",
    "gsplat": "for `mvv animate` on CUDA; elsewhere a compositor in torch renders",
}
"""What `mvv animate` imports."""

_INSTALL = 'pip install "mvvideo[render]"'
_GIB = 2**30
_MARK = "MVV-DOCTOR "  # Blender prints on stdout as well; our lines begin with this

_ASK_BLENDER = f"""
import json, sys
import bpy
found = {{"version": bpy.app.version_string, "engines": [], "devices": []}}
for engine in ("CYCLES", "BLENDER_EEVEE_NEXT", "BLENDER_EEVEE", "BLENDER_WORKBENCH"):
    try:
        bpy.context.scene.render.engine = engine
        found["engines"].append(engine)
    except TypeError:
        pass
import _cycles
found["denoiser"] = bool(_cycles.with_openimagedenoise)
for kind in ("CPU", "CUDA", "OPTIX", "HIP", "METAL", "ONEAPI"):
    try:
        found["devices"] += [[kind, device[0]] for device in _cycles.available_devices(kind) if device[1] == kind]
    except Exception:
        pass
print({_MARK!r} + json.dumps(found), flush=True)
"""

_DRAW_WITH_EGL = f"""
import json, os, sys, tempfile, time
import bpy
scene = bpy.context.scene
scene.render.engine = "BLENDER_WORKBENCH"
scene.render.resolution_x = scene.render.resolution_y = 16
with tempfile.TemporaryDirectory() as folder:
    scene.render.filepath = os.path.join(folder, "probe.png")
    start = time.monotonic()
    bpy.ops.render.render(write_still=True)
    seconds = time.monotonic() - start
    wrote = os.path.exists(scene.render.filepath)
try:
    import gpu
    renderer = gpu.platform.renderer_get()
except Exception:
    renderer = ""
print({_MARK!r} + json.dumps({{"seconds": seconds, "wrote": wrote, "renderer": renderer}}), flush=True)
"""

# Root may unshare the network alone; everybody else needs a user namespace around it, which some systems forbid.
_LEAVE_NETWORK = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNET = 0x10000000, 0x40000000
for flags, how in ((NEWNET, "as root"), (NEWUSER | NEWNET, "with a user namespace")):
    if libc.unshare(flags) == 0:
        print(how)
        sys.exit(0)
sys.exit(1)
"""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Args:
        group: heading in the table, e.g. ``Blender``.
        name: what was looked at.
        found: what there is, in words, with units.
        ok: whether it is there.
        required: whether `mvv build` cannot run without it.
        remedy: what to do where it is not there, a sentence or a command; "" where nothing can be done.
    """

    group: str
    name: str
    found: str
    ok: bool = True
    required: bool = False
    remedy: str = ""


def diagnose(folder: Path = Path("."), *, blender_timeout_s: float = 120.0) -> list[Check]:
    """Look at this machine; takes about 5 s, nearly all of it Blender's.

    Args:
        folder: where a dataset would be written; its free space is asked for.
        blender_timeout_s: deadline of each of the two Blender child processes.
    """
    return [
        *_python(),
        *_libraries(),
        *_blender(blender_timeout_s),
        *_formats(),
        *_animation(),
        *_machine(folder),
    ]


def doctor(folder: Path = Path("."), *, console: Console | None = None, blender_timeout_s: float = 120.0) -> int:
    """Print the table of `diagnose` and the remedies below it.

    Returns:
        The exit code: 0 if `mvv build` can run here, else 1.
    """
    console = console or Console()
    with console.status("Asking Python, the system and Blender ..."):
        checks = diagnose(folder, blender_timeout_s=blender_timeout_s)
    table = Table(title="What this machine can do", title_justify="left", title_style="bold", expand=False)
    table.add_column("")
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("found", overflow="fold")
    group = None
    for check in checks:
        if check.group != group:
            if group is not None:
                table.add_section()
            group = check.group
            table.add_row("", f"[dim]{escape(group)}[/dim]", "")
        table.add_row(_sign(check), escape(check.name), escape(check.found))
    console.print(table)
    remedies = [check for check in checks if check.remedy and not check.ok]
    if remedies:
        console.print("\n[bold]What to do[/bold]")
        for check in remedies:
            must = "[red]needed[/red]" if check.required else "[yellow]optional[/yellow]"
            console.print(f"  {must}  [bold]{escape(check.name)}[/bold]: {escape(check.remedy)}", soft_wrap=True)
    missing = [check.name for check in checks if check.required and not check.ok]
    if missing:
        console.print(f"\n[red]mvv build cannot run here:[/red] {escape(', '.join(missing))}.", soft_wrap=True)
        return 1
    console.print("\n[green]mvv build can run here.[/green]")
    return 0


def _sign(check: Check) -> str:
    """A word, not only a colour: the table has to make sense in a log file."""
    if check.ok:
        return "[green]ok[/green]"
    return "[red]missing[/red]" if check.required else "[yellow]absent[/yellow]"


def _python() -> list[Check]:
    version = platform.python_version()
    checks = [
        Check(
            group="Python",
            name="python",
            found=f"{version} ({platform.python_implementation()}, {platform.system()} {platform.machine()})",
            ok=sys.version_info[:2] == (3, 11),
            required=True,
            remedy="make a virtual environment with CPython 3.11; bpy 4.5 has wheels for no other version",
        )
    ]
    for package in PACKAGES:
        found, ok = _installed(package)
        required = package != "DracoPy"
        checks.append(Check(group="Python", name=package, found=found, ok=ok, required=required, remedy=_INSTALL))
    return checks


def _installed(package: str) -> tuple[str, bool]:
    try:
        return importlib.metadata.version(package), True
    except importlib.metadata.PackageNotFoundError:
        return "not installed", False


def _animation() -> list[Check]:
    checks = []
    for package, what in _ANIMATION.items():
        found, ok = _installed(package)
        # Without a card there is nothing to gain from gsplat.
        line = 'pip install "mvvideo[animate]"' if package != "gsplat" else "pip install gsplat" * _has_nvidia()
        remedy = f"{line}    ({what})" if line else ""
        checks.append(
            Check(group="Animation", name=package, found=found if ok else f"{found}; {what}", ok=ok, remedy=remedy)
        )
    return checks


def _libraries() -> list[Check]:
    if platform.system() != "Linux":
        return []
    missing = [name for name in SYSTEM_LIBRARIES if not _loads(name)]
    line = "apt-get install -y " + " ".join(SYSTEM_LIBRARIES[name] for name in missing)
    found = f"not found: {', '.join(missing)}" if missing else f"all {len(SYSTEM_LIBRARIES)} that bpy links"
    return [
        Check(
            group="System libraries",
            name="X11 and GL",
            found=found,
            ok=not missing,
            required=True,
            remedy=f"{line}    (names of Debian and Ubuntu)",
        )
    ]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _blender(timeout_s: float) -> list[Check]:
    answer, why = _ask(_ASK_BLENDER, timeout_s)
    if answer is None:
        remedy = f"{_INSTALL}; then install the system libraries named here and run `mvv doctor` again"
        return [
            Check(group="Blender", name="import bpy", found=why, ok=False, required=True, remedy=remedy),
        ]
    checks = [Check(group="Blender", name="import bpy", found=answer["version"], required=True)]
    # Only the CPU is asked of everybody: a machine without a card is not told to buy one.
    card = "the card is there but its driver is not; reinstall the driver. The CPU works too" if _has_nvidia() else ""
    for kind, what, remedy in (
        ("CPU", "Cycles on the CPU", f"{_INSTALL} --force-reinstall"),
        ("OPTIX", "Cycles with OptiX", card),
        ("CUDA", "Cycles with CUDA", card),
    ):
        names = [name for found_kind, name in answer["devices"] if found_kind == kind]
        ok = "CYCLES" in answer["engines"] and bool(names)
        found = ", ".join(dict.fromkeys(names)) if ok else "no such device"
        checks.append(Check(group="Blender", name=what, found=found, ok=ok, required=kind == "CPU", remedy=remedy))
    denoiser = answer["denoiser"]
    found = "built in" if denoiser else "not built in"
    checks.append(Check(group="Blender", name="OpenImageDenoise", found=found, ok=denoiser))
    return checks + _egl(timeout_s)


def _egl(timeout_s: float) -> list[Check]:
    """Whether Workbench and EEVEE can draw; found out by drawing one picture of 16 x 16 pixels with Workbench."""
    answer, why = _ask(_DRAW_WITH_EGL, timeout_s)
    ok = bool(answer and answer["wrote"])
    if ok:
        assert answer is not None
        renderer = answer["renderer"] or "EGL"
        software = any(word in renderer.lower() for word in ("llvmpipe", "softpipe", "swrast", "software"))
        speed = "; in software, tens of seconds for EEVEE's first image" if software else ""
        found = f"works through {renderer}, first image {answer['seconds']:.1f} s{speed}"
    else:
        found = f"cannot draw: {why or 'no picture was written'}"
    remedy = "apt-get install -y libegl1 libgl1-mesa-dri, or the card's own EGL driver; Cycles does not need it"
    return [Check(group="Blender", name="EEVEE and Workbench", found=found, ok=ok, remedy=remedy)]


def _ask(program: str, timeout_s: float) -> tuple[dict | None, str]:
    """Run a program in a child of its own process group; its answer, or None and the reason in words."""
    if importlib.util.find_spec("bpy") is None:
        return None, "not installed"
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return None, f"no answer within {timeout_s:g} s"
    for line in out.splitlines():
        if line.startswith(_MARK):
            return json.loads(line[len(_MARK) :]), ""
    last = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "no message")
    if child.returncode < 0:
        return None, f"the process ended with {signal.Signals(-child.returncode).name}; last line: {last}"
    return None, f"the process ended with code {child.returncode}; last line: {last}"


def _has_nvidia() -> bool:
    return Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia").exists()


def _formats() -> list[Check]:
    ok, found = _webp_is_lossless()
    remedy = "pip install --force-reinstall 'pillow>=11' (its wheels contain libwebp)"
    checks = [Check(group="Formats", name="lossless WebP", found=found, ok=ok, required=True, remedy=remedy)]
    extensions = _gltf_extensions()
    if extensions:
        checks.append(Check(group="Formats", name="glTF extensions", found=", ".join(sorted(extensions))))
    return checks


def _webp_is_lossless() -> tuple[bool, str]:
    """Encode noise with straight alpha the way frames are, decode it and compare every value."""
    try:
        import numpy as np
        from PIL import Image, features
    except ImportError as error:
        return False, str(error)
    if not features.check("webp"):
        return False, "Pillow was built without WebP"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "WEBP", lossless=True, exact=True)
    back = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGBA"))
    version = features.version("webp")
    if not np.array_equal(back, pixels):
        return False, f"libwebp {version} changes pixels"
    return True, f"libwebp {version}, exact round trip with alpha"


def _gltf_extensions() -> tuple[str, ...]:
    """What the reader accepts when a file requires it; empty where the reader cannot be imported."""
    try:
        from manifests.gltf.document import REQUIRABLE
    except ImportError:  # a package that is listed as missing above
        return ()
    return tuple(REQUIRABLE)


def _machine(folder: Path) -> list[Check]:
    cores, memory = _cores(), _memory_bytes()
    checks = [Check(group="Machine", name="cores", found=f"{cores:g} usable of {os.cpu_count()}")]
    found = f"{_gib(memory[0])} available of {_gib(memory[1])}"
    remedy = "free memory or lower --workers; a worker with a large asset takes 1 to 2 GiB"
    checks.append(Check(group="Machine", name="memory", found=found, ok=memory[0] >= 2 * _GIB, remedy=remedy))
    checks.append(_space("free space", folder, 1 * _GIB, f"make room on the disk of {folder}, or choose another --out"))
    shared = Path("/dev/shm")
    if shared.is_dir():
        remedy = "in Docker: run with --shm-size=1g; Ray falls back to the disk, which is slower"
        checks.append(_space("shared memory", shared, 256 * 2**20, remedy))
    checks.append(_network())
    return checks


def _cores() -> float:
    """Cores this process may use: its affinity, and the cgroup's quota where there is one."""
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        pass
    return cores


def _memory_bytes() -> tuple[int, int]:
    """Bytes available and in all; the cgroup's limit counts where it is lower than the machine's."""
    try:
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        fields = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if len(line) > 1}
        available, total = fields["MemAvailable"], fields["MemTotal"]
    except (OSError, KeyError, ValueError):
        total = available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        available, total = min(available, limit - used), min(total, limit)
    except (OSError, ValueError):
        pass
    return available, total


def _space(name: str, folder: Path, least: int, remedy: str) -> Check:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    usage = shutil.disk_usage(existing)
    ok = usage.free >= least
    found = f"{_gib(usage.free)} of {_gib(usage.total)}"
    return Check(group="Machine", name=name, found=found, ok=ok, remedy=remedy)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


def _network() -> Check:
    answer = subprocess.run([sys.executable, "-S", "-c", _LEAVE_NETWORK], capture_output=True, text=True, timeout=30)
    ok = answer.returncode == 0
    found = f"Blender gets a network of its own, {answer.stdout.strip()}" if ok else "the system forbids it"
    remedy = "to cut Blender off, allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, or run as root"
    return Check(group="Machine", name="network isolation", found=found, ok=ok, remedy=remedy)
