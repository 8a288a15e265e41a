"""Cameras of the contract and their conversions to the conventions of other projects.

A camera is ``c2w`` (4x4, camera to world: x right, y up, looking down -z, as in Blender and OpenGL) and ``K`` (3x3,
pixels, pixel centres at +0.5, image y down), in normalised space (z up, object inside the sphere of radius 0.5).
Azimuth is measured in the xy plane from +x towards +y, elevation from the xy plane up. Nothing here renders.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = [
    "angles_of",
    "from_animate3d",
    "from_mvdream",
    "from_opencv",
    "from_pytorch3d",
    "intrinsics",
    "look_at_origin",
    "project",
    "to_animate3d",
    "to_mvdream",
    "to_opencv",
    "to_pytorch3d",
]

_FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
_FLIP_XZ = np.diag([-1.0, 1.0, -1.0, 1.0])


def look_at_origin(azimuth_deg: float, elevation_deg: float, distance: float) -> np.ndarray:
    """c2w (4, 4) of a camera on a sphere around the origin, looking at it, z up.

    At the poles, where up is undefined, the limit along the azimuth is used.
    """
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    ca, sa, ce, se = math.cos(azimuth), math.sin(azimuth), math.cos(elevation), math.sin(elevation)
    backward = np.array([ca * ce, sa * ce, se])
    c2w = np.eye(4)
    c2w[:3, 0] = [-sa, ca, 0.0]
    c2w[:3, 1] = [-ca * se, -sa * se, ce]
    c2w[:3, 2] = backward
    c2w[:3, 3] = backward * distance
    return c2w


def angles_of(c2w: np.ndarray) -> tuple[float, float, float]:
    """(azimuth_deg in [0, 360), elevation_deg, distance) of a camera's position."""
    position = np.asarray(c2w, float)[:3, 3]
    distance = float(np.linalg.norm(position))
    azimuth = math.degrees(math.atan2(position[1], position[0])) % 360.0
    return azimuth, math.degrees(math.asin(np.clip(position[2] / distance, -1.0, 1.0))), distance


def intrinsics(fov_y_deg: float, width: int, height: int) -> np.ndarray:
    """K (3, 3) of a pinhole with square pixels and the principal point in the image's middle."""
    focal_px = 0.5 * height / math.tan(math.radians(fov_y_deg) / 2.0)
    return np.array([[focal_px, 0.0, width / 2.0], [0.0, focal_px, height / 2.0], [0.0, 0.0, 1.0]])


def project(points: np.ndarray, c2w: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions and depths of points seen by a camera.

    Args:
        points: (..., 3) in the space of c2w.
        c2w: (4, 4).
        K: (3, 3) in pixels.

    Returns:
        uv (..., 2) in pixels, may lie outside the image; depth (...) along the viewing axis, > 0 in front.
    """
    c2w = np.asarray(c2w, float)
    camera = (np.asarray(points, float) - c2w[:3, 3]) @ c2w[:3, :3]
    depth = -camera[..., 2]
    K = np.asarray(K, float)
    u = K[0, 0] * camera[..., 0] / depth + K[0, 2]
    v = -K[1, 1] * camera[..., 1] / depth + K[1, 2]
    return np.stack([u, v], axis=-1), depth


def to_opencv(c2w: np.ndarray) -> np.ndarray:
    """c2w (4, 4) with OpenCV's and COLMAP's axes: x right, y down, looking down +z. COLMAP stores its inverse."""
    return np.asarray(c2w, float) @ _FLIP_YZ


def from_opencv(c2w: np.ndarray) -> np.ndarray:
    """Inverse of `to_opencv`."""
    return np.asarray(c2w, float) @ _FLIP_YZ


def to_pytorch3d(c2w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, T) of PyTorch3D's cameras: x left, y up, looking down +z, row vectors ``x_view = x_world @ R + T``."""
    w2c = np.linalg.inv(np.asarray(c2w, float) @ _FLIP_XZ)
    return w2c[:3, :3].T, w2c[:3, 3]


def from_pytorch3d(R: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Inverse of `to_pytorch3d`."""
    w2c = np.eye(4)
    w2c[:3, :3], w2c[:3, 3] = np.asarray(R, float).T, np.asarray(T, float)
    return np.linalg.inv(w2c) @ _FLIP_XZ


def to_mvdream(c2w: np.ndarray, front_azimuth_deg: float = 270.0) -> np.ndarray:
    """MVDream's camera vector (16,): c2w flattened, unit distance, front at -y.

    MVDream's azimuth 0 looks at the object from -y and it normalises the translation to length 1, so the camera is
    turned about z until our front lies at 270 degrees.
    """
    turned = _about_z(270.0 - front_azimuth_deg) @ np.asarray(c2w, float)
    turned[:3, 3] /= np.linalg.norm(turned[:3, 3])
    return turned.reshape(16)


def from_mvdream(camera: np.ndarray, distance: float, front_azimuth_deg: float = 270.0) -> np.ndarray:
    """Inverse of `to_mvdream`; the distance is not in the vector and must be given."""
    c2w = np.asarray(camera, float).reshape(4, 4).copy()
    c2w[:3, 3] *= distance / np.linalg.norm(c2w[:3, 3])
    return _about_z(front_azimuth_deg - 270.0) @ c2w


def to_animate3d(c2w: np.ndarray, front_azimuth_deg: float = 270.0) -> np.ndarray:
    """c2w (4, 4) as Animate3D's optimisation has it: front at +x, twice our scale (radius 1, distance 3 at our 1.5)."""
    turned = _about_z(-front_azimuth_deg) @ np.asarray(c2w, float)
    turned[:3, 3] *= 2.0
    return turned


def from_animate3d(c2w: np.ndarray, front_azimuth_deg: float = 270.0) -> np.ndarray:
    """Inverse of `to_animate3d`."""
    halved = np.asarray(c2w, float).copy()
    halved[:3, 3] /= 2.0
    return _about_z(front_azimuth_deg) @ halved


def _about_z(angle_deg: float) -> np.ndarray:
    angle = math.radians(angle_deg)
    rotation = np.eye(4)
    rotation[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return rotation
