"""One sample of a dataset: the JSON that describes a clip, its names in the tar, and what makes it valid.

``clip.schema.json`` beside this module is the definition of the fields; here are the rules a JSON Schema cannot say
(shapes that depend on each other, rotations, intrinsics) and the canonical bytes. Nothing here reads or writes images.
"""

from __future__ import annotations

import functools
import json
import math
import re
from importlib import resources
from typing import Any

import jsonschema
import numpy as np

from manifests.errors import InputError
from manifests.text import well_formed

__all__ = [
    "MOTION",
    "QUALITY",
    "SCHEMA",
    "canonical",
    "clip_id",
    "frame_name",
    "from_json",
    "json_name",
    "json_schema",
    "members",
    "num_views",
    "to_json",
    "validate",
]

SCHEMA = "mvvideo.clip/1"
TOLERANCE = 1e-6
"""Of rotations and intrinsics, which are computed in float64 and stored without rounding."""


@functools.cache
def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``KEY.json``; do not change what is returned."""
    return json.loads(resources.files("manifests").joinpath("clip.schema.json").read_text("utf-8"))


def _descriptions(group: str) -> dict[str, str]:
    return {name: rule["description"] for name, rule in json_schema()["properties"][group]["properties"].items()}


MOTION: dict[str, str] = _descriptions("motion")
"""Motion figure -> what it means."""
QUALITY: dict[str, str] = _descriptions("quality")
"""Quality figure -> what it means."""


def clip_id(asset_id: str, animation: int, window: int) -> str:
    """The key of a clip, e.g. ``fox-1a2b3c4d5e-002-00``; animation -1 (an object at rest) is written ``still``."""
    return f"{asset_id}-{'still' if animation == -1 else f'{animation:03d}'}-{window:02d}"


def json_name(key: str) -> str:
    """Name of the JSON member."""
    return f"{key}.json"


def frame_name(key: str, view: int, frame: int, suffix: str = "webp") -> str:
    """Name of one image, e.g. ``KEY.v00_f003.webp``."""
    return f"{key}.v{view:02d}_f{frame:03d}.{suffix}"


def num_views(sample: dict[str, Any]) -> int:
    """V of a sample."""
    return len(sample["cameras"]["c2w"])


def members(sample: dict[str, Any], series: str | None = None) -> list[str]:
    """Member names of a clip in their order: ``KEY.json``, then the frames view-major.

    Args:
        sample: a valid sample.
        series: file suffix of a parallel series, e.g. ``png``; such a series has the same keys and no JSON.
    """
    key = sample["clip_id"]
    names = [] if series else [json_name(key)]
    for view in range(num_views(sample)):
        names += [frame_name(key, view, frame, series or "webp") for frame in range(len(sample["times_s"]))]
    return names


def canonical(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample as plain Python values, known fields in the order of the schema, others sorted behind them.

    numpy scalars and arrays become numbers and lists, a whole number in a float field becomes a float, -0.0 becomes
    0.0, text becomes well-formed Unicode. What does not fit the schema stays as it is, for `validate` to name.
    """
    return _canonical(sample, json_schema())


def to_json(sample: dict[str, Any]) -> bytes:
    """Canonical bytes of ``KEY.json``: equal samples give equal bytes.

    ASCII, compact, no line break; every float has a point and reads back as the same float64.

    Raises:
        InputError: the sample is not valid; see `validate`.
    """
    plain = canonical(sample)
    validate(plain)
    return _encode(plain).encode("ascii")


def from_json(data: bytes, where: str) -> dict[str, Any]:
    """The sample in the bytes of a ``KEY.json``, not validated.

    Raises:
        InputError: not a JSON object.
    """
    try:
        sample = json.loads(data)
    except ValueError as error:
        raise InputError(f"{where}: found {error}, expected JSON; run `mvv verify` on the dataset") from error
    if not isinstance(sample, dict):
        raise InputError(f"{where}: found a JSON {type(sample).__name__}, expected an object")
    return sample


def validate(sample: dict[str, Any]) -> None:
    """Checks a sample against the schema, then the rules between fields. `canonical` brings values into this form.

    Raises:
        InputError: one error that names the field, what was found and what was expected.
    """
    where = sample.get("clip_id", "?") if isinstance(sample, dict) else "?"
    # Not best_match, which goes on into one branch of an anyOf and then speaks of that branch alone.
    error = max(_validator().iter_errors(sample), key=jsonschema.exceptions.relevance, default=None)
    if error is not None:
        raise _error(where, _path(error.absolute_path), error.instance, _rule(error))
    _check_values(where, sample, "")
    expected = clip_id(sample["asset_id"], sample["animation"]["index"], sample["window"]["index"])
    if sample["clip_id"] != expected or not re.fullmatch(r"[A-Za-z0-9_-]+", expected):
        raise _error(where, "clip_id", sample["clip_id"], f"{expected!r} from asset, animation and window")
    _check_cameras(where, sample["cameras"], len(sample["times_s"]))


def _check_cameras(where: str, cameras: dict[str, Any], frames: int) -> None:
    c2w, shape = _array(where, cameras, "c2w")
    if shape[1:] != (4, 4) and shape[1:] != (frames, 4, 4):
        raise _error(where, "cameras.c2w", f"shape {shape}", f"(V, 4, 4) or (V, {frames}, 4, 4) for {frames} times_s")
    for name in ("azimuth_deg", "elevation_deg", "distance"):
        if _array(where, cameras, name)[1] != shape[:-2]:
            found = f"shape {_array(where, cameras, name)[1]}"
            raise _error(where, f"cameras.{name}", found, f"{shape[:-2]}, as c2w has it")
    if not np.array_equal(c2w[..., 3, :], np.broadcast_to([0.0, 0.0, 0.0, 1.0], c2w[..., 3, :].shape)):
        raise _error(where, "cameras.c2w", "another last row", "0 0 0 1")
    rotation = c2w[..., :3, :3]
    off = float(np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max())
    if off > TOLERANCE or (np.linalg.det(rotation) < 0).any():
        raise _error(where, "cameras.c2w", f"axes {off:.2g} off or mirrored", "a rotation (orthonormal, determinant 1)")
    K, K_shape = _array(where, cameras, "K")
    width, height = cameras["width"], cameras["height"]
    focal = 0.5 * height / math.tan(math.radians(cameras["fov_y_deg"]) / 2)
    expected = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    if K_shape != (shape[0], 3, 3):
        raise _error(where, "cameras.K", f"shape {K_shape}", f"{(shape[0], 3, 3)}, one for each view")
    worst = int(np.abs(K - expected).max(axis=(1, 2)).argmax())
    if np.abs(K[worst] - expected).max() > TOLERANCE * max(focal, width, height):
        raise _error(
            where, f"cameras.K[{worst}]", K[worst].tolist(), f"{expected.tolist()} from width, height and fov_y_deg"
        )


def _array(where: str, cameras: dict[str, Any], name: str) -> tuple[np.ndarray, tuple[int, ...]]:
    try:
        array = np.array(cameras[name], np.float64)
    except ValueError:
        raise _error(where, f"cameras.{name}", "rows of different lengths", "the same for every view") from None
    return array, array.shape


def _check_values(where: str, value: Any, path: str) -> None:
    """No null, NaN or infinity anywhere, unknown fields included."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise _error(where, path, name, "text as the name of a field")
            _check_values(where, item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            _check_values(where, item, f"{path}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _error(where, path, value, "a finite number")
    elif not isinstance(value, (str, bool, int, float)):
        raise _error(where, path, value, "text, a number, a list or an object")


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    """The published schema with its types taken literally: a number is a float, an integer an int.

    JSON Schema lets 24 and 24.0 be both. Readers that type columns from the first samples do not.
    """
    base = jsonschema.Draft202012Validator

    # Only the keyword `type` is stricter: `minimum` and its like ask for "number" and have to see integers as well.
    def literal(validator: Any, kind: str, value: Any, rule: dict[str, Any]) -> Any:
        if kind == "number" and not (isinstance(value, float) and math.isfinite(value)):
            yield jsonschema.ValidationError("not a finite float")
        elif kind == "integer" and (isinstance(value, bool) or not isinstance(value, int)):
            yield jsonschema.ValidationError("not an integer")
        elif kind not in ("number", "integer"):
            yield from base.VALIDATORS["type"](validator, kind, value, rule)

    return jsonschema.validators.extend(base, {"type": literal})(json_schema())


_RULES = {
    "required": "the field {missing}",
    "additionalProperties": "only the fields of the schema",
    "const": "{rule!r}",
    "enum": "one of {rule}",
    "pattern": "text that matches {rule}",
    "minItems": "at least {rule} items",
    "maxItems": "at most {rule} items",
    "minimum": "at least {rule}",
    "maximum": "at most {rule}",
    "exclusiveMinimum": "more than {rule}",
    "exclusiveMaximum": "less than {rule}",
}


def _rule(error: jsonschema.ValidationError) -> str:
    rule = error.validator_value
    if error.validator == "type":
        return {"number": "a finite number written with a point", "integer": "a whole number"}.get(rule, f"type {rule}")
    if error.validator == "anyOf":
        return str(error.schema["description"])
    missing = next((name for name in rule if name not in error.instance), "") if error.validator == "required" else ""
    return _RULES.get(str(error.validator), "what the schema says of it").format(rule=rule, missing=missing)


def _path(parts: Any) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.lstrip(".")


def _error(where: Any, path: str, found: Any, expected: str) -> InputError:
    if isinstance(found, dict):
        found = f"fields {sorted(map(str, found))}"
    text = found if isinstance(found, str) and " " in found else repr(found)
    text = text if len(text) <= 160 else text[:157] + "..."
    return InputError(
        f"clip {where}: {path or 'sample'}: found {text}, expected {expected}; see manifests/clip.schema.json"
    )


def _canonical(value: Any, rule: dict[str, Any]) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        rules = rule.get("properties", {})
        names = [name for name in rules if name in value] + sorted((n for n in value if n not in rules), key=str)
        return {name: _canonical(value[name], rules.get(name, {})) for name in names}
    if isinstance(value, (list, tuple)):
        items = rule.get("items") or next((r["items"] for r in rule.get("anyOf", ()) if "items" in r), {})
        return [_canonical(item, items) for item in value]
    if isinstance(value, str):
        return well_formed(value)
    number = rule.get("type") == "number" or any(r.get("type") == "number" for r in rule.get("anyOf", ()))
    if number and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = float(value)
    return value + 0.0 if isinstance(value, float) else value  # -0.0 + 0.0 is 0.0


def _encode(value: Any) -> str:
    """JSON text; `json.dumps` would write 1e-07, which has no point."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_encode(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_encode, value)) + "]"
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        return (mantissa if "." in mantissa else f"{mantissa}.0") + e + exponent
    return json.dumps(value)
