"""Models and priors that are awkward or broken, each through a whole run: it works, or one sentence says why not."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from animate.run.job import RECORD
from animate.subject.ply import read_ply, write_ply
from manifests.errors import InputError
from manifests.gltf import GlbWriter
from tests.animate.moving_files import awkward_glb, plain_glb, quad_obj, webp_glb
from tests.animate.tiny_jobs import PROMPT, Remembering, start, tiny, write_cube_scene
from tests.animate.tiny_motion import CUBE, FACES, write_sliding_cube
from tests.tiny_dataset import make_tiny_dataset
from tests.train.tiny_pipeline import tiny_pipeline


@pytest.fixture(autouse=True)
def _one_thread():
    """The cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """An MV-VDM with random weights, of 4 frames of 16 pixels: it takes any object."""
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A recorded clip of 4 frames of random pixels: followed at once, wherever the object stands."""
    return f"clip:{make_tiny_dataset(tmp_path_factory.mktemp('data') / 'data', clips=1, views=2, frames=4)}"


def short(method: str = "animate3d-mesh", **changes):
    recon = {"steps": 2, "frames": 4, "fps": 8.0} | changes.pop("recon", {})
    return tiny(method, recon=recon, dynamic={"frames": 4, "steps": 1, "masked": False}, frame_size=8, **changes)


def written(path, *primitives: dict, writer: GlbWriter | None = None):
    """Each primitive on a node of its own."""
    writer = writer or GlbWriter()
    for index, primitive in enumerate(primitives):
        writer.add_node(f"n{index}", mesh=writer.add_mesh(f"m{index}", [primitive]))
    path.write_bytes(writer.to_bytes())
    return path


def cube_primitive(**more) -> dict:
    return {"positions": CUBE, "triangles": FACES} | more


def picture() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(out, "PNG")
    return out.getvalue()


def many_parts(path):
    """Twenty cubes of as many materials, some textured, one without UVs for its texture."""
    writer, primitives = GlbWriter(), []
    texture = writer.add_texture(writer.add_image(picture(), "image/png"))
    for number in range(20):
        base = (
            {"baseColorTexture": {"index": texture}}
            if number % 2
            else {"baseColorFactor": [0.1, 0.5, 0.05 * number, 1]}
        )
        material = writer.add_material({"pbrMetallicRoughness": base})
        uvs = {} if number % 4 == 3 else {"uvs": CUBE[:, :2]}
        primitives.append(cube_primitive(positions=CUBE * 0.4 + [number % 5, number // 5, 0], material=material, **uvs))
    return written(path, *primitives, writer=writer)


def texture_without_uvs(path):
    writer = GlbWriter()
    texture = writer.add_texture(writer.add_image(picture(), "image/png"))
    material = writer.add_material({"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}})
    return written(path, cube_primitive(material=material), writer=writer)


def non_manifold(path):
    """Three triangles on an edge, a doubled and a degenerate one, and a point that two fans share."""
    triangles = np.concatenate([FACES, FACES[:1], [[0, 1, 7], [0, 1, 6], [2, 2, 3]]])
    fan = {
        "positions": np.concatenate([CUBE[:1], CUBE[:1] - [1, 0, 0], CUBE[:1] - [0, 1, 0]]),
        "triangles": [[0, 1, 2]],
    }
    return written(path, cube_primitive(triangles=triangles), fan)


def one_triangle(path):
    return written(path, {"positions": [[0, 0, 0], [1, 0, 0], [0, 1, 0]], "triangles": [[0, 1, 2]]})


def far_and_tiny(path):
    """A cube of a millimetre a kilometre away."""
    return written(path, cube_primitive(positions=CUBE * 1e-3 + [1000, 0, 0]))


GOOD = {
    "no-uvs": plain_glb,
    "texture-without-uvs": texture_without_uvs,
    "many-parts": many_parts,
    "non-manifold": non_manifold,
    "one-triangle": one_triangle,
    "far-and-tiny": far_and_tiny,
    "transparent": webp_glb,
    "everything": awkward_glb,
    "obj": lambda path: quad_obj(path.parent),
}


@pytest.mark.parametrize(
    ("kind", "gaussians"),
    [(kind, "vertices") for kind in GOOD]
    + [(kind, "surface") for kind in ("one-triangle", "many-parts", "everything")],
)
def test_awkward_mesh_is_animated(tmp_path, clip, kind, gaussians):
    """Oracle: a foreign reader opens what was written, with triangles and finite places; every loss is a number."""
    model = GOOD[kind](tmp_path / "thing.glb")
    config = short(subject={"gaussians": gaussians}, recon={"fit_colors": 2})
    done, watcher = start(model, tmp_path / "out", config, clip)
    assert "animated.glb" in done.files
    assert all(np.isfinite(list(losses.values())).all() for losses in watcher.losses)
    opened = trimesh.load(tmp_path / "out" / "animated.glb")
    assert sum(len(part.faces) for part in opened.geometry.values()) > 0
    assert np.isfinite(opened.bounds).all()


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("animate3d-mesh", "far-and-tiny"),
        ("animate3d", "many-parts"),
        ("threetofour", "many-parts"),
        ("threetofour", "non-manifold"),
    ],
)
def test_awkward_mesh_is_animated_as_a_network_has_it(tmp_path, pipeline, method, kind):
    """Oracle: a finished run with its record."""
    model = GOOD[kind](tmp_path / "thing.glb")
    start(model, tmp_path / "out", short(method), pipeline)
    assert (tmp_path / "out" / RECORD).is_file()


def no_area(path):
    return written(path, {"positions": [[0, 0, 0], [1, 1, 1], [2, 2, 2]], "triangles": [[0, 1, 2]]})


def one_point(path):
    return written(path, {"positions": np.ones((3, 3)), "triangles": [[0, 1, 2]]})


def nan(path):
    lines = [f"v {x} {y} {z}" for x, y, z in [*CUBE[:-1].tolist(), [1, "nan", 1]]]
    path = path.with_suffix(".obj")
    path.write_text("\n".join([*lines, *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES), ""]))
    return path


def nan_glb(path):
    """The same in a GLB, put where its bytes are."""
    data = plain_glb(path).read_bytes()
    number = np.float32(1).tobytes()
    at = data.rindex(b"BIN\0") + 4
    path.write_bytes(data[:at] + data[at:].replace(number, np.float32("nan").tobytes(), 1))
    return path


def million(path):
    """As many vertices as that, all used."""
    rng = np.random.default_rng(0)
    positions = rng.random((1_000_002, 3), np.float32)
    return written(path, {"positions": positions, "triangles": np.arange(1_000_002).reshape(-1, 3)})


def no_triangles(path):
    path = path.with_suffix(".obj")
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    return path


def cut_off(path):
    data = plain_glb(path).read_bytes()
    path.write_bytes(data[:-30])
    return path


def empty(path):
    path.write_bytes(b"")
    return path


def other_type(path):
    path = path.with_suffix(".fbx")
    path.write_bytes(b"Kaydara")
    return path


BAD = {
    "no-area": (no_area, "without area"),
    "one-point": (one_point, "in one point"),
    "nan-obj": (nan, "finite"),
    "nan-glb": (nan_glb, "finite"),
    "million": (million, r"1000002 vertices.*GiB.*at most 200000.*max-vertices"),
    "no-triangles": (no_triangles, "."),
    "cut-off": (cut_off, "."),
    "empty": (empty, "."),
    "other-type": (other_type, r"found a file of type \"\.fbx\""),
}


@pytest.mark.parametrize("kind", BAD)
def test_broken_mesh_is_refused_in_one_sentence(tmp_path, clip, kind):
    """Oracle: the sentence begins with the file's name, says what was found and what to do; nothing else is printed."""
    make, rule = BAD[kind]
    model = make(tmp_path / "thing.glb")
    with pytest.raises(InputError, match=rule) as caught:
        start(model, tmp_path / "out", short(), clip)
    message = str(caught.value)
    assert message.startswith(model.name)
    assert "; " in message
    assert "\n" not in message


def changed_scene(path, **changes):
    write_cube_scene(path)
    given = read_ply(path)
    for name, change in changes.items():
        object.__setattr__(given, name, change(getattr(given, name)))
    write_ply(path, given)
    return path


def nan_scene(path):
    data = bytearray(write_cube_scene(path).read_bytes())
    data[-4:] = np.float32("nan").tobytes()
    path.write_bytes(data)
    return path


def point_cloud(path):
    trimesh.PointCloud(CUBE).export(path)
    return path


BAD_SCENES = {
    "nan": (nan_scene, "not finite"),
    "point-cloud": (point_cloud, "a point cloud or a mesh is none"),
    "one-point": (lambda p: changed_scene(p, means=lambda x: x * 0), "all Gaussians in one point"),
    "unseen": (lambda p: changed_scene(p, opacities=lambda x: x * 0), "only Gaussians of an opacity below"),
}


@pytest.mark.parametrize("kind", BAD_SCENES)
def test_broken_scene_is_refused_in_one_sentence(tmp_path, clip, kind):
    """Oracle: as for a mesh."""
    make, rule = BAD_SCENES[kind]
    model = make(tmp_path / "scene.ply")
    with pytest.raises(InputError, match=rf"^scene\.ply: found .*{rule}"):
        start(model, tmp_path / "out", short("animate3d"), clip)


def test_scene_of_two_gaussians_is_animated(tmp_path, clip):
    """Oracle: a finished run; two points have one edge."""
    model = changed_scene(tmp_path / "scene.ply", **{
        name: lambda x: x[:2] for name in ("means", "quats_wxyz", "scales", "opacities", "colors")
    })  # fmt: skip
    done, watcher = start(model, tmp_path / "out", short("animate3d", refine={"steps": 0}), clip)
    assert "gaussians/" in done.files
    assert all(np.isfinite(list(losses.values())).all() for losses in watcher.losses)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"recon": {"frames": 5}}, "found frames 5, expected 4"),
        ({"recon": {"size": 24}}, "found size 24, expected 16"),
        ({"refine": {"size": 24}}, "found size 24, expected 16"),
    ],
)
def test_prior_of_another_shape_is_refused_before_it_films(tmp_path, pipeline, changes, rule):
    """Oracle: the sentence names the prior and both numbers; no step of filming was told."""
    model, watcher = plain_glb(tmp_path / "thing.glb"), Remembering()
    with pytest.raises(InputError, match=rf"^--prior .*: {rule}"):
        start(model, tmp_path / "out", short("animate3d", **changes), pipeline, watcher=watcher)
    assert watcher.filmed == []


def test_prior_that_speaks_of_images_alone_cannot_mask(tmp_path, pipeline):
    """Oracle: the multi-view model has no maps of words; refused before the field is learnt."""
    model, watcher = plain_glb(tmp_path / "thing.glb"), Remembering()
    config = tiny("threetofour", dynamic={"frames": 4})
    with pytest.raises(InputError, match="without attention maps"):
        start(model, tmp_path / "out", config, pipeline, watcher=watcher)
    assert watcher.steps == []


@pytest.mark.parametrize("prior", ["", "nowhere", "clip:nowhere", "oracle:nowhere.glb", "oracle:{}#fly"])
def test_prior_that_is_not_there_is_refused(tmp_path, prior):
    """Oracle: the sentence begins with the option and what was given."""
    model = write_sliding_cube(tmp_path / "cube.glb")
    with pytest.raises(InputError, match=r"^--prior ") as caught:
        start(model, tmp_path / "out", tiny(), prior.format(model))
    assert "expected" in str(caught.value)


def test_oracle_of_another_object_is_refused(tmp_path):
    """Oracle: the sentence names the oracle's file and how far off it is."""
    model = written(tmp_path / "thing.glb", cube_primitive(positions=CUBE * [1, 2, 1]))
    truth = write_sliding_cube(tmp_path / "cube.glb")
    with pytest.raises(InputError, match=r"--prior oracle:cube\.glb: found the object at rest .*% of its size away"):
        start(model, tmp_path / "out", tiny(), f"oracle:{truth}", prompt=PROMPT)
