"""Weights files of every form that users bring, and of those they bring by mistake."""

from __future__ import annotations

import pickle
from typing import OrderedDict  # noqa: UP035  as in published files

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from eval.extractors.checkpoints import load_network, read_tensors
from manifests.errors import InputError


def make() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


class Foreign:
    """What a trainer might leave in its checkpoint."""


@pytest.fixture
def tensors():
    return {name: value + 1 for name, value in make().state_dict().items()}


def saved(path, content):
    torch.save(content, path)
    return path


def test_every_accepted_form_gives_the_same_network(tensors, tmp_path):
    # Oracle: the tensors themselves. Forms: bare, wrapped, of half precision's parent, before 1.6, safetensors under
    # any name, with NumPy numbers and typing's OrderedDict, without the counters that old batch norms lack.
    wrapped = OrderedDict(epoch=np.int64(3))
    wrapped["state_dict"] = tensors
    wrapped["optim"] = {"lr": np.float64(1e-4)}
    torch.save(tensors, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "renamed.pth")
    old = {name: value for name, value in tensors.items() if "num_batches" not in name}
    paths = [
        saved(tmp_path / "bare.pt", tensors),
        saved(tmp_path / "wrapped.pt", wrapped),
        saved(tmp_path / "double.pt", {name: value.double() for name, value in tensors.items()}),
        saved(tmp_path / "old.pt", old),
        tmp_path / "legacy.pt",
        tmp_path / "renamed.pth",
    ]
    for path in paths:
        network = load_network(make, path, device="cpu", key="state_dict")
        for name, value in network.named_parameters():
            assert torch.equal(value, tensors[name])
            assert value.dtype == torch.float32
            assert not value.requires_grad
        assert torch.equal(network[1].running_mean, tensors["1.running_mean"])
        assert not network.training


def test_files_of_another_kind_are_refused(tensors, tmp_path):
    # Oracle: the message names the file, what was found and what to do; nothing of a pickle is run.
    (tmp_path / "empty.pt").touch()
    (tmp_path / "page.pt").write_text("<html>404</html>")
    (tmp_path / "list.pt").write_bytes(pickle.dumps([1, 2]))
    whole = saved(tmp_path / "whole.pt", tensors).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    saved(tmp_path / "nested.pt", {"generator": tensors})
    saved(tmp_path / "number.pt", 3)
    cases = {
        "empty": "does not load", "page": "does not load", "list": "does not load", "cut": "does not load",
        "nested": "found a dict with generator, expected name -> tensor, or the same under 'state_dict'",
        "number": "found a int, expected name", "missing": "No such file",
    }  # fmt: skip
    for name, text in cases.items():
        with pytest.raises(InputError, match=rf"{name}\.pt: .*{text}.*; .*mvv weights"):
            read_tensors(tmp_path / f"{name}.pt", key="state_dict")


def test_objects_are_refused_with_the_way_to_rewrite_the_file(tensors, tmp_path, monkeypatch):
    # Oracle: the command in the message, run as it stands, makes a file that loads.
    path = saved(tmp_path / "objects.pt", {"state_dict": tensors, "args": Foreign()})
    with pytest.raises(
        InputError, match=r"objects\.pt: found Python objects beside the tensors.*weights add"
    ) as refusal:
        read_tensors(path, key="state_dict")
    command = str(refusal.value).split("python -c '")[1].split("',")[0]
    monkeypatch.chdir(tmp_path)
    exec(command, {})
    assert read_tensors(tmp_path / "tensors.pt", key="state_dict").keys() == tensors.keys()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.pop("0.bias"), r"no 0\.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra, which it has not"),
        (
            lambda t: t.update({"0.weight": torch.zeros(4, 3, 3, 3)}),
            r"0\.weight of shape \(4, 3, 3, 3\) for \(4, 3, 1, 1\)",
        ),
        (lambda t: t["1.weight"].fill_(torch.nan), r"NaN or infinity in 1\.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tensors, tmp_path, change, text):
    # Oracle: the message.
    change(tensors)
    path = saved(tmp_path / "w.pt", tensors)
    with pytest.raises(
        InputError, match=rf"w\.pt: found {text}, expected the 7 tensors of Sequential; see `mvv weights list`"
    ):
        load_network(make, path, device="cpu")
