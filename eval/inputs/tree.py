"""A folder that somebody brought in, listed once, with nothing followed that leads out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from manifests.errors import InputError

__all__ = ["Branch", "Tree"]

DEPTH = 8
"""Folders below the root; the deepest layout, outputs/METHOD/NAME/TAG/save/images/VIEW, has 7."""
MOST_FOLDERS = 200_000


@dataclass(frozen=True)
class Branch:
    """One folder of a tree: where it is, and the names in it (hidden ones left out, sorted)."""

    path: Path
    folders: tuple[str, ...]
    files: tuple[str, ...]

    def with_suffix(self, suffixes: Sequence[str]) -> tuple[Path, ...]:
        """The files that end so, in any case."""
        return tuple(self.path / name for name in self.files if Path(name).suffix.lower() in suffixes)


class Tree:
    """What lies below a folder.

    Args:
        root: the folder; it may itself be a link.

    Raises:
        InputError: no folder there.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "nothing"
            raise InputError(f"{self.root}: found {found}, expected a folder; check the path")
        self._real = self.root.resolve()

    @cached_property
    def branches(self) -> dict[Path, Branch]:
        """Every folder, the root first; read once.

        Raises:
            InputError: a link that leads out, a folder that cannot be read, a name that is not Unicode, too many.
        """
        found: dict[Path, Branch] = {}
        waiting = [(self.root, 0)]
        while waiting:
            path, depth = waiting.pop()
            branch = found[path] = self._list(path)
            if depth < DEPTH:
                waiting += [(path / name, depth + 1) for name in reversed(branch.folders)]
            if len(found) > MOST_FOLDERS:
                raise InputError(f"{self.root}: found over {MOST_FOLDERS} folders, expected a method's outputs alone")
        return found

    def below(self, path: Path) -> Iterator[Branch]:
        """The folders in a folder."""
        for name in self.branches[path].folders:
            if path / name in self.branches:
                yield self.branches[path / name]

    def relative(self, path: Path) -> str:
        """A path as seen from the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def _list(self, path: Path) -> Branch:
        folders, files = [], []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    self._check(entry)
                    if entry.is_dir():
                        folders.append(entry.name)
                    elif entry.is_file():
                        files.append(entry.name)
        except OSError as error:
            raise InputError(
                f"{path}: found {error.strerror}, expected a folder that can be read; mend its permissions"
            ) from error
        return Branch(path, tuple(sorted(folders)), tuple(sorted(files)))

    def _check(self, entry: os.DirEntry[str]) -> None:
        try:
            entry.name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{entry.path!r}: found a name that is not UTF-8, expected Unicode; rename it") from error
        if not entry.is_symlink():
            return
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{entry.path}: found a link to nothing, expected a file or folder; remove it") from error
        if not target.is_relative_to(self._real):
            raise InputError(
                f"{entry.path}: found a link to {target}, expected one inside {self.root}; copy what it points to"
            )
        if Path(entry.path).parent.resolve().is_relative_to(target):
            raise InputError(f"{entry.path}: found a link to a folder it lies in, expected no circle; remove it")
