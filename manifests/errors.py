"""Every error a user can meet, and the closed lists of reasons that tables carry.

    MvvError
    ├── InputError     an argument, config field or file of the user's is wrong; fix it and repeat
    ├── Rejected       an asset, animation or window is refused for good; a pure function of bytes and config
    ├── Failed         infrastructure (deadline, memory, crash); the same work can be retried
    ├── StorageError   the disk is full or refuses; nothing made so far is lost
    └── DatasetError   a dataset on disk does not agree with itself or with this request

Messages read ``<where>: found <value>, expected <rule>; <what to do>``. Batch jobs turn the same text into a row's
``detail`` and go on.
"""

from __future__ import annotations

import errno
import os

__all__ = [
    "CAUSES",
    "REASONS",
    "DatasetError",
    "Failed",
    "InputError",
    "MvvError",
    "Rejected",
    "StorageError",
    "refusal",
]

REASONS: dict[str, str] = {
    # the file
    "empty-file": "the file has no bytes",
    "unreadable": "the file cannot be opened",
    "not-gltf": "neither a GLB (magic 'glTF', version 2) nor a glTF JSON of version 2",
    "truncated": "the file ends before the length its own headers state",
    "bad-json": "the JSON part does not parse",
    "bad-structure": "an index, type or size in the JSON contradicts the glTF 2.0 specification",
    "accessor-out-of-bounds": "an accessor or buffer view reaches past the bytes that exist",
    "too-large": "more bytes, nodes, vertices, triangles or keyframes than the limits allow",
    "node-cycle": "a node is its own ancestor, or has two parents",
    "node-too-deep": "the node tree is deeper than the limit",
    "non-finite": "NaN or infinity among vertices, transforms or keyframes",
    "unsupported-extension": "the file requires an extension that cannot be read here",
    "draco-corrupt": "Draco data that does not decode to what the accessors promise",
    "buffer-missing": "an external buffer file does not exist",
    "uri-outside": "an external file lies outside the asset's folder",
    "uri-remote": "an external file would have to be fetched from the network",
    "texture-missing": "an image that a material uses does not exist",
    "texture-corrupt": "an image that a material uses does not decode",
    "texture-too-large": "an image has more pixels than the limit allows",
    "no-mesh": "the default scene shows no triangle",
    "no-animation": "the file has no animation",
    "no-such-pose": "the file has no animation of the name that a still's pose asks for",
    "duplicate-asset": "the same bytes are already there under a smaller source",
    # the animation
    "still-pose": "the animation has a single key time; it is a pose, not a motion",
    "static": "nothing visible moves more than the threshold",
    "no-visible-mesh": "the animation leaves no visible geometry (all scales are zero)",
    "too-short": "shorter than the window, and its end pose does not meet its start pose",
    "duplicate-animation": "the same motion as an earlier animation of the asset",
    "not-drawn": "acceptable, but more animations than the maximum per asset; others were drawn",
    # the window
    "frame0-too-small": "frame 0 fills less of the clip's sphere than the threshold",
}
"""Reason -> what it means. ``status == 'rejected'`` always comes with one of these."""

CAUSES: dict[str, str] = {
    "deadline": "a phase took longer than its limit; the process group was killed",
    "memory": "the process went over its memory limit",
    "crash": "the Blender process ended by itself",
    "killed": "the worker around the Blender process died",
    "error": "an unexpected exception inside the work itself",
}
"""Cause -> what it means. ``status == 'failed'`` always comes with one of these as its reason."""


class MvvError(Exception):
    """Base of every error that is the user's to read; its text is complete without a traceback."""


class InputError(MvvError, ValueError):
    """An argument, config field or file is wrong."""


class StorageError(MvvError):
    """The disk is full, read-only or refuses access; what is already made stays, and the same command goes on."""


class DatasetError(MvvError):
    """A dataset on disk does not agree with itself or with this request."""


_REFUSALS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EIO)
)


def refusal(error: OSError) -> StorageError | None:
    """What an operating-system error means for the user where storage refuses; None where it is a bug of ours."""
    if error.errno not in _REFUSALS:
        return None
    return StorageError(
        f"{error.filename or 'storage'}: found {os.strerror(error.errno)}, expected free space and the right to write; "
        "free some space or mend the permissions, then repeat the same command"
    )


class Rejected(MvvError):
    """Refused for good, with a reason from `REASONS`.

    Args:
        reason: a key of `REASONS`.
        detail: one sentence with the value found and the rule.
    """

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, f"reason {reason!r} is not in the closed list"
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self):
        return type(self), (self.reason, self.detail)


class Failed(MvvError):
    """Infrastructure broke; the work can be retried.

    Args:
        cause: a key of `CAUSES`.
        phase: what was running, e.g. ``import``, ``probe``, ``frame 3``.
        detail: one sentence.
        log: the last lines that the process printed.
    """

    def __init__(self, cause: str, phase: str, detail: str, log: str = "") -> None:
        assert cause in CAUSES, f"cause {cause!r} is not in the closed list"
        super().__init__(f"{cause} in {phase}: {detail}")
        self.cause, self.phase, self.detail, self.log = cause, phase, detail, log

    def __reduce__(self):
        return type(self), (self.cause, self.phase, self.detail, self.log)
