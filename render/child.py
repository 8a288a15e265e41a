"""The isolated process that touches assets and Blender: reads requests on stdin, answers on stdout, one JSON a line.

It shuts itself in before anything of the asset is read (own network namespace where the system allows it, memory limit,
no core files, dies with its parent); the parent (`render.process`) holds the deadlines and kills. Only the standard
library is imported until then. Started as ``python -I -m render.child PARENT_PID MEMORY_BYTES``.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

__all__ = ["main", "shut_in"]

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000


def shut_in(parent_pid: int, memory_bytes: int) -> bool:
    """Take away what the work does not need. Returns whether the network is cut off.

    Args:
        parent_pid: whose death ends this process.
        memory_bytes: of address space; 0 for no limit.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above took effect
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # As root the network namespace alone; otherwise inside a user namespace, where the kernel permits those.
    return libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0


def main() -> None:
    """Serve until stdin ends."""
    parent_pid, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    offline = shut_in(parent_pid, memory_bytes)
    # Blender prints to stdout; answers go to a copy, and everything printed goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _say(answers, ready=True, offline=offline)
    from manifests.errors import Rejected, refusal

    worker = _Worker(answers)
    for line in sys.stdin:
        request = json.loads(line)
        os.ftruncate(2, 0)  # the log is that of this request
        os.lseek(2, 0, os.SEEK_SET)
        try:
            result = getattr(worker, "do_" + request.pop("do"))(**request)
            _say(answers, ok=result, rss_mb=_rss_mb())
        except Rejected as rejected:
            _say(answers, rejected=[rejected.reason, rejected.detail])
        except OSError as error:
            traceback.print_exc()
            told = refusal(error)
            _say(
                answers, error=str(told or f"{type(error).__name__}: {error}"), cause="error", storage=told is not None
            )
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}"
            hungry = isinstance(error, MemoryError) or "alloc" in text.lower() or "out of memory" in text.lower()
            _say(answers, error=text[:2000], cause="memory" if hungry else "error")


class _Worker:
    """Holds the asset and the scene that the last request used, for the next one of the same asset."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._loaded: tuple[str, Any, Any] | None = None
        self._scene_of: tuple[Any, Any] | None = None

    def do_identify(self, path: str) -> dict[str, Any]:
        """Content hash and copyright line of a file."""
        from manifests.gltf import Limits
        from render.probe import load

        self._phase("probe")
        asset = load(path, Limits())
        return {"sha256": asset.sha256, "copyright": asset.copyright}

    def do_probe(self, path: str, config: dict[str, Any], pose: str = "") -> dict[str, Any]:
        """`render.probe.probe`, or `probe_still` where a pose is given."""
        from manifests.config import from_dict
        from render.probe import probe, probe_still

        self._phase("probe")
        built = from_dict(config)
        return probe_still(path, built, pose) if pose else probe(path, built)

    def do_render(
        self, path: str, sample: dict[str, Any], source_animation: int, offsets: list, config: dict[str, Any],
        out: dict[str, str], threads: int, fault: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Render one clip into staged parts; see `render.clip.render_clip`."""
        from manifests.config import from_dict
        from render.clip import render_clip

        _misbehave(fault)
        self._phase("import")
        began = time.perf_counter()
        built = from_dict(config)
        poser = self._load(path, sample["asset_sha256"], built)
        # Other lights are another scene, see `Scene.light`.
        look = [config["render"], sample["render"]["lights"], sample["render"]["world"]]
        scene_key = (path, sample["asset_sha256"], json.dumps(look, sort_keys=True), threads)
        scene = self._scene_of[1] if self._scene_of and self._scene_of[0] == scene_key else None
        self._scene_of = None  # a scene that an error leaves half posed is not used again
        scene = render_clip(
            poser, sample, None if source_animation < 0 else source_animation, offsets, built,
            scene=scene, threads=threads, folder=Path(os.environ["TMPDIR"]),
            out={series: Path(target) for series, target in out.items()}, progress=self._phase,
        )  # fmt: skip
        self._scene_of = (scene_key, scene)
        return {"sample": sample, "seconds": round(time.perf_counter() - began, 3)}

    def do_versions(self) -> dict[str, str]:
        """What decides the bytes."""
        from manifests.images import encoder_version
        from render.scene import bpy_version

        return {"bpy": bpy_version(), "encoder": encoder_version()}

    def _load(self, path: str, sha256: str, config: Any) -> Any:
        from manifests.gltf import Poser
        from render.probe import load

        if self._loaded is None or self._loaded[:2] != (path, sha256):
            self._loaded = self._scene_of = None
            asset = load(path, config.limits)
            if asset.sha256 != sha256:
                raise RuntimeError(
                    f"{Path(path).name}: found sha256 {asset.sha256[:12]}, expected {sha256[:12]}; "
                    "the file changed since it was scanned, build into a new folder"
                )
            self._loaded = (path, sha256, Poser(asset))
        return self._loaded[2]

    def _phase(self, name: str) -> None:
        _say(self._answers, phase=name)


def _misbehave(fault: str) -> None:
    """Faults that tests ask for, so that isolation is tested on the real process."""
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fault == "hang":
        time.sleep(3600)
    elif fault == "memory":
        hoard = []
        while True:
            hoard.append(bytearray(64 << 20))
    elif fault == "network":
        import socket

        socket.create_connection(("127.0.0.1", 9), timeout=2)


def _say(answers: TextIO, **message: Any) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _rss_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
