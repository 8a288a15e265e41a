"""Image headers: format and size, without decoding pixels.

Opens with Pillow, restricted to the three formats that glTF and the importer know. PNG checksums are verified because a
truncated PNG would only fail much later, inside Blender.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image as PillowImage

from manifests.errors import Rejected

__all__ = ["read_header"]

MIMES = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp"}


def read_header(data: bytes, where: str, max_pixels: int) -> tuple[str, int, int]:
    """(mime, width, height) of an encoded image.

    Raises:
        Rejected: texture-corrupt or texture-too-large.
    """
    if data[:4] == b"\xabKTX":
        raise Rejected("unsupported-extension", f"{where}: found a KTX2 image, expected PNG, JPEG or WebP")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PillowImage.DecompressionBombWarning)
            with PillowImage.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                mime, (width, height) = MIMES[image.format], image.size
                if width * height <= max_pixels and image.format == "PNG":
                    image.verify()
    except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning) as error:
        raise Rejected(
            "texture-too-large", f"{where}: found {str(error)[:80]}, expected at most {max_pixels}"
        ) from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and more
        raise Rejected(
            "texture-corrupt",
            f"{where}: found {len(data)} bytes that Pillow refuses ({str(error)[:60]}), "
            "expected a PNG, JPEG or WebP image",
        ) from None
    if width * height > max_pixels:
        raise Rejected("texture-too-large", f"{where}: found {width} x {height}, expected at most {max_pixels} pixels")
    return mime, width, height
