"""Gaussian scenes as PLY: read, written, and brought into the space of the cameras.

The layout is that of the trainer of Kerbl et al., 3D Gaussian Splatting, ACM TOG 42(4), 2023, which viewers and other
trainers share: binary little endian, logarithms of sizes, opacities before the sigmoid, rotations wxyz. Point clouds,
meshes and compressed scenes are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit

from animate.config import SubjectConfig
from animate.subject.placement import Z_UP_FROM, Placement, StoredGaussians, as_array
from manifests.errors import InputError
from manifests.publish import write_bytes

if TYPE_CHECKING:
    from animate.subject.gaussians import Gaussians

__all__ = ["RestGaussians", "open_gaussians", "read_ply", "write_ply"]

SH_C0 = 0.28209479177387814
TYPES = {
    "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "char": "i1", "int8": "i1", "uchar": "u1",
    "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2", "uint16": "<u2", "int": "<i4", "int32": "<i4",
    "uint": "<u4", "uint32": "<u4",
}  # fmt: skip
MEANS, COLORS, SCALES = ("x", "y", "z"), ("f_dc_0", "f_dc_1", "f_dc_2"), ("scale_0", "scale_1", "scale_2")
QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")
MOST_HEADER_BYTES = 1 << 16
BYTES_PER_GAUSSIAN = 16 * 4 * 600
"""Of a step over 16 frames: the field's features and the layers behind them, about 600 float32 a Gaussian and frame."""
THINNEST = 1e-20
"""Size of a Gaussian that a file has flat; a size of 0 has no logarithm."""
SEEN = 0.05
"""Gaussians with less opacity decide neither the centre nor the size of a scene; trainers leave such far around it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RestGaussians:
    """A Gaussian scene at rest, ready to be moved.

    Attributes:
        name: the file's name without its suffix.
        gaussians: in normalised space, z up, on the CPU.
        placement: the way back into the file's own space.
        front_azimuth_deg: of the object's front, from +x towards +y.
        diagonal: of the box around the Gaussians that can be seen, normalised.
    """

    name: str
    gaussians: Gaussians = field(repr=False)
    placement: Placement = field(repr=False)
    front_azimuth_deg: float
    diagonal: float

    @property
    def center(self) -> np.ndarray:
        """(3,) float64 in the world."""
        return self.placement.center

    @property
    def scale(self) -> float:
        """Normalised units in one of the file's."""
        return self.placement.scale


def open_gaussians(
    path: str | Path,
    config: SubjectConfig = SubjectConfig(),  # noqa: B008 (frozen)
    normalization: tuple[Sequence[float] | np.ndarray, float] | None = None,
) -> RestGaussians:
    """The Gaussian scene of a .ply file in normalised space.

    Args:
        path: the file.
        config: `up`, where auto is -y, the axis of scenes trained on COLMAP's cameras; front, radius, largest number.
        normalization: (center (3,), scale) in the world, z up, instead of those of the scene's own box and radius.

    Raises:
        InputError: no Gaussian scene, too many Gaussians, none that can be seen, or all of them in one point.
    """
    import torch

    from animate.subject.gaussians import Gaussians

    path = Path(path)
    stored = read_ply(path, most=config.max_vertices)
    rotation = Z_UP_FROM["-y" if config.up == "auto" else config.up]
    seen = (stored.means @ rotation.T)[stored.opacities >= SEEN]
    if not len(seen) or not np.ptp(seen, axis=0).max() > 0:
        found = "only Gaussians of an opacity below" if not len(seen) else "all Gaussians in one point at or above"
        raise InputError(f"{path.name}: found {found} {SEEN}, expected an object that can be seen; train it anew")
    low, high = seen.min(axis=0), seen.max(axis=0)
    if normalization is None:
        center = (low + high) / 2
        scale = config.radius / float(np.linalg.norm(seen - center, axis=1).max())
    else:
        center, scale = np.asarray(normalization[0], np.float64), float(normalization[1])
    placement = Placement(center=center, scale=scale, rotation=rotation)
    own = placement.to_normalized(stored)
    fields = {name: None if value is None else torch.from_numpy(np.float32(value)) for name, value in vars(own).items()}
    return RestGaussians(
        name=path.stem, gaussians=Gaussians(**fields), placement=placement, front_azimuth_deg=config.front_azimuth_deg,
        diagonal=float(np.linalg.norm(high - low)) * scale,
    )  # fmt: skip


def read_ply(path: str | Path, *, most: int | None = None) -> StoredGaussians:
    """The Gaussians of a file, in its own space.

    Args:
        path: the file.
        most: largest number of Gaussians; None is any.

    Raises:
        InputError: no PLY of Gaussians, one that ends early, numbers that are not finite, or too many.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            count, row = _header(path.name, file.read(MOST_HEADER_BYTES))
            _check_count(path.name, count, most)
            file.seek(row.start)
            data = file.read(count * row.dtype.itemsize)
    except OSError as error:
        raise InputError(f"{path}: found {error.strerror}, expected a Gaussian PLY; check the path") from error
    if len(data) < count * row.dtype.itemsize:
        raise InputError(
            f"{path.name}: found {len(data)} bytes of Gaussians, expected {count * row.dtype.itemsize} for {count}; "
            "the file was cut off, copy it again"
        )
    table = np.frombuffer(data, row.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        stored = _stored(table)
    for name, value in vars(stored).items():
        bad = 0 if value is None else int((~np.isfinite(value)).reshape(count, -1).any(axis=1).sum())
        if bad:
            raise InputError(
                f"{path.name}: found {name} that are not finite in {bad} of {count} Gaussians, expected numbers; "
                "remove these Gaussians in an editor or train the scene anew"
            )
    return stored


def write_ply(path: str | Path, gaussians: Any) -> None:
    """Writes Gaussians as 3D Gaussian Splatting does; nothing else is known of the scene.

    Args:
        path: the file; replaced whole, its folder is created.
        gaussians: `Gaussians` or `StoredGaussians`, in the space that the file shall have.
    """
    means, sh = as_array(gaussians.means), gaussians.sh
    columns: dict[str, np.ndarray] = dict(zip(MEANS, means.T, strict=True))
    columns |= dict.fromkeys(("nx", "ny", "nz"), np.zeros(len(means)))
    columns |= dict(zip(COLORS, (as_array(gaussians.colors).T - 0.5) / SH_C0, strict=True))
    if sh is not None:  # all coefficients of red, then of green, then of blue
        rest = as_array(sh).transpose(2, 1, 0).reshape(-1, len(means))
        columns |= {f"f_rest_{i}": column for i, column in enumerate(rest)}
    columns["opacity"] = np.clip(logit(as_array(gaussians.opacities)), -50, 50)
    columns |= dict(zip(SCALES, np.log(np.maximum(as_array(gaussians.scales), THINNEST)).T, strict=True))
    columns |= dict(zip(QUATS, as_array(gaussians.quats_wxyz).T, strict=True))
    table = np.stack(list(columns.values()), axis=1).astype("<f4")
    assert np.isfinite(table).all(), "Gaussians that are not finite"
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    lines += [*(f"property float {name}" for name in columns), "end_header", ""]
    write_bytes(path, "\n".join(lines).encode() + table.tobytes())


@dataclass(frozen=True)
class _Row:
    dtype: np.dtype
    start: int
    """Byte of the first Gaussian."""


def _header(name: str, head: bytes) -> tuple[int, _Row]:
    """How many Gaussians there are and how one is stored."""
    text, mark, _ = head.partition(b"end_header")
    newline = head.find(b"\n", len(text))
    if not head.startswith(b"ply") or not mark or newline < 0:
        raise InputError(f"{name}: found no PLY header, expected a Gaussian PLY; export the scene as PLY")
    lines = [line.split() for line in text.decode("latin-1").splitlines()]
    layout = next((" ".join(words[1:]) for words in lines if words[:1] == ["format"]), "no format")
    if layout != "binary_little_endian 1.0":
        raise InputError(f"{name}: found a PLY of {layout}, expected binary_little_endian 1.0; export it as binary")
    count, fields, element = 0, [], 0
    for words in lines:
        if words[:1] == ["element"]:
            element += 1
            if element == 1 and (len(words) != 3 or words[1] != "vertex" or not words[2].isdigit()):
                raise InputError(
                    f'{name}: found "{" ".join(words)[:60]}" first, expected "element vertex" and a number; export the '
                    "scene as a plain Gaussian PLY, not compressed"
                )
            count = int(words[2]) if element == 1 else count
        elif words[:1] == ["property"] and element == 1:
            if len(words) != 3 or words[1] not in TYPES or words[2] in dict(fields):
                raise InputError(f'{name}: found "{" ".join(words)[:60]}", expected one number a property, each once')
            fields.append((words[2], TYPES[words[1]]))
    _check_fields(name, [field for field, _ in fields])
    return count, _Row(np.dtype(fields), newline + 1)


def _check_fields(name: str, fields: list[str]) -> None:
    missing = [key for key in (*MEANS, *COLORS, "opacity", *SCALES, *QUATS) if key not in fields]
    if missing:
        raise InputError(
            f"{name}: found a PLY without {', '.join(missing)}, expected Gaussians as 3D Gaussian Splatting has them; "
            "a point cloud or a mesh is none: give a mesh as GLB or OBJ"
        )
    rest = sorted(key for key in fields if key.startswith("f_rest_"))
    if len(rest) not in (0, 9, 24, 45) or set(rest) != {f"f_rest_{i}" for i in range(len(rest))}:
        raise InputError(f"{name}: found {len(rest)} properties f_rest_*, expected 0, 9, 24 or 45 of them, numbered")


def _check_count(name: str, count: int, most: int | None) -> None:
    if count < 1:
        raise InputError(f"{name}: found no Gaussian, expected at least one; export the scene anew")
    if most is not None and count > most:
        raise InputError(
            f"{name}: found {count} Gaussians, which would need about {count * BYTES_PER_GAUSSIAN / 2**30:.0f} GiB of "
            f"memory with 16 frames, expected at most {most}; prune the scene or raise --max-vertices"
        )


def _stored(table: np.ndarray) -> StoredGaussians:
    def columns(names: Sequence[str]) -> np.ndarray:
        return np.stack([table[name].astype(np.float64) for name in names], axis=1)

    count = sum(name.startswith("f_rest_") for name in table.dtype.names or ()) // 3
    rest = None
    if count:
        rest = columns([f"f_rest_{i}" for i in range(3 * count)]).reshape(-1, 3, count).swapaxes(1, 2)
    quats = columns(QUATS)
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    return StoredGaussians(
        means=columns(MEANS),
        quats_wxyz=np.where(length == 0, [1.0, 0, 0, 0], quats),
        scales=np.maximum(np.exp(columns(SCALES)), THINNEST),
        opacities=expit(table["opacity"].astype(np.float64)),
        colors=0.5 + SH_C0 * columns(COLORS),
        sh=rest,
    )
