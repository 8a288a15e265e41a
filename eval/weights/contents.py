"""What a weights file holds, found without running any of it: PyTorch's pickles are read as text, never executed.

Accepted are safetensors, PyTorch state dicts (zip archives and the format before 1.6) whose pickles name nothing but
the few constructors of tensors, and TorchScript archives. torch is not needed. Sources: torch/serialization.py and
torch/_weights_only_unpickler.py of 2.x (layout; which constructors cannot run code), safetensors' format page.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import IO

from eval.weights.table import Format

__all__ = ["Unusable", "format_of"]

_HARMLESS = re.compile(
    r"collections OrderedDict|typing OrderedDict|_codecs encode"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|b?float\d+|double|half|u?int\d+|long|int|short|bool)"
    r"|numpy dtype|numpy\.(core|_core)\.multiarray scalar"
)
"""``module name``. amt-s.pth names typing.OrderedDict and training checkpoints NumPy scalars; neither can run code."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, keys of the storages that follow
_CALLS = frozenset(("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"))
_MAX_PICKLE = 64_000_000
_TENSOR = re.compile(r"torch\._utils _rebuild_")


class Unusable(Exception):
    """The file is not one of the accepted formats; the text says what was found."""


def format_of(path: Path) -> Format:
    """``tensors`` or ``torchscript``.

    Raises:
        Unusable: anything else; nothing in the file has been executed.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(512)
        if not head:
            raise Unusable("no bytes")
        if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
            raise Unusable("an HTML page")
        if head.startswith(b"version https://git-lfs"):
            raise Unusable("a git-lfs pointer instead of the file it points to")
        if head.startswith(b"PK\3\4"):
            return _zip_format(path)
        if head[8:9] == b"{":
            return _check_safetensors(file, path.stat().st_size, head)
        if head[:1] == b"\x80":
            return _check_legacy(file)
    raise Unusable("neither a PyTorch file nor safetensors")


def _zip_format(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.partition("/")[2]: name for name in archive.namelist()}
            if "constants.pkl" in members and any(name.startswith("code/") for name in members):
                return "torchscript"
            if "data.pkl" not in members:
                raise Unusable("a zip archive without data.pkl, which no PyTorch version wrote")
            if archive.getinfo(members["data.pkl"]).file_size > _MAX_PICKLE:
                raise Unusable("a data.pkl too large to be names of tensors")
            _check_names(_names(io.BytesIO(archive.read(members["data.pkl"]))))
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise Unusable(f"a zip archive that is cut off or damaged ({error})") from error
    return "tensors"


def _check_safetensors(file: IO[bytes], size: int, head: bytes) -> Format:
    (length,) = struct.unpack("<Q", head[:8])
    if length > min(100_000_000, size - 8):
        raise Unusable("a safetensors header that is longer than the file")
    file.seek(8)
    try:
        header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Unusable("a broken safetensors header") from error
    if not ends or max(ends) != size - 8 - length:
        raise Unusable("safetensors whose tensors end elsewhere than the file: it is cut off")
    return "tensors"


def _check_legacy(file: IO[bytes]) -> Format:
    file.seek(0)
    names: list[str] = []
    for number in range(_LEGACY_PICKLES):
        if number == 0 and _first_number(file) != _LEGACY_MAGIC:
            raise Unusable("a pickle of something else than torch.save writes")
        if number:
            names += _names(file)
    _check_names(names)
    return "tensors"


def _first_number(file: IO[bytes]) -> object:
    """The one number of a pickle that holds nothing else."""
    found = [argument for opcode, argument, _ in _opcodes(file) if opcode.name.startswith(("LONG", "INT", "BININT"))]
    return found[0] if len(found) == 1 else None


def _names(file: IO[bytes]) -> list[str]:
    """``module name`` of all that a pickle would import."""
    names: list[str] = []
    for opcode, argument, _ in _opcodes(file):
        if opcode.name == "GLOBAL":
            names.append(str(argument))
        elif opcode.name in _CALLS:
            raise Unusable(
                f"a pickle of Python objects (instruction {opcode.name}), which could run any code when loaded"
            )
    return names


def _opcodes(file: IO[bytes]):
    try:
        yield from pickletools.genops(file)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise Unusable("a pickle that is cut off or damaged") from error


def _check_names(names: list[str]) -> None:
    foreign = sorted({name.replace(" ", ".") for name in names if not _HARMLESS.fullmatch(name)})
    if foreign:
        raise Unusable(f"a pickle of Python objects ({', '.join(foreign[:4])}), which could run any code when loaded")
    if not any(_TENSOR.match(name) for name in names):
        raise Unusable("a pickle without tensors")
