"""Camera and light rigs as data: where the cameras of a clip stand and what shines on it.

Pure functions of config and seed key; what they give is what the renderer uses and what the sample records.
"""

from __future__ import annotations

from typing import Any

from manifests.cameras import intrinsics, look_at_origin
from manifests.config import CameraConfig
from manifests.seeds import integer, uniform

__all__ = ["camera_rig", "light_rig"]

# Relative to the object's front: name, azimuth, elevation, energy (W/m2), angular size, all degrees.
# A soft key from the front left, a weaker one from behind so that back views are modelled too, and an even sky.
_STUDIO_1 = (("key", -40.0, 45.0, 2.5, 2.0), ("back", 150.0, 35.0, 1.5, 2.0))
_STUDIO_1_SKY = 0.3


def camera_rig(config: CameraConfig, *key: object) -> dict[str, Any]:
    """The sample's ``cameras`` field, without motion of the cameras.

    Args:
        config: ring or fixed cameras.
        key: what the ring's offset and elevation are drawn from.
    """
    if config.azimuths_deg:
        azimuths, elevations = list(config.azimuths_deg), list(config.elevations_deg)
    else:
        step = 360.0 / config.views
        jitter = step / 2 if config.azimuth_jitter_deg < 0 else config.azimuth_jitter_deg
        offset = round(uniform(-jitter, jitter, *key, "azimuth"), 4)
        elevation = round(uniform(config.elevation_min_deg, config.elevation_max_deg, *key, "elevation"), 4)
        azimuths = [round(view * step + offset, 4) for view in range(config.views)]
        elevations = [elevation] * config.views
    azimuths = [round((config.front_azimuth_deg + azimuth) % 360.0, 4) for azimuth in azimuths]
    K = intrinsics(config.fov_y_deg, config.size, config.size).tolist()
    c2w = [look_at_origin(a, e, config.distance).tolist() for a, e in zip(azimuths, elevations, strict=True)]
    return {
        "convention": "blender",
        "width": config.size,
        "height": config.size,
        "front_azimuth_deg": float(config.front_azimuth_deg),
        "fov_y_deg": float(config.fov_y_deg),
        "K": [K] * config.views,
        "c2w": c2w,
        "azimuth_deg": azimuths,
        "elevation_deg": [float(e) for e in elevations],
        "distance": [float(config.distance)] * config.views,
    }


def light_rig(name: str, front_azimuth_deg: float, *key: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sample's ``render.lights`` and ``render.world``.

    Args:
        name: ``studio-1``, or ``random`` for a rig of two to four suns and a tinted sky drawn from the key.
        front_azimuth_deg: suns are placed relative to the object's front.
    """
    if name == "studio-1":
        suns = [(*sun, (1.0, 1.0, 1.0)) for sun in _STUDIO_1]
        sky, strength = (1.0, 1.0, 1.0), _STUDIO_1_SKY
    else:
        assert name == "random", f"rig {name!r} is not known"
        count = 2 + integer(*key, "suns") % 3
        suns = []
        for i in range(count):
            draw = lambda low, high, what, i=i: round(uniform(low, high, *key, "sun", i, what), 4)  # noqa: E731
            color = tuple(draw(0.8, 1.0, channel) for channel in "rgb")
            suns.append(
                (f"sun{i}", draw(-180, 180, "azimuth"), draw(5, 80, "elevation"),
                 draw(1.0, 4.0, "energy") / count ** 0.5, draw(0.5, 15.0, "angle"), color)
            )  # fmt: skip
        sky = tuple(round(uniform(0.85, 1.0, *key, "sky", channel), 4) for channel in "rgb")
        strength = round(uniform(0.2, 0.6, *key, "sky"), 4)
    lights = [
        {
            "name": label,
            "type": "SUN",
            "azimuth_deg": round((front_azimuth_deg + azimuth) % 360.0, 4),
            "elevation_deg": elevation,
            "energy": round(energy, 4),
            "angle_deg": angle,
            "color": list(color),
        }
        for label, azimuth, elevation, energy, angle, color in suns
    ]
    return {"rig": name, "lights": lights}, {"color": list(sky), "strength": strength}
