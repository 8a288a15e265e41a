"""`animate.fields.deformation`: at rest where it must be, and moving as rotation matrices and the heads say."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from animate.config import DeformationConfig
from animate.fields.deformation import Deformation

torch.set_num_threads(1)

TINY = DeformationConfig(space=(4, 6), time=(3, 4), channels=3, hidden=8)


def points(count=30):
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) - 0.5


def wild(config=TINY, num_frames=6):
    """A field whose weights are far from the initial ones."""
    generator = torch.Generator().manual_seed(2)
    field = Deformation(config, num_frames=num_frames, generator=generator)
    for weight in field.parameters():
        weight.data.uniform_(-2, 2, generator=generator)
    return field


@pytest.mark.parametrize("rigid", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_deformation_begins_at_rest(rigid, scale):
    """The input itself, bit by bit in every frame, since the heads' last layers are zero."""
    config = DeformationConfig(space=(4,), time=(3,), channels=2, hidden=3, rigid=rigid)
    motion = Deformation(config, num_frames=5)(points(), torch.arange(5), scale=scale)
    assert bool((motion.positions == points()).all())
    assert bool((motion.quats_wxyz == torch.tensor([1.0, 0, 0, 0])).all())
    assert bool((motion.log_scales == 0).all())


def test_deformation_leaves_frame_0_at_rest_whatever_the_weights():
    """The input itself, bit by bit, wherever frame 0 stands in the list; no gradient comes from there."""
    field = wild()
    motion = field(points(), torch.tensor([3, 0, 5, 0]), scale=True)
    for place in (1, 3):
        assert bool((motion.positions[place] == points()).all())
        assert bool((motion.quats_wxyz[place] == torch.tensor([1.0, 0, 0, 0])).all())
        assert bool((motion.log_scales[place] == 0).all())
    assert float((motion.positions[0] - points()).detach().abs().max()) > 0.01
    sum(part[[1, 3]].square().sum() for part in motion).backward()
    assert all(weight.grad is None or not bool(weight.grad.any()) for weight in field.parameters())


def test_deformation_of_a_frame_does_not_depend_on_the_others():
    """Frames one at a time against all at once."""
    field = wild()
    together = field(points(), torch.arange(6), scale=True)
    for frame in range(6):
        alone = field(points(), torch.tensor([frame]), scale=True)
        for got, expected in zip(alone, together, strict=True):
            torch.testing.assert_close(got[0], expected[frame])


def with_rigid(angles, shift):
    """A field whose rigid heads give these before they are bounded, at the mean features of `points()`."""
    field = Deformation(TINY, num_frames=3, generator=torch.Generator().manual_seed(3))
    mean = field.planes(points() * 2, torch.tensor([1.0]))[0].mean(0)
    for name, value in (("rigid_rotation", angles), ("rigid_translation", shift)):
        first, _, last = field.heads[name]
        hidden = torch.relu(first(mean)).detach()
        last.weight.data = torch.outer(torch.tensor(value), hidden) / hidden.square().sum()
    return field


def test_rigid_motion_is_a_rotation_about_the_centre_and_a_shift():
    """SciPy's rotations by the angles of the released sigmoids about x, y and z in turn; half a sphere's radius."""
    raw, shift = (0.7, -1.1, 2.0), (0.3, -4.0, 0.0)
    motion = with_rigid(raw, shift)(points(), torch.tensor([2]))
    sigmoids = torch.sigmoid(torch.tensor([raw, shift], dtype=torch.float64))
    rotation = Rotation.from_euler("xyz", (sigmoids[0] * 2 * math.pi - math.pi).numpy())
    expected = rotation.apply(points().double().numpy()) + 0.5 * (sigmoids[1] * 2 - 1).numpy()
    torch.testing.assert_close(motion.positions[0].detach().double(), torch.from_numpy(expected), atol=2e-6, rtol=0)
    turned = Rotation.from_quat(motion.quats_wxyz[0].detach().roll(-1, 1).numpy())
    assert float((turned * rotation.inv()).magnitude().max()) < 2e-6


def test_rigid_motion_is_bounded():
    """The released bounds, half a turn and one radius: no weight takes the object farther."""
    far = with_rigid((50.0, 0.0, 0.0), (50.0, -50.0, 50.0))(points(), torch.tensor([2]))
    turned = points() * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0.5, -0.5, 0.5])
    torch.testing.assert_close(far.positions[0].detach(), turned, atol=1e-5, rtol=0)


def test_own_rotation_follows_the_head_alone_without_a_rigid_motion():
    """The head's value added to the identity and brought to length 1, as the released code does; off, the identity."""
    config = DeformationConfig(space=(4,), time=(3,), channels=2, hidden=3, rigid=False)
    field = wild(config)
    frames = torch.tensor([2, 4])
    raw = field.heads["rotation"](field.planes(points() * 2, frames * 0.4 - 1)) + torch.tensor([1.0, 0, 0, 0])
    torch.testing.assert_close(field(points(), frames).quats_wxyz, raw / raw.norm(dim=-1, keepdim=True))
    off = field(points(), frames, rotation=False)
    assert bool((off.quats_wxyz == torch.tensor([1.0, 0, 0, 0])).all())
    assert off.positions.equal(field(points(), frames).positions)


def test_parameter_groups_hold_every_parameter_once():
    """The module's own list of parameters, and the config's learning rates."""
    field = Deformation(TINY, num_frames=3)
    groups = {group["name"]: group for group in field.parameter_groups()}
    held = [id(weight) for group in groups.values() for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in field.parameters())
    assert {name: group["lr"] for name, group in groups.items()} == {"planes": 1e-2, "heads": 1e-4, "rigid": 1e-3}
    still = Deformation(DeformationConfig(space=(4,), time=(3,), rigid=False), num_frames=3)
    assert [group["name"] for group in still.parameter_groups()] == ["planes", "heads"]


def test_deformation_learns_a_given_motion():
    """A known bend of a rod, reached by Adam from rest within a hundredth of the sphere."""
    config = DeformationConfig(space=(6, 12), time=(4,) * 2, channels=4, hidden=16, learning_rate_heads=5e-3)
    field = Deformation(config, num_frames=4, generator=torch.Generator().manual_seed(0))
    rest = points(60) * torch.tensor([1.0, 0.1, 0.1])
    bend = torch.linspace(0, 0.15, 4)[:, None] * (rest[:, 0] * 4).square()
    truth = rest.expand(4, -1, -1).clone()
    truth[..., 2] += bend
    optimizer = torch.optim.Adam(field.parameter_groups(), eps=1e-15)
    for _ in range(150):
        optimizer.zero_grad()
        (field(rest, torch.arange(4), rotation=False).positions - truth).square().sum().backward()
        optimizer.step()
    left = (field(rest, torch.arange(4)).positions - truth).detach().norm(dim=-1).mean()
    assert float(left) < 0.005 < 0.04 < float(bend.mean())
