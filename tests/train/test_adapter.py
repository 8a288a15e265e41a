"""Adapters: what they hold, that they come back bit for bit, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from manifests.errors import InputError
from tests.train.tiny_models import inputs, small_unet
from train.models.adapter import load_adapter, save_adapter


def on_same_base(seed: int):
    """A network with the base of seed 0 and other trained weights."""
    base, other = small_unet(0), small_unet(seed)
    trained = other.trainable_parameters()
    state = {name: trained[name].detach() if name in trained else value for name, value in base.state_dict().items()}
    other.load_state_dict(state)
    return other


def test_adapter_on_its_base_gives_the_same_bits(tmp_path):
    """Round trip on a second network with the same frozen base."""
    trained = on_same_base(1)
    save_adapter(trained, tmp_path, base="test")
    fresh = small_unet(0)
    load_adapter(fresh, tmp_path)
    with torch.no_grad():
        assert torch.equal(fresh(**inputs()).sample, trained(**inputs()).sample)


def test_adapter_is_smaller_than_the_network(tmp_path):
    """Against the count of the parameters that Animate3D trains."""
    unet = small_unet()
    save_adapter(unet, tmp_path, dtype=torch.bfloat16)
    count = sum(value.numel() for value in unet.trainable_parameters().values())
    assert json.loads((tmp_path / "adapter.json").read_text())["parameters"] == count
    assert 2 * count <= (tmp_path / "adapter.safetensors").stat().st_size < 2 * count + 80_000


def test_another_base_is_refused_unless_asked_for(tmp_path):
    """The hash of the frozen weights tells."""
    save_adapter(on_same_base(1), tmp_path)
    with pytest.raises(InputError, match="load it on its own base"):
        load_adapter(small_unet(2), tmp_path)
    load_adapter(small_unet(2), tmp_path, any_base=True)


def test_another_config_is_refused_by_name(tmp_path):
    """The field that differs is in the message."""
    save_adapter(small_unet(), tmp_path)
    with pytest.raises(InputError, match="layers_per_block=1, expected layers_per_block=2"):
        load_adapter(small_unet(layers_per_block=2), tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "absent", "no-facts"])
def test_damaged_adapters_are_refused_and_change_nothing(tmp_path, damage):
    """A cut-off file, a missing one, a folder of something else."""
    save_adapter(on_same_base(1), tmp_path)
    path = tmp_path / "adapter.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "absent":
        path.unlink()
    else:
        (tmp_path / "adapter.json").write_text("{}")
    unet = small_unet(0)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    with pytest.raises(InputError, match="adapter"):
        load_adapter(unet, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
