"""Gaussian PLYs: against a foreign reader, against colours and covariances seen in both spaces, and bad files."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from animate.config import SubjectConfig
from animate.export.gaussian_sequence import write_sequence
from animate.subject.gaussians import SH_C0, Gaussians
from animate.subject.harmonics import harmonics, turned
from animate.subject.placement import Z_UP_FROM, Placement
from animate.subject.ply import open_gaussians, read_ply, write_ply
from manifests.errors import InputError

COUNT = 40


def scene(seed: int = 0, count: int = COUNT, sh: int | None = 15) -> SimpleNamespace:
    """Gaussians with every field different, as plain float32 arrays."""
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    return SimpleNamespace(
        means=rng.normal(size=(count, 3)).astype(np.float32) * 3 + 5,
        quats_wxyz=(quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        scales=rng.uniform(0.01, 0.3, (count, 3)).astype(np.float32),
        opacities=rng.uniform(0.06, 0.99, count).astype(np.float32),
        colors=rng.uniform(0, 1, (count, 3)).astype(np.float32),
        sh=None if sh is None else rng.normal(size=(count, sh, 3)).astype(np.float32) * 0.1,
    )


def covariances(quats_wxyz, scales) -> np.ndarray:
    w, x, y, z = np.moveaxis(np.asarray(quats_wxyz, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    axes = np.moveaxis(np.array(rows), -1, 0) * np.asarray(scales)[:, None, :]
    return axes @ axes.swapaxes(1, 2)


@pytest.mark.parametrize("sh", [None, 3, 8, 15])
def test_written_ply_reads_back_in_values_and_bytes(tmp_path, sh):
    """Oracle: the values that were written; a second writing gives the same bytes."""
    written = scene(sh=sh)
    write_ply(tmp_path / "a.ply", written)
    found = read_ply(tmp_path / "a.ply")
    for name, value in vars(written).items():
        if value is not None:
            np.testing.assert_allclose(getattr(found, name), value, rtol=2e-6, atol=2e-7, err_msg=name)
    assert (found.sh is None) == (sh is None)
    write_ply(tmp_path / "b.ply", found)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_written_ply_is_read_by_another_reader(tmp_path):
    """Oracle: trimesh's PLY reader and the published activations."""
    written = scene()
    write_ply(tmp_path / "a.ply", written)
    with (tmp_path / "a.ply").open("rb") as file:
        raw = trimesh.exchange.ply.load_ply(file)["metadata"]["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(np.stack([raw[k] for k in "xyz"], 1).reshape(-1, 3), written.means)
    np.testing.assert_allclose(1 / (1 + np.exp(-raw["opacity"].ravel())), written.opacities, rtol=1e-5)
    np.testing.assert_allclose(np.exp(raw["scale_1"].ravel()), written.scales[:, 1], rtol=1e-5)
    np.testing.assert_allclose(0.5 + SH_C0 * raw["f_dc_2"].ravel(), written.colors[:, 2], atol=1e-6)
    # f_rest is ordered by channel first: 15 of red, 15 of green, 15 of blue.
    np.testing.assert_array_equal(raw["f_rest_17"].ravel(), written.sh[:, 2, 1])
    np.testing.assert_array_equal(raw["rot_0"].ravel(), written.quats_wxyz[:, 0])


def test_ply_of_another_order_and_types_is_read(tmp_path):
    """Oracle: the same values written by numpy with other properties between, in another order, as doubles."""
    wanted = scene(sh=None)
    write_ply(tmp_path / "a.ply", wanted)
    with (tmp_path / "a.ply").open("rb") as file:
        raw = trimesh.exchange.ply.load_ply(file)["metadata"]["_ply_raw"]["vertex"]["data"]
    names = [name for name in raw.dtype.names[::-1] if not name.startswith("n")]
    table = np.zeros(COUNT, [("red", "u1"), *((name, "<f8") for name in names)])
    for name in names:
        table[name] = raw[name].ravel()
    lines = ["ply", "format binary_little_endian 1.0", "comment by hand", f"element vertex {COUNT}"]
    lines += ["property uchar red", *(f"property double {name}" for name in names), "end_header"]
    (tmp_path / "b.ply").write_bytes("\r\n".join(lines).encode() + b"\r\n" + table.tobytes())
    one, other = read_ply(tmp_path / "a.ply"), read_ply(tmp_path / "b.ply")
    for name in ("means", "quats_wxyz", "scales", "opacities", "colors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_harmonics_are_those_of_the_gaussians():
    """Oracle: the polynomials that `Gaussians.colors_seen` evaluates."""
    given = scene(1)
    gaussians = Gaussians(**{name: torch.from_numpy(value) for name, value in vars(given).items()})
    c2w = torch.eye(4).repeat(1, 1, 1)
    c2w[0, :3, 3] = torch.tensor([0.3, -20.0, 1.0])
    towards = given.means - c2w[0, :3, 3].numpy()
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    colors = given.colors + np.einsum("nk,nkc->nc", harmonics(towards, 15), given.sh)
    np.testing.assert_allclose(gaussians.colors_seen(c2w)[0].numpy(), np.maximum(colors, 0), atol=2e-6)


def test_turned_harmonics_give_the_same_color_along_the_turned_direction():
    """Oracle: a function on the sphere that is turned by looking along the direction turned back."""
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    directions = rng.normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    sh = rng.normal(size=(2, 15, 3))
    before = np.einsum("dk,nkc->dnc", harmonics(directions, 15), sh)
    after = np.einsum("dk,nkc->dnc", harmonics(directions @ rotation.T, 15), turned(sh, rotation))
    np.testing.assert_allclose(after, before, atol=1e-12)


@pytest.mark.parametrize("up", ["auto", "y", "z"])
def test_opened_scene_looks_as_in_the_file(tmp_path, up):
    """Oracle: rigid motion and scale; covariances and colours of both spaces agree, seen from the same place."""
    given = scene(3)
    write_ply(tmp_path / "s.ply", given)
    rest = open_gaussians(tmp_path / "s.ply", SubjectConfig(up=up))
    rotation = {"auto": Z_UP_FROM["-y"], "y": Z_UP_FROM["y"], "z": np.eye(3)}[up]
    upward = {"auto": [0, -1, 0], "y": [0, 1, 0], "z": [0, 0, 1]}[up]
    np.testing.assert_array_equal(rotation @ upward, [0, 0, 1])
    assert np.linalg.det(rotation) == pytest.approx(1)
    means = (given.means.astype(np.float64) @ rotation.T - rest.center) * rest.scale
    np.testing.assert_allclose(rest.gaussians.means.numpy(), means, atol=1e-6)
    spread = rotation @ covariances(given.quats_wxyz, given.scales) @ rotation.T * rest.scale**2
    np.testing.assert_allclose(
        covariances(rest.gaussians.quats_wxyz.numpy(), rest.gaussians.scales.numpy()), spread, atol=1e-8
    )
    own = Gaussians(**{name: torch.from_numpy(value) for name, value in vars(given).items()})
    eye = np.array([2.0, -7.0, 9.0])
    there, here = torch.eye(4)[None].clone(), torch.eye(4)[None].clone()
    there[0, :3, 3] = torch.from_numpy(eye)
    here[0, :3, 3] = torch.from_numpy((rotation @ eye - rest.center) * rest.scale)
    torch.testing.assert_close(rest.gaussians.colors_seen(here), own.colors_seen(there), atol=1e-5, rtol=0)


def test_opened_scene_fills_the_sphere_without_its_faint_splats(tmp_path):
    """Oracle: the radius asked for, of the box's sphere around what can be seen; a faint one far away is no part."""
    given = scene(4)
    given.means[0], given.opacities[0] = [900, 0, 0], 0.01
    write_ply(tmp_path / "s.ply", given)
    rest = open_gaussians(tmp_path / "s.ply", SubjectConfig(radius=0.3))
    seen = rest.gaussians.means.numpy()[1:]
    assert np.linalg.norm(seen, axis=1).max() == pytest.approx(0.3, rel=1e-5)
    np.testing.assert_allclose(seen.max(0) + seen.min(0), 0, atol=1e-6)
    assert rest.diagonal == pytest.approx(np.linalg.norm(np.ptp(seen, axis=0)), rel=1e-5)
    given_center = open_gaussians(tmp_path / "s.ply", normalization=([1.0, 2, 3], 0.25))
    np.testing.assert_array_equal(given_center.center, [1, 2, 3])
    assert given_center.scale == 0.25


def test_sequence_is_one_file_a_frame_in_the_files_own_space(tmp_path):
    """Oracle: the file itself for frame 0, and a known shift and turn for frame 1."""
    given = scene(5)
    write_ply(tmp_path / "s.ply", given)
    rest = open_gaussians(tmp_path / "s.ply")
    means = torch.stack([rest.gaussians.means, rest.gaussians.means + torch.tensor([0.0, 0.0, 0.1])])
    paths = write_sequence(tmp_path / "frames", rest.gaussians, means, rest.placement)
    assert [path.name for path in paths] == ["000.ply", "001.ply"]
    for path, shift in zip(paths, (0.0, 0.1), strict=True):
        found = read_ply(path)
        np.testing.assert_allclose(found.means, given.means - [0, shift / rest.scale, 0], atol=2e-5)  # -y is up
        np.testing.assert_allclose(
            covariances(found.quats_wxyz, found.scales), covariances(given.quats_wxyz, given.scales), atol=1e-7
        )
        np.testing.assert_allclose(found.sh, given.sh, atol=1e-6)
    grown = write_sequence(
        tmp_path / "grown", rest.gaussians, means, rest.placement, scales=torch.stack([rest.gaussians.scales * 2] * 2)
    )
    np.testing.assert_allclose(read_ply(grown[1]).scales, given.scales * 2, rtol=1e-5)


def test_placement_goes_there_and_back():
    """Oracle: the identity."""
    given = scene(6)
    placement = Placement(center=np.array([1.0, -2, 3]), scale=0.2, rotation=Z_UP_FROM["-y"])
    back = placement.to_own(placement.to_normalized(given))
    for name in ("means", "scales", "opacities", "colors", "sh"):
        np.testing.assert_allclose(getattr(back, name), getattr(given, name), atol=1e-5)


def _edited(path, old: bytes, new: bytes) -> bytes:
    data = path.read_bytes()
    assert old in data
    return data.replace(old, new, 1)


BAD = {
    "cut": (lambda path: path.read_bytes()[:-1], "cut off"),
    "ascii": (lambda path: _edited(path, b"binary_little_endian", b"ascii"), "as binary"),
    "big": (lambda path: _edited(path, b"little", b"big"), "expected binary_little_endian"),
    "points": (lambda path: _edited(path, b"rot_3", b"red"), "without rot_3"),
    "text": (lambda path: b"solid", "no PLY header"),
    "packed": (lambda path: _edited(path, b"element vertex", b"element chunk"), "not compressed"),
    "list": (lambda path: _edited(path, b"float nx", b"list uchar int nx"), "one number a property"),
    "twice": (lambda path: _edited(path, b"float nx", b"float x"), "each once"),
    "harmonics": (lambda path: _edited(path, b"f_rest_44", b"f_reso_44"), "44 properties"),
    "empty": (lambda path: _edited(path, b"vertex 40", b"vertex 0"), "no Gaussian"),
    "nan": (lambda path: path.read_bytes()[:-4] + np.float32(np.nan).tobytes(), "quats_wxyz that are not finite in 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_ply_is_refused(tmp_path, case):
    """Oracle: one `InputError` that names the file and the trouble."""
    write_ply(tmp_path / "good.ply", scene())
    make, text = BAD[case]
    (tmp_path / "bad.ply").write_bytes(make(tmp_path / "good.ply"))
    with pytest.raises(InputError, match=rf"bad\.ply: .*{text}"):
        read_ply(tmp_path / "bad.ply")


def test_scene_that_cannot_be_placed_is_refused(tmp_path):
    """Oracle: one `InputError` each for too many, nothing visible, one point, and no file."""
    given = scene()
    write_ply(tmp_path / "a.ply", given)
    write_ply(tmp_path / "b.ply", SimpleNamespace(**(vars(given) | {"means": np.ones((COUNT, 3))})))
    write_ply(tmp_path / "c.ply", SimpleNamespace(**(vars(given) | {"opacities": np.full(COUNT, 0.01)})))
    config = SubjectConfig(max_vertices=39)
    texts = {"a": r"found 40 Gaussians.*GiB.*at most 39", "b": "one point", "c": "opacity below", "d": "No such file"}
    for name, text in texts.items():
        with pytest.raises(InputError, match=text):
            open_gaussians(tmp_path / f"{name}.ply", config if name == "a" else SubjectConfig())
