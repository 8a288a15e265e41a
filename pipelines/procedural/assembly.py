"""One procedural asset under construction: nodes, joints, meshes, skins, materials and animations, written as GLB.

Families describe an asset in their own comfortable unit and in model axes; this module turns poses into keys (LINEAR,
STEP or CUBICSPLINE), applies the asset's unit, and hands everything to the glTF writer. It invents no shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from manifests.gltf import GlbWriter

from .draw import linear
from .mesh import Mesh, rotation_matrix
from .motion import Pose, aim_leg, quat_multiply, quat_xyzw

__all__ = ["COPYRIGHT", "Assembly", "Limb", "Motion"]

COPYRIGHT = "CC0-1.0 (public domain dedication); made by mvvideo's procedural assets"
PATHS = {"": "rotation", "t": "translation", "s": "scale", "w": "weights"}


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A pose function and how it becomes keys; an animation has one or more, for different channels.

    Attributes:
        pose: phase 0..1 -> pose (see `motion`).
        duration_s: from the first to the last key; 0 with one key for a still pose.
        keys: how many, evenly spaced; by default 16 a second, 9 at least.
        interpolation: LINEAR, STEP or CUBICSPLINE.
        start_s: time of the first key (dead lead time before it).
    """

    pose: Callable[[float], Pose]
    duration_s: float
    keys: int | None = None
    interpolation: str = "LINEAR"
    start_s: float = 0.0


@dataclass(frozen=True)
class Limb:
    """Names of the three joints of a leg, and the side to which its knee bends (+z or -z)."""

    thigh: str
    shank: str
    foot: str
    knee_forward: bool


@dataclass
class _Node:
    name: str
    parent: int
    translation: np.ndarray  # (3,) local, at rest
    turn: np.ndarray  # (4,) xyzw local, at rest
    scale: np.ndarray  # (3,)
    aligned: np.ndarray | None = None  # joints: (4,) model-space rest rotation of the parent
    mesh: int | None = None
    skin: int | None = None
    as_matrix: bool = False
    weights: list[float] | None = None


@dataclass
class Assembly:
    """An asset.

    Args:
        unit: every length is multiplied by it when written.

    Attributes:
        loops: animation index -> whether the end pose meets the start pose by design.
    """

    unit: float = 1.0
    loops: dict[int, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._writer = GlbWriter(copyright=COPYRIGHT, generator="mvvideo procedural assets")
        self._nodes: list[_Node] = []
        self._index: dict[str, int] = {}
        self._model_rest: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._textured: set[int] = set()

    # ---- appearance

    def material(
        self,
        name: str,
        color: Sequence[float] = (1.0, 1.0, 1.0),
        *,
        metallic: float = 0.0,
        roughness: float = 0.6,
        emissive: Sequence[float] | None = None,
        texture: bytes | None = None,
    ) -> int:
        """A material; colours sRGB-encoded, `texture` PNG bytes repeated over the uv square."""
        pbr: dict = {
            "baseColorFactor": [round(float(c), 5) for c in linear(color)] + [1.0],
            "metallicFactor": float(metallic),
            "roughnessFactor": float(roughness),
        }
        if texture is not None:
            image = self._writer.add_image(texture, "image/png", name)
            sampler = {"magFilter": 9729, "minFilter": 9987, "wrapS": 10497, "wrapT": 10497}
            pbr["baseColorTexture"] = {"index": self._writer.add_texture(image, sampler)}
        described: dict = {"name": name, "pbrMetallicRoughness": pbr}
        if emissive is not None:
            described["emissiveFactor"] = [round(float(c), 5) for c in linear(emissive)]
        index = self._writer.add_material(described)
        if texture is not None:
            self._textured.add(index)
        return index

    # ---- structure

    def node(
        self,
        name: str,
        parent: str | None = None,
        at: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        turn: Sequence[float] = (0.0, 0.0, 0.0),
        scale: Sequence[float] = (1.0, 1.0, 1.0),
        parts: Sequence[tuple] = (),
        weights: Sequence[float] | None = None,
        as_matrix: bool = False,
    ) -> str:
        """A node, relative to its parent; poses turn it about its own axes, after its rest `turn` (degrees).

        Args:
            parts: (mesh, material) or (mesh, material, morph targets as a list of (N, 3) shifts).
            weights: default morph weights.
            as_matrix: written as a matrix; such a node cannot be animated.
        """
        translation, scale = np.asarray(at, dtype=np.float64), np.asarray(scale, dtype=np.float64)
        node = _Node(name, self._parent(parent), translation, quat_xyzw(np.asarray(turn)), scale, as_matrix=as_matrix)
        node.weights = None if weights is None else [float(w) for w in weights]
        if parts:
            primitives = [self._primitive(*part) for part in parts]
            node.mesh = self._writer.add_mesh(name, primitives, weights=node.weights)
        return self._add(node)

    def joint(self, name: str, parent: str | None, at: Sequence[float], turn: Sequence[float] = (0, 0, 0)) -> str:
        """A joint at a point of the model; poses turn it about the model's axes, whatever its own rest `turn` is."""
        at, turn_xyzw = np.asarray(at, dtype=np.float64), quat_xyzw(np.asarray(turn, dtype=np.float64))
        origin, base = self._model_rest.get(parent or "", (np.zeros(3), np.array([0.0, 0, 0, 1])))
        back = base * np.array([-1, -1, -1, 1])
        local = _rotated(back, at - origin)
        node = _Node(name, self._parent(parent), local, quat_multiply(back, turn_xyzw), np.ones(3), aligned=base)
        self._model_rest[name] = (at, turn_xyzw)
        return self._add(node)

    def place(self, joint: str) -> np.ndarray:
        """(3,) resting place of a joint in the model."""
        return self._model_rest[joint][0]

    def frame(self, joint: str, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Where a pose puts a joint: (3,) point of the model and (3, 3) turn against its rest."""
        parent = self._nodes[self._index[joint]].parent
        if parent < 0:
            at, turn = self.place(joint), np.eye(3)
        else:
            above = self._nodes[parent].name
            origin, turn = self.frame(above, pose)
            at = origin + turn @ (self.place(joint) - self.place(above))
        at = at + turn @ np.asarray(pose.get(f"{joint}.t", (0, 0, 0)), dtype=np.float64)
        return at, turn @ rotation_matrix(*pose.get(joint, (0, 0, 0)))

    def plant(self, pose: Pose, limb: Limb, ankle: Sequence[float], *, foot_pitch_deg: float = 0.0) -> None:
        """Bend a limb so that its ankle reaches a point of the model; adds three joints to the pose.

        The limb bends in its parent's yz plane; the foot stays level but for `foot_pitch_deg`.
        """
        parent = self._nodes[self._nodes[self._index[limb.thigh]].parent].name
        origin, turn = self.frame(parent, pose)
        rest = tuple(self.place(j) for j in (limb.thigh, limb.shank, limb.foot))
        hip = origin + turn @ (rest[0] - self.place(parent))
        local = rest[0] + turn.T @ (np.asarray(ankle, dtype=np.float64) - hip)
        thigh, shank = aim_leg(rest, rest[0], local, knee_forward=limb.knee_forward)
        lean = float(np.degrees(np.arctan2(turn[2, 1], turn[1, 1])))
        pose[limb.thigh], pose[limb.shank] = (thigh, 0, 0), (shank, 0, 0)
        pose[limb.foot] = (foot_pitch_deg - thigh - shank - lean, 0, 0)

    def skinned(self, name: str, parts: Sequence[tuple[Mesh, int, np.ndarray]], joints: Sequence[str]) -> str:
        """A skinned mesh; each part is (mesh, material, weights (N, len(joints)))."""
        inverse_bind = np.tile(np.eye(4), (len(joints), 1, 1))
        for k, joint in enumerate(joints):
            at, turn = self._model_rest[joint]
            back = turn * np.array([-1, -1, -1, 1])
            inverse_bind[k, :3, :3] = np.stack([_rotated(back, axis) for axis in np.eye(3)], -1)
            inverse_bind[k, :3, 3] = -_rotated(back, at) * self.unit
        skin = self._writer.add_skin([self._index[j] for j in joints], inverse_bind, name)
        primitives = []
        for mesh, material, weights in parts:
            order = np.argsort(-weights, axis=1, kind="stable")[:, :4]
            top = np.take_along_axis(weights, order, 1)
            top[top < 0.004] = 0.0
            top /= top.sum(1, keepdims=True)
            primitive = self._primitive(mesh, material)
            primitive["joints"] = _padded(np.where(top > 0, order, 0)).astype(np.uint16)
            primitive["weights"] = _padded(top).astype(np.float32)
            primitives.append(primitive)
        mesh_index = self._writer.add_mesh(name, primitives)
        identity = np.array([0.0, 0, 0, 1])
        return self._add(_Node(name, -1, np.zeros(3), identity, np.ones(3), mesh=mesh_index, skin=skin))

    # ---- animation

    def animate(self, name: str | None, *motions: Motion, loops: bool = False) -> None:
        """Add an animation; None leaves it without a name."""
        channels: list[dict] = []
        for motion in motions:
            count = motion.keys or max(9, round(16 * motion.duration_s) + 1)
            phases = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
            poses = [motion.pose(float(p)) for p in phases]
            times = np.round(motion.start_s + phases * motion.duration_s, 5)
            for key in poses[0]:
                channels.append(self._channel(key, times, np.array([pose[key] for pose in poses]), motion))
        self.loops[self._writer.add_animation(name, channels)] = loops

    def _channel(self, key: str, times: np.ndarray, values: np.ndarray, motion: Motion) -> dict:
        name, _, kind = key.partition(".")
        node = self._nodes[self._index[name]]
        values = values.reshape(len(times), -1).astype(np.float64)
        if kind == "":
            values = quat_xyzw(values)
            if node.aligned is None:
                values = quat_multiply(np.broadcast_to(node.turn, values.shape), values)
            else:
                back = node.aligned * np.array([-1, -1, -1, 1])
                values = quat_multiply(
                    quat_multiply(np.broadcast_to(back, values.shape), values),
                    np.broadcast_to(quat_multiply(node.aligned, node.turn), values.shape),
                )
            for k in range(1, len(values)):
                if values[k] @ values[k - 1] < 0:
                    values[k] *= -1
        elif kind == "t":
            shift = values if node.aligned is None else _rotated(node.aligned * np.array([-1, -1, -1, 1]), values)
            values = (node.translation + shift) * self.unit
        elif kind == "w":
            values = np.clip(values, 0, 1)  # glTF has no such limit, but Blender's shape keys clamp: keep readers alike
        elif kind == "s":
            values = node.scale * (values if values.shape[1] == 3 else np.repeat(values, 3, 1))
        if len(times) > 2 and np.ptp(values, axis=0).max() < 1e-9:  # constant: two keys say as much
            times, values = times[[0, -1]], values[[0, -1]]
        if motion.interpolation == "CUBICSPLINE":
            values = np.stack([(slope := _slopes(times, values)), values, slope], axis=1)
        return {
            "node": self._index[name],
            "path": PATHS[kind],
            "times": times.astype(np.float32),
            "values": values.astype(np.float32),
            "interpolation": motion.interpolation,
        }

    # ---- writing

    def to_bytes(self) -> bytes:
        """The GLB."""
        children: dict[int, list[int]] = {}
        for k, node in enumerate(self._nodes):
            children.setdefault(node.parent, []).append(k)
        for k, below in children.items():
            if k >= 0:
                self._writer.set_children(k, below)
        return self._writer.to_bytes(scene_nodes=children.get(-1, []))

    def _add(self, node: _Node) -> str:
        assert node.name not in self._index, f"node {node.name!r} exists twice"
        assert "." not in node.name, f"node {node.name!r} has a dot, which poses use to name a channel"
        place: dict = {
            "translation": node.translation * self.unit,
            "rotation_xyzw": node.turn,
            "scale": node.scale,
        }
        if node.as_matrix:
            matrix = np.eye(4)
            matrix[:3, :3] = np.stack([_rotated(node.turn, axis) for axis in np.eye(3)], -1) * node.scale
            matrix[:3, 3] = node.translation * self.unit
            place = {"matrix": matrix}
        index = self._writer.add_node(node.name, mesh=node.mesh, skin=node.skin, weights=node.weights, **place)
        assert index == len(self._nodes), "nodes are written in the order they are added"
        self._index[node.name] = index
        self._nodes.append(node)
        return node.name

    def _parent(self, name: str | None) -> int:
        return -1 if name is None else self._index[name]

    def _primitive(self, mesh: Mesh, material: int, targets: Sequence[np.ndarray] | None = None) -> dict:
        size = float(np.ptp(mesh.positions, axis=0).max())
        grid = 2.0 ** np.ceil(np.log2(size) - 20)  # a power of two: the last digits, where processors differ, go
        snap = lambda x: (np.round(x / grid) * grid * self.unit).astype(np.float32)  # noqa: E731
        return {
            "positions": snap(mesh.positions),
            "triangles": mesh.triangles,
            "normals": _snapped_normals(mesh.normals),
            "uvs": np.round(mesh.uvs, 5).astype(np.float32) if material in self._textured else None,
            "colors": None if mesh.colors is None else np.round(mesh.colors, 4).astype(np.float32),
            "targets": None if targets is None else [snap(t) for t in targets],
            "material": material,
        }


def _snapped_normals(normals: np.ndarray) -> np.ndarray:
    rounded = np.round(normals, 4)
    return (rounded / np.linalg.norm(rounded, axis=1, keepdims=True)).astype(np.float32)


def _padded(rows: np.ndarray) -> np.ndarray:
    return np.pad(rows, ((0, 0), (0, 4 - rows.shape[1])))


def _rotated(turn_xyzw: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(..., 3) points turned by one quaternion (4,)."""
    v, w = turn_xyzw[:3], turn_xyzw[3]
    t = 2 * np.cross(v, points)
    return points + w * t + np.cross(v, t)


def _slopes(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Tangents per second; around the seam too where the last value repeats the first."""
    if len(times) > 2 and np.abs(values[0] - values[-1]).max() < 1e-9:
        step = times[1] - times[0]
        before, after = np.roll(values[:-1], 1, 0), np.roll(values[:-1], -1, 0)
        slope = (after - before) / (2 * step)
        return np.concatenate([slope, slope[:1]])
    return np.gradient(values, times, axis=0)
