"""The EXR reader: against Blender's loader, against files written by hand, and what it refuses."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from render.exr import read_exr


def exr(channels: dict[str, np.ndarray], *, x0: int = 0, y0: int = 0, version: int = 2, compression: int = 0,
        kind: int = 2, step: int = 1) -> bytes:  # fmt: skip
    """A scan line file after openexr.com, "OpenEXR File Layout"."""

    def attribute(name: str, type_: str, data: bytes) -> bytes:
        return name.encode() + b"\0" + type_.encode() + b"\0" + struct.pack("<i", len(data)) + data

    names = sorted(channels)
    height, width = channels[names[0]].shape
    listed = b"".join(n.encode() + b"\0" + struct.pack("<iB3xii", kind, 0, step, step) for n in names) + b"\0"
    box = struct.pack("<4i", x0, y0, x0 + width - 1, y0 + height - 1)
    header = b"".join([
        attribute("channels", "chlist", listed), attribute("compression", "compression", bytes([compression])),
        attribute("dataWindow", "box2i", box), attribute("displayWindow", "box2i", box),
        attribute("lineOrder", "lineOrder", b"\0"), attribute("pixelAspectRatio", "float", struct.pack("<f", 1)),
        attribute("screenWindowCenter", "v2f", bytes(8)), attribute("screenWindowWidth", "float", struct.pack("<f", 1)),
    ])  # fmt: skip
    start = 8 + len(header) + 1 + 8 * height
    lines = [
        struct.pack("<ii", y0 + y, 4 * width * len(names)) + b"".join(channels[n][y].tobytes() for n in names)
        for y in range(height)
    ]
    offsets = b"".join(struct.pack("<Q", start + y * len(lines[0])) for y in range(height))
    return struct.pack("<ii", 20000630, version) + header + b"\0" + offsets + b"".join(lines)


def test_a_render_reads_as_blender_itself_reads_it(scene_arrays):
    # Oracle: Blender's loader on a single-layer file of the same render.
    np.testing.assert_array_equal(scene_arrays["linear"], scene_arrays["blender"])
    assert scene_arrays["linear"].max() > 1.0, "nothing glows"


def test_values_far_from_0_to_1_survive(scene_arrays):
    # Oracle: the pixels that Blender was given.
    np.testing.assert_array_equal(scene_arrays["noise_read"], scene_arrays["noise"])


@pytest.mark.parametrize("origin", [(0, 0), (13, 40), (-3, -9)])
def test_files_written_by_hand_read_back(tmp_path, origin):
    # Oracle: the format's description; a data window that does not begin at 0, names that are not sorted.
    rng = np.random.default_rng(0)
    names = ("View Layer.Combined.R", "A", "Depth.Z", "long" * 10)
    channels = {name: rng.normal(size=(3, 5)).astype(np.float32) for name in names}
    channels["A"][0, 0], channels["A"][2, 4] = np.inf, 1e10
    (tmp_path / "a.exr").write_bytes(exr(channels, x0=origin[0], y0=origin[1]))
    found = read_exr(tmp_path / "a.exr")
    assert found.keys() == channels.keys()
    for name, values in channels.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compression": 3}, "compression"),
        ({"kind": 1}, "type 1, expected 32-bit floats"),
        ({"step": 2}, "expected 32-bit floats at every pixel"),
        ({"version": 2 | 0x200}, "one part of scan lines"),
        ({"version": 2 | 0x1000}, "one part of scan lines"),
        ({"version": 2 | 0x800}, "one part of scan lines"),
    ],
)
def test_other_kinds_are_refused(tmp_path, change, message):
    # Oracle: the flags of the format's description: tiles 0x200, deep data 0x800, many parts 0x1000.
    (tmp_path / "a.exr").write_bytes(exr({"A": np.zeros((2, 2), np.float32)}, **change))
    with pytest.raises(ValueError, match=message):
        read_exr(tmp_path / "a.exr")


def test_another_file_is_refused(tmp_path):
    # Oracle: the magic number.
    (tmp_path / "a.exr").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match="magic"):
        read_exr(tmp_path / "a.exr")
