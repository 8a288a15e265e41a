"""Weights files and folders, whole and broken, against what was written into them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from manifests.errors import InputError
from train.convert.files import read_config, read_folder, read_tensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}


class Foreign:
    """An object that only code can rebuild."""


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3, "optimizer": {"lr": 0.1}},
        {f"module.{name}": value for name, value in TENSORS.items()},
        {"a": {"weight": TENSORS["a.weight"]}, "b": TENSORS["b"]},
    ],
    ids=["plain", "trainer", "distributed", "groups"],
)
def test_tensors_are_read_from_what_torch_saves(tmp_path, content):
    """Oracle: the tensors that went in; what a trainer keeps beside them is left alone."""
    torch.save(content, tmp_path / "x.ckpt")
    assert same(read_tensors(tmp_path / "x.ckpt"), TENSORS)


def test_tensors_are_read_by_content_not_by_name(tmp_path):
    """Oracle: safetensors under the name of another format."""
    save_file(TENSORS, tmp_path / "x.bin")
    assert same(read_tensors(tmp_path / "x.bin"), TENSORS)


def test_broken_files_are_refused_with_their_name(tmp_path):
    """Oracle: each file is broken in one way, and the message says which."""
    path = tmp_path / "x.ckpt"
    cases = {
        "No such file": lambda: path.unlink(missing_ok=True),
        "cut short": lambda: (torch.save(TENSORS, path), path.write_bytes(path.read_bytes()[:200])),
        "does not load": lambda: path.write_bytes(b"not weights at all"),
        "found Python objects": lambda: torch.save({"a": Foreign()}, path),
        "found a int under step": lambda: torch.save({**TENSORS, "step": 3}, path),
        "found a list, expected name": lambda: torch.save([torch.ones(1)], path),
    }
    for message, make in cases.items():
        make()
        with pytest.raises(InputError, match=message) as caught:
            read_tensors(path)
        assert str(path) in str(caught.value)
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="cut short"):
        read_tensors(path)


def test_folder_gives_config_and_the_preferred_weights(tmp_path):
    """Oracle: safetensors before pickles; both hold different numbers."""
    (tmp_path / "config.json").write_text(json.dumps({"width": 3}))
    with pytest.raises(InputError, match="found no weights, expected one of diffusion_pytorch_model"):
        read_folder(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    config, tensors, path = read_folder(tmp_path)
    assert config == {"width": 3}
    assert path.name == "model.safetensors"
    assert tensors["a"].item() == 1


@pytest.mark.parametrize(("text", "message"), [(None, "No such file"), ("{", "expected JSON"), ("[]", "found a list")])
def test_config_that_is_none_is_refused(tmp_path, text, message):
    """Oracle: by hand."""
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path)
