"""Reading and writing images: one grey level a pixel, errors that name the file."""

import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from utils.errors import InputError

LOSSY_LEVEL = 127
IMAGE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_frame(path: Path) -> np.ndarray:
    """Grey levels [H, W], uint8 or uint16; of a colour image the red channel (published)."""
    image = _decode(path)
    return image if image.ndim == 2 else np.ascontiguousarray(image[:, :, 2])  # B, G, R


def read_mask(path: Path) -> np.ndarray:
    """Foreground [H, W] bool: where a grey level, or a colour channel but alpha, is above 0.

    In a JPEG, whose compression leaves low levels around everything, above 127.
    """
    image = _decode(path)
    level = LOSSY_LEVEL if path.suffix.lower() in (".jpg", ".jpeg") else 0
    return image > level if image.ndim == 2 else (image[:, :, :3] > level).any(axis=2)


def read_instances(path: Path) -> np.ndarray:
    """The numbers [H, W] int32 that a mask gives its targets: grey levels, 0 is none.

    Colours stand for the number blue + 256 green + 65536 red, greys among them for their level. A
    JPEG numbers nothing: 255 where `read_mask` sees foreground.
    """
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return read_mask(path) * np.int32(255)
    image = _decode(path).astype(np.int32)
    if image.ndim == 2:
        return image
    blue, green, red = image[:, :, 0], image[:, :, 1], image[:, :, 2]
    grey = (blue == green) & (green == red)
    return np.where(grey, blue, blue + 256 * green + 65536 * red)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write grey levels [H, W], uint8 or uint16, in the format of the suffix."""
    try:
        path.write_bytes(cv2.imencode(path.suffix.lower(), image)[1].tobytes())
    except OSError as error:
        error.filename = str(path)  # a full disk does not say where
        raise


def _decode(path: Path) -> np.ndarray:
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    image = None
    if len(content) and _png_is_whole(content.tobytes()):
        with suppress(cv2.error):  # raised by a header that asks for an absurd size
            image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"{path}: not a readable image (empty, truncated or of another kind)")
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: {image.dtype} pixels; expected 8- or 16-bit grey levels")
    return image


def _png_is_whole(content: bytes) -> bool:
    """False for a PNG that ends early or whose chunks are damaged; True for anything else.

    libpng would find out as well, but it writes lines of its own to stderr.
    """
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return True
    place, kind = 8, b""
    while kind != b"IEND":
        length = int.from_bytes(content[place : place + 4], "big")
        chunk = content[place + 4 : place + 8 + length]  # kind and data
        kind = chunk[:4]
        checksum = content[place + 8 + length : place + 12 + length]
        if len(checksum) < 4 or zlib.crc32(chunk) != int.from_bytes(checksum, "big"):
            return False
        place += 12 + length
    return True


def resize_frame(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame [H, W] at size (H', W'): bicubic to enlarge, area means to shrink."""
    if frame.shape == tuple(size):
        return frame
    shrinks = size[0] < frame.shape[0] or size[1] < frame.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(frame, (size[1], size[0]), interpolation=method)


def resize_mask(mask: np.ndarray, size: tuple[int, int], method: str = "nearest") -> np.ndarray:
    """A mask [H, W] bool at size (H', W').

    `nearest` may lose small targets on shrinking; `any` keeps every pixel that holds a part of
    one; `bicubic` interpolates and takes what is above 0, which dilates targets (published).
    """
    if mask.shape == tuple(size):
        return mask
    flag = {
        "nearest": cv2.INTER_NEAREST_EXACT,
        "any": cv2.INTER_AREA,
        "bicubic": cv2.INTER_CUBIC,
    }[method]
    # Any part of a pixel counts: whole numbers would round small parts to 0.
    grey = mask.astype(np.float32 if method == "any" else np.uint8) * 255
    return cv2.resize(grey, (size[1], size[0]), interpolation=flag) > 0
