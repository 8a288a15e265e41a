"""External files and data URIs, confined to the asset's own folder.

An asset may name files beside or below it and nothing else: no scheme, no host, no absolute path, nothing that leads
outside after ``..`` and symbolic links are followed. Facts: glTF 2.0 specification, section 3.6.1.2; RFC 3986, 2397.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import stat
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from manifests.errors import Rejected
from manifests.gltf.fields import shown
from manifests.gltf.limits import Budget

__all__ = ["Folder"]

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:")
DRIVE = re.compile(r"[A-Za-z]:")


class Folder:
    """The folder that an asset may read from.

    Args:
        path: None where the asset came as bytes; then every external file is refused as missing.
        budget: external bytes are charged to ``file_bytes``.

    Attributes:
        files: uri -> SHA-256 of every external file read so far.
    """

    def __init__(self, path: Path | None, budget: Budget) -> None:
        self.path = None if path is None else Path(path).resolve()
        self.budget = budget
        self.files: dict[str, str] = {}
        self._data: dict[str, bytes] = {}

    def load(self, uri: str, where: str, missing: str) -> bytes:
        """The bytes behind a URI; `missing` is the reason where the file does not exist.

        Raises:
            Rejected: uri-remote, uri-outside, too-large, bad-structure, or `missing`.
        """
        if uri[:5].lower() == "data:":
            return _data_uri(uri, where)
        if uri not in self._data:
            path = self.locate(uri, where, missing)
            self._data[uri] = self._read(path, uri, where, missing)
            self.files[uri] = hashlib.sha256(self._data[uri]).hexdigest()
        return self._data[uri]

    def locate(self, uri: str, where: str, missing: str) -> Path:
        """The file that a relative URI names, after symbolic links, inside the folder."""
        plain = unquote(uri, errors="replace").replace("\\", "/")  # Windows exporters write backslashes
        for text in (uri, plain):
            if text.startswith("//") or SCHEME.match(text):
                raise Rejected(
                    "uri-remote", f"{where}: found {shown(uri)}, expected a relative path; put the file beside"
                )
        if plain.startswith("/") or DRIVE.match(plain):
            raise Rejected("uri-outside", f"{where}: found {shown(uri)}, expected a relative path")
        if self.path is None:
            raise Rejected(missing, f"{where}: found {shown(uri)} in bytes without a folder, expected embedded data")
        try:
            path = (self.path / plain).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # NUL, endless links, names that are too long
            raise Rejected(
                "uri-outside", f"{where}: found {shown(uri)} ({type(error).__name__}), expected a path"
            ) from None
        if not path.is_relative_to(self.path):
            raise Rejected("uri-outside", f"{where}: found {shown(uri)}, expected a file inside the asset's folder")
        return path

    def _read(self, path: Path, uri: str, where: str, missing: str) -> bytes:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a FIFO or device would block or never end
                raise Rejected(missing, f"{where}: found {shown(uri)}, not a regular file; expected a file")
            self.budget.charge("file_bytes", status.st_size, where)
            with path.open("rb") as file:
                return file.read(status.st_size)
        except OSError as error:
            cause = error.strerror or type(error).__name__
            raise Rejected(missing, f"{where}: found {shown(uri)}: {cause}; expected a readable file") from None


def _data_uri(uri: str, where: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise Rejected("bad-structure", f"{where}: found a data URI without a comma, expected data:...,...")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(unquote(body) if "%" in body else body)
    except (binascii.Error, ValueError) as error:
        raise Rejected(
            "bad-structure", f"{where}: found base64 with {str(error)[:60]}, expected valid base64"
        ) from None
