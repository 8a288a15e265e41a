"""A weights file into a network: only tensors are ever read, and every name and shape must be the network's own."""

from __future__ import annotations

import collections
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from manifests.errors import InputError

__all__ = ["load_network", "read_tensors"]

Network = TypeVar("Network", bound=nn.Module)

_HARMLESS: list[Any] = [
    (collections.OrderedDict, "typing.OrderedDict"),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8")),
]
"""What trainers leave beside tensors and PyTorch's unpickler refuses although it runs nothing: amt-s.pth was made with
typing's OrderedDict, and a learning rate from np.cos is a NumPy number."""


def load_network(make: Callable[[], Network], path: Path, *, device: str, key: str | None = None) -> Network:
    """A network with the weights of a file, ready to run.

    Args:
        make: builds it; called without memory for parameters and buffers, so it must not compute with them.
        path: safetensors, or what `torch.save` wrote.
        device: as torch names it.
        key: where in the file the tensors are; a file of nothing but the tensors is read as well.

    Returns:
        In evaluation mode, float32, without gradients.

    Raises:
        InputError: a file that cannot be read, holds more than tensors, or belongs to another network.
    """
    with torch.device("meta"):
        network = make()
    # A plain dict has no version: batch norms fill up the counters that files older than them lack.
    tensors = dict(read_tensors(path, key=key))
    _compare(network, tensors, path)
    network.load_state_dict(tensors, assign=True)
    return network.float().eval().requires_grad_(False).to(device)


def read_tensors(path: Path, *, key: str | None = None) -> Mapping[str, Tensor]:
    """Name -> tensor of a file, on the CPU.

    Args:
        path: safetensors, or what `torch.save` wrote; told apart by content.
        key: as of `load_network`.

    Raises:
        InputError: a file that cannot be read, or holds more than tensors.
    """
    try:
        with Path(path).open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        if is_safetensors:
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # loads or not, and is told either way
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(
            f"{path}: found {error.strerror or error}, expected a weights file; see `mvv weights list`"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, EOFError, SafetensorError) as error:
        raise InputError(_unreadable(path, error, key)) from error
    if key is not None and isinstance(content, Mapping) and key in content:
        content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        inside = f" with {', '.join(map(str, list(content)[:4]))}" if isinstance(content, Mapping) else ""
        under = f", or the same under {key!r}" if key else ""
        raise InputError(
            f"{path}: found a {type(content).__name__}{inside}, expected name -> tensor{under}; see `mvv weights list`"
            " for the right file"
        )
    return content


def _unreadable(path: Path, error: Exception, key: str | None) -> str:
    """Says whether the file is broken, or has objects that only code could rebuild."""
    text = str(error)
    if "nsupported global" not in text and "TorchScript" not in text:
        first = (text.splitlines() or [type(error).__name__])[0][:80]
        return (
            f"{path}: found what does not load ({first}), expected safetensors or what torch.save wrote; fetch it again"
            " and check it with `mvv weights verify`"
        )
    tensors = f"[{key!r}]" if key else ""
    return (
        f"{path}: found Python objects beside the tensors, expected tensors only, since rebuilding objects can run any"
        " code; if you trust where it came from, rewrite it once in a container without network: python -c 'import"
        f' torch; torch.save(torch.load("{Path(path).name}", weights_only=False){tensors.replace(chr(39), chr(34))},'
        ' "tensors.pt")\', and add tensors.pt with `mvv weights add`'
    )


def _compare(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises InputError where names or shapes differ, or a value is no number."""
    expected = network.state_dict()
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    shared = sorted(expected.keys() & tensors.keys())
    wrong = [
        *(f"no {name}" for name in sorted(expected.keys() - tensors.keys() - counters)),
        *(f"{name}, which it has not" for name in sorted(tensors.keys() - expected.keys())),
        *(
            f"{name} of shape {tuple(tensors[name].shape)} for {tuple(expected[name].shape)}"
            for name in shared
            if tensors[name].shape != expected[name].shape
        ),
        *(f"NaN or infinity in {name}" for name in shared if not tensors[name].isfinite().all()),
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(
            f"{path}: found {', '.join(wrong[:3])}{more}, expected the {len(expected)} tensors of"
            f" {type(network).__name__}; see `mvv weights list` for the right file"
        )
