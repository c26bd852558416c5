"""What a picture file holds as 8-bit RGB: deep and floating-point values scaled, alpha on white, upright, not too big.

`describe_header` says from the header alone what `to_rgb` will have to change, so that a report can count it.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from marslora.core.errors import DataError

RASTER_FORMATS = (
    *("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "DIB", "TGA", "ICO", "PCX", "SGI"),
    *("QOI", "PSD"),
)
"""What is opened, as Pillow calls it: grids of pixels. EPS and WMF are programs that other software has to run."""
_ORIENTATION = 0x0112
"""The tag of EXIF that says how a picture must be turned."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation -> what makes the picture upright; from 5 on, width and height change places."""
_ABOUT_TURNING = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
"""Where a header may hold an orientation."""
_DEEP = re.compile("(RGB|RGBA|RGBX|LA|L|CMYK);16")
"""What Pillow calls colours of 16 bits in a file."""
_PLAIN_MODES = ("RGB", "L", "1", "YCbCr", "HSV")
"""Modes in which different pixels cannot become equal."""
_SCALED_AS_THEY_ARE = ("RGB", "L", "CMYK", "RGBA", "LA", "YCbCr")
"""Modes that can be scaled without another copy of the whole picture."""


def describe_header(image: Image.Image, max_pixels: int) -> tuple[tuple[int, int], tuple[str, ...]]:
    """((width, height) that the decoded picture will have, what is changed on the way)."""
    width, height = image.size[::-1] if _find_orientation(image) >= 5 else image.size
    return limit_size((width, height), max_pixels), tuple(_list_changes(image, max_pixels))


def _list_changes(image: Image.Image, max_pixels: int) -> Iterator[str]:
    if image.mode == "F":
        yield "pictures of floating-point numbers: scaled to 8 bits (0 to 1, or the picture's own range)"
    elif image.mode == "I":
        yield "pictures of 32-bit integers: scaled to 8 bits by the picture's own range"
    elif image.mode.startswith("I;16") or is_deep(image):
        yield "pictures of 16 bits: scaled to 8 bits"
    if image.has_transparency_data:
        yield "pictures with alpha: laid on white"
    if image.mode == "CMYK":
        yield "CMYK pictures: converted to RGB, by their colour profile if they have one"
    if image.format != "MPO" and getattr(image, "is_animated", False):
        yield "pictures with several frames: the first is taken"
    if image.width * image.height > max_pixels:
        yield f"pictures of more than {max_pixels:,} pixels (`max_pixels`): scaled down"


def limit_size(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """The largest size of the same shape that has at most ``max_pixels`` pixels; ``size`` itself if it has."""
    width, height = size
    if width * height <= max_pixels:
        return size
    share = math.sqrt(max_pixels / (width * height))
    short = max(1, math.floor(min(size) * share))
    long = max(1, min(math.floor(max(size) * share), max_pixels // short))
    return (long, short) if width >= height else (short, long)


def to_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """The whole picture, upright, in 8-bit RGB.

    Raises `DataError` (without the picture's name) if nothing of it would be left but one colour.
    """
    was_deep = is_deep(image)
    target = limit_size(image.size, max_pixels)
    if target != image.size:
        image.draft(None, target)  # a JPEG is decoded smaller at once
    image.load()
    orientation = _find_orientation(image)
    picture = _shrink(_to_8_bits(image), limit_size(image.size, max_pixels))
    rgb = _lay_on_white(picture) if picture.has_transparency_data else _to_plain_rgb(picture)
    if (image.mode not in _PLAIN_MODES or was_deep or "transparency" in image.info) and is_constant(rgb):
        _check_constant(image, was_deep)
    turn = _TURNS.get(orientation)
    return rgb if turn is None else rgb.transpose(turn)


def is_deep(image: Image.Image) -> bool:
    """Whether the file holds colours of 16 bits, of which Pillow keeps the upper 8; known before it is decoded."""
    tiles = [tile[3] for tile in getattr(image, "tile", ())]
    return any(_DEEP.match(str(tile[0] if isinstance(tile, tuple) and tile else tile)) for tile in tiles)


def is_constant(image: Image.Image) -> bool:
    """Whether all pixels are equal."""
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


def _check_constant(image: Image.Image, was_deep: bool) -> None:
    if was_deep:
        raise DataError("has 16 bits a colour, and its upper 8 are all equal: save it with 8 bits a colour")
    shown = image.convert("RGBA") if image.has_transparency_data or image.mode in ("P", "PA") else image
    if not is_constant(shown):
        what = "on white" if image.has_transparency_data else "in 8 bits"
        raise DataError(
            f"is of one colour {what}, although its pixels ({image.mode}) differ: save it as RGB with 8 bits a colour"
        )


def _find_orientation(image: Image.Image) -> int:
    """1 to 8, of EXIF; 1 (upright) if there is none or if it is damaged. A TIFF is turned by Pillow itself."""
    if any(key in image.info for key in _ABOUT_TURNING):
        with contextlib.suppress(Exception):  # damaged EXIF may raise anything, and the pixels are good
            value = image.getexif().get(_ORIENTATION, 1)
            return value if isinstance(value, int) and value in _TURNS else 1
    return 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits as 8, premultiplied alpha as plain; other pictures as they are."""
    if image.mode in ("La", "RGBa"):
        return image.convert(image.mode.upper())
    if not (image.mode in ("I", "F") or image.mode.startswith("I;16")):
        return image
    values_HW = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey_HW = (values_HW >> 8).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey_HW[values_HW == transparent] = 255
        return Image.fromarray(grey_HW)
    return Image.fromarray(_scale(values_HW))


def _scale(values_HW: NDArray[np.int32] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """Integers of 32 bits and floating-point numbers as 8 bits: values that fit stay, and 0 to 1 becomes 0 to 255."""
    low, high = float(values_HW.min()), float(values_HW.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("holds values that are not finite numbers: replace them and save it again")
    if values_HW.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        return values_HW.astype(np.uint8)
    scaled_HW = (values_HW.astype(np.float64) - low) * (255 / max(high - low, np.finfo(np.float64).tiny))
    return scaled_HW.round().astype(np.uint8)


def _shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if size == image.size:
        return image
    if "transparency" in image.info or image.mode not in _SCALED_AS_THEY_ARE:
        image = image.convert("L" if image.mode == "1" else "RGBA" if image.has_transparency_data else "RGB")
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _lay_on_white(image: Image.Image) -> Image.Image:
    coloured = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")


def _to_plain_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK" and profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a damaged profile: without it
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")
