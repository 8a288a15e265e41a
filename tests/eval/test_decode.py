"""Decoding: exact for lossless files of every format, and one error that names the file for every bad one."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from eval.decode import DecodeLimits, cut_tile, frame_files, peek, read_frames, read_image, read_video
from manifests.errors import InputError
from tests.eval.media_files import make_clip, write_frames, write_video

CLIP = make_clip()
LOSSLESS = {
    "h264.mp4": {},
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "bgra", "options": {}},
    "png.mov": {"codec": "png", "pix_fmt": "rgba", "options": {}},
    "qtrle.mov": {"codec": "qtrle", "pix_fmt": "argb", "options": {}},
    "vp9.webm": {"codec": "libvpx-vp9", "pix_fmt": "gbrp", "options": {"lossless": "1"}},
}
SMALL = DecodeLimits(frames=10, side=100, pixels=20_000)


def refused(path: Path, *words: str, limits: DecodeLimits | None = None) -> str:
    """The message for a file; it names the file and has the words."""
    with pytest.raises(InputError) as error:
        read_video(path, limits=limits) if limits else read_video(path)
    text = str(error.value)
    assert path.name in text
    assert all(word in text for word in words), text
    return text


# -- exactness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_video_decodes_to_what_was_written(name, tmp_path):
    """Round trip; alpha where the format has it."""
    path = write_video(tmp_path / name, CLIP, **LOSSLESS[name])
    found = read_video(path)
    has_alpha = name in ("ffv1.mkv", "png.mov", "qtrle.mov")
    assert found.has_alpha is has_alpha
    assert found.fps == 8.0
    np.testing.assert_array_equal(found.rgba[..., :3], CLIP[..., :3])
    np.testing.assert_array_equal(found.rgba[..., 3], CLIP[..., 3] if has_alpha else 255)


def test_odd_sizes_decode_exactly(tmp_path):
    """Round trip at 33 x 47."""
    clip = make_clip(height=33, width=47)
    np.testing.assert_array_equal(read_video(write_video(tmp_path / "a.mp4", clip)).rgba[..., :3], clip[..., :3])


@pytest.mark.parametrize(
    ("name", "how", "tolerance"),
    [
        ("vp9.webm", {"codec": "libvpx-vp9", "pix_fmt": "yuva420p", "options": {"lossless": "1"}}, 0),
        ("prores.mov", {"codec": "prores_ks", "pix_fmt": "yuva444p10le", "options": {"profile": "4444"}}, 1),
    ],
)
def test_alpha_of_lossy_codecs_is_read(name, how, tolerance, tmp_path):
    """Round trip of alpha alone; FFmpeg's own VP9 decoder would drop it."""
    found = read_video(write_video(tmp_path / name, CLIP, **how))
    assert found.has_alpha
    assert np.abs(found.rgba[..., 3].astype(int) - CLIP[..., 3]).max() <= tolerance


@pytest.mark.parametrize("colorspace", [None, "1", "5"])
def test_luma_and_chroma_convert_as_the_file_says(colorspace, tmp_path):
    """Against the matrices of BT.601 and BT.709 in numpy, on grey-free flat colours, within rounding."""
    import av

    colors = np.array([[200, 40, 30], [20, 180, 60], [30, 50, 220]], np.float64)
    kr, kb = (0.2126, 0.0722) if colorspace == "1" else (0.299, 0.114)
    y = colors @ [kr, 1 - kr - kb, kb]
    cb, cr = (colors[:, 2] - y) / (2 * (1 - kb)), (colors[:, 0] - y) / (2 * (1 - kr))
    planes = np.rint(np.stack([16 + y * 219 / 255, 128 + cb * 224 / 255, 128 + cr * 224 / 255])).astype(np.uint8)
    path = tmp_path / "flat.mp4"
    with av.open(str(path), "w") as out:
        tags = {} if colorspace is None else {"colorspace": colorspace}
        stream = out.add_stream("libx264", rate=8, options={"qp": "0", **tags})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p"
        for k in range(3):
            frame = av.VideoFrame(32, 32, "yuv444p")
            for plane, value in zip(frame.planes, planes[:, k], strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found = read_video(path).rgba[:, 16, 16, :3]
    assert np.abs(found.astype(float) - colors).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 47), (64, 30)])
def test_lossy_video_is_what_the_sources_see(height, width, tmp_path):
    """Against OpenCV's reader, bit for bit."""
    clip = make_clip(height=height, width=width)
    pix_fmt = "yuv420p" if height % 2 == 0 else "yuv444p"
    path = write_video(tmp_path / "a.mp4", clip, codec="libx264", pix_fmt=pix_fmt, options={"crf": "20"})
    reader, others = cv2.VideoCapture(str(path)), []
    while (read := reader.read())[0]:
        others.append(read[1][..., ::-1])
    np.testing.assert_array_equal(read_video(path).rgba[..., :3], np.stack(others))


def test_part_of_a_video_is_the_same_as_in_the_whole(tmp_path):
    """Against the slice of all frames."""
    path = write_video(tmp_path / "a.mp4", CLIP)
    np.testing.assert_array_equal(read_video(path, range(2, 5)).rgba, read_video(path).rgba[2:5])
    with pytest.raises(InputError, match="found 6 frames, expected 7"):
        read_video(path, range(4, 7))


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_animated_pictures_decode_to_what_was_written(suffix, tmp_path):
    """Round trip; a gif has 256 colours, so it is given one that needs no more."""
    clip = (CLIP // 64) * 64 if suffix == "gif" else CLIP
    clip[..., 3] = CLIP[..., 3]
    first, *rest = [Image.fromarray(picture) for picture in clip]
    lossless = {"lossless": True, "exact": True} if suffix == "webp" else {}
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=rest, duration=120, disposal=2, **lossless)
    found = read_video(tmp_path / f"a.{suffix}")
    seen = clip[..., 3] > 0
    np.testing.assert_array_equal(found.rgba[..., 3], clip[..., 3])
    np.testing.assert_array_equal(found.rgba[seen], clip[seen])
    assert found.has_alpha
    assert found.fps == pytest.approx(1000 / 120)


# -- frame rates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [8, 24, Fraction(30000, 1001), 7, Fraction(25, 2)])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_frame_rate_is_exact(name, fps, tmp_path):
    """Against the rate written; webm rounds its times to milliseconds."""
    how = {"codec": "libvpx-vp9", "pix_fmt": "yuv420p", "options": {}} if name.endswith("webm") else {}
    path = write_video(tmp_path / name, make_clip(17), fps=fps, **how)
    assert peek(path).fps == pytest.approx(float(fps), rel=1e-9 if name == "a.mp4" else 1e-4)
    assert peek(path).frames == 17


@pytest.mark.parametrize("times", [[0, 1, 2, 4, 5, 6], [0, 1, 2, 3, 4, 40], [0, 3, 4, 5, 6, 7]])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_frame_rate_is_refused(name, times, tmp_path):
    """One frame late is enough."""
    path = write_video(tmp_path / name, CLIP, times=times)
    refused(path, "ms apart", "constant frame rate", "write the video again")


def test_variable_durations_of_a_gif_are_refused(tmp_path):
    """Pillow writes the durations given."""
    first, *rest = [Image.fromarray(picture).convert("RGB") for picture in CLIP]
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=[120, 120, 240, 120, 120, 120])
    refused(tmp_path / "a.gif", "120 to 240 ms apart")


def test_gif_whose_centiseconds_alternate_has_a_constant_rate(tmp_path):
    """8 frames a second are 12.5 centiseconds, which other writers alternate between 12 and 13."""
    first, *rest = [Image.fromarray(picture).convert("RGB") for picture in CLIP]
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=[120, 130] * 3)
    assert read_video(tmp_path / "a.gif").fps == 8.0


def test_one_frame_is_a_video(tmp_path):
    """Of an mp4, a webp at rest and a grey jpeg."""
    assert read_video(write_video(tmp_path / "a.mp4", CLIP[:1])).rgba.shape == (1, 32, 48, 4)
    Image.fromarray(CLIP[0]).save(tmp_path / "a.webp", lossless=True, exact=True)
    np.testing.assert_array_equal(read_video(tmp_path / "a.webp").rgba[0], CLIP[0])
    Image.fromarray(CLIP[0, ..., 0]).save(tmp_path / "a.jpg")
    found = read_video(tmp_path / "a.jpg")
    assert found.rgba.shape == (1, 32, 48, 4)
    assert (found.fps, found.has_alpha) == (None, False)


# -- bad files ---------------------------------------------------------------------------------------------------------


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    """Each message says what is there."""
    refused(tmp_path / "none.mp4", "No such file")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "0 bytes")
    (tmp_path / "text.mp4").write_text("#EXTM3U\n/etc/passwd\n")
    refused(tmp_path / "text.mp4", "expected mp4")
    (tmp_path / "folder.mp4").mkdir()
    refused(tmp_path / "folder.mp4", "directory")


@pytest.mark.parametrize("name", ["a.mp4", "fast.mp4", "a.webm", "a.mov", "a.gif", "a.webp", "a.png"])
def test_video_cut_off_anywhere_is_refused(name, tmp_path):
    """Every tenth of the file; mp4 also with its index at the start, where the rest would decode."""
    path = tmp_path / name
    if path.suffix in (".gif", ".webp", ".png"):
        first, *rest = [Image.fromarray(picture) for picture in CLIP]
        first.save(path, save_all=True, append_images=rest, duration=120)
    elif path.suffix == ".webm":
        write_video(path, CLIP, codec="libvpx-vp9", pix_fmt="yuv420p", options={})
    elif path.suffix == ".mov":
        write_video(path, CLIP, codec="png", pix_fmt="rgba", options={})
    else:
        write_video(path, CLIP, container={"movflags": "faststart"} if name == "fast.mp4" else None)
    data = path.read_bytes()
    for part in range(10):
        cut = tmp_path / f"cut{part}{path.suffix}"
        cut.write_bytes(data[: len(data) * part // 10 + 1])
        refused(cut)


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    """Random bytes changed in files of every reader: either a video or an InputError."""
    rng = np.random.default_rng(0)
    first, *rest = [Image.fromarray(picture) for picture in CLIP]
    for suffix in ("gif", "png", "webp"):
        first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=rest, duration=120)
    files = [write_video(tmp_path / name, CLIP, **how) for name, how in LOSSLESS.items()]
    files += [tmp_path / "a.gif", tmp_path / "a.webp", tmp_path / "a.png"]
    outcomes = set()
    for path in files:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        for k in range(12):
            broken = data.copy()
            broken[rng.integers(0, len(data), 3)] ^= rng.integers(1, 256, 3).astype(np.uint8)
            victim = tmp_path / f"broken{k}{path.suffix}"
            victim.write_bytes(broken.tobytes())
            try:
                outcomes.add(read_video(victim).rgba.shape[0] > 0)
            except InputError as error:
                outcomes.add(victim.name in str(error))
            except UserWarning:  # Pillow's, of an animated PNG that it takes for one picture
                outcomes.add(True)
    assert outcomes == {True}


def test_two_streams_are_refused(tmp_path):
    """Nothing says which is meant."""
    import av

    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("ffv1", rate=8) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 48, 32, "bgr0"
        for stream in streams:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(CLIP[0, ..., :3]), format="rgb24")
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    refused(path, "2 video streams")


def test_more_than_the_limits_is_refused_before_decoding(tmp_path):
    """Frames, sides and pixels of videos, gifs and folders."""
    refused(write_video(tmp_path / "long.mp4", make_clip(12, 16, 16)), "at most 10", limits=SMALL)
    refused(write_video(tmp_path / "wide.mp4", make_clip(2, 16, 128)), "at most 100", limits=SMALL)
    refused(write_video(tmp_path / "much.mp4", make_clip(9, 64, 64)), "20000 pixels", limits=SMALL)
    first, *rest = [Image.fromarray(picture) for picture in make_clip(12, 16, 16)]
    first.save(tmp_path / "long.gif", save_all=True, append_images=rest, duration=120)
    refused(tmp_path / "long.gif", "at most 10", limits=SMALL)
    with pytest.raises(InputError, match="20000 pixels"):
        read_frames(write_frames(tmp_path / "f", make_clip(9, 64, 64)), limits=SMALL)


def test_picture_that_claims_to_be_huge_is_refused(tmp_path):
    """A PNG header of 60000 x 60000 pixels, which would take 14 GB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 6, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "huge.png").write_bytes(data)
    with pytest.raises(InputError, match=r"huge\.png"):
        read_image(tmp_path / "huge.png")
    refused(tmp_path / "huge.png")


# -- folders of frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{}.png", "{:03d}.png", "frame {} ä.webp", "v1_{:02d}.png"])
def test_frames_come_in_the_order_of_their_numbers(name, tmp_path):
    """Twelve frames, so that the order of text would be another one."""
    clip = make_clip(12, 16, 16)
    found = read_frames(write_frames(tmp_path / "f", clip, name), fps=8)
    np.testing.assert_array_equal(found.rgba, clip)
    assert (found.fps, found.has_alpha) == (8, True)


def test_frames_say_no_rate(tmp_path):
    """No default is made up."""
    assert read_frames(write_frames(tmp_path / "f", CLIP)).fps is None


def test_modes_of_pictures_become_rgba(tmp_path):
    """Against Pillow's own pixels: grey, grey with alpha, palette with and without alpha, one bit, RGB, CMYK."""
    image = Image.fromarray(CLIP[0])
    grey = np.asarray(image.convert("L"))
    clear = image.convert("RGB").quantize(16)
    clear.info["transparency"] = 3
    cases = {
        "L": (image.convert("L"), np.stack([grey] * 3 + [np.full_like(grey, 255)], -1)),
        "LA": (image.convert("LA"), np.stack([grey] * 3 + [CLIP[0, ..., 3]], -1)),
        "RGB": (image.convert("RGB"), np.dstack([CLIP[0, ..., :3], np.full_like(grey, 255)])),
        "1": (image.convert("1"), np.asarray(image.convert("1").convert("RGBA"))),
        "P": (clear, np.asarray(clear.convert("RGBA"))),
    }
    for mode, (written, expected) in cases.items():
        written.save(tmp_path / f"{mode}.png")
        np.testing.assert_array_equal(read_image(tmp_path / f"{mode}.png"), expected, err_msg=mode)
    assert (cases["P"][1][..., 3] == 0).any()
    image.convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert read_image(tmp_path / "c.jpg").shape == (32, 48, 4)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded(channels, tmp_path):
    """Against value * 255 / 65535 in floats, written by OpenCV."""
    values = np.random.default_rng(0).integers(0, 65536, (9, 7, channels), np.uint16)
    values[0, 0], values[0, 1] = 0, 65535
    cv2.imwrite(str(tmp_path / "a.png"), values[..., [2, 1, 0, 3][:channels]] if channels > 1 else values)
    found = read_image(tmp_path / "a.png")
    expected = np.rint(values.astype(np.float64) * 255 / 65535)
    np.testing.assert_array_equal(found[..., :channels] if channels > 1 else found[..., :1], expected)
    assert channels == 4 or (found[..., 3] == 255).all()


def test_bad_folders_are_refused(tmp_path):
    """Mixed sizes, a frame missing, two of one number, a broken or empty one, nothing at all."""
    folder = write_frames(tmp_path / "f", CLIP)
    Image.fromarray(make_clip(1, 16, 16)[0]).save(folder / "003.png")
    with pytest.raises(InputError, match=r"003\.png: found 16x16, expected 48x32"):
        read_frames(folder)
    (folder / "003.png").unlink()
    with pytest.raises(InputError, match=r"found 004\.png after 002\.png"):
        read_frames(folder)
    (folder / "003.png").write_bytes((folder / "002.png").read_bytes()[:100])
    with pytest.raises(InputError, match=r"003\.png"):
        read_frames(folder)
    (folder / "003.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"003\.png: found 0 bytes"):
        read_frames(folder)
    (folder / "3.png").write_bytes(b"")
    with pytest.raises(InputError, match="found both"):
        read_frames(folder)
    with pytest.raises(InputError, match="No such file"):
        read_frames(tmp_path / "none")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / ".hidden.png").touch()
    with pytest.raises(InputError, match="found no picture"):
        frame_files(tmp_path / "nothing")


def test_tiles_are_cut_row_by_row():
    """Against the numbers of the tiles that the frames are painted with."""
    rgba = np.zeros((2, 6, 8, 4), np.uint8)
    for k in range(4):
        row, column = divmod(k, 2)
        rgba[:, row * 3 : row * 3 + 3, column * 4 : column * 4 + 4] = k
    for k in range(4):
        tile = cut_tile(rgba, (2, 2), k)
        assert tile.shape == (2, 3, 4, 4)
        assert (tile == k).all()
    with pytest.raises(InputError, match="8x6"):
        cut_tile(rgba, (1, 3), 0)
    with pytest.raises(InputError, match="found tile 4"):
        cut_tile(rgba, (2, 2), 4)
