"""Registration: what a moving camera saw, as a camera at rest would have seen it.

The networks assume that a pixel keeps looking at the same place. `register` measures how the
frames of a window lie on its middle frame; the `Alignment` that it returns brings the frames onto
one canvas, and the probability maps of the canvas back to each frame's own coordinates.

The estimate is one of many points (tracked by Lucas and Kanade's method, OpenCV), made on frames
whose shading is taken away and whose contrast is clipped: shading and fixed pattern belong to the
camera and stand still when the scene moves, and a bright target must not weigh more than a bush.
Points that move by themselves are outliers (RANSAC).
"""

from typing import NamedTuple

import cv2
import numpy as np

REGISTRATIONS = ("none", "translation", "euclidean", "homography", "auto")

LEAST_SIDE = 32  # pixels; smaller frames hold too few points
LONGEST_SIDE = 400  # pixels; larger frames are measured at 1/2, 1/3, ... of their size
SHADING, CLIP = 8.0, 6.0  # pixels; robust standard deviations of the contrast
POINTS, SPACING, REACH = 300, 6, 21  # tracked at most; pixels between them; pixels around each
ROUGH_POINTS = 150  # are enough for the motion from frame to frame, which is measured again
PATTERN = 3.0  # robust standard deviations of a camera's fixed pattern that are believed
TOLERANCE = 1.0  # pixels that a point may lie off the motion of its frame
LEAST_POINTS, LEAST_SHARE = 12, 0.3  # that must agree, else the motion of a frame is not known
LEAST_SPREAD = 0.1  # their standard deviation along x or y, of the frame's side
LEAST_GAIN = (
    0.2  # by which share registered frames must change less; resampling alone smooths a little
)
LEAST_SEEN = 0.25  # of the places of the middle frame that every frame must have seen
LEAST_MOTION = 1.5  # pixels, for `auto`; the networks stand what shakes less
# For `auto`: places of 9 x 9 pixels that change more by half when registered stood still before,
# as the ground below drifting clouds. Pans have up to 2 % of them (a blank sky over a skyline).
PLACE, GROWTH, MOST_GROWN = 9, 1.5, 0.04
MARGIN = 0.25  # of the frame's side: how far the canvas may reach over the middle frame


class Alignment(NamedTuple):
    """How the n frames [H, W] of a window lie on one canvas [H', W'], which holds the middle one.

    `transforms` [n, 3, 3] take (x, y, 1) on the canvas to the coordinates of each frame.
    """

    transforms: np.ndarray
    canvas: tuple[int, int]
    size: tuple[int, int]

    def warp(self, frames: np.ndarray) -> np.ndarray:
        """Frames [n, H, W] on the canvas, [n, H', W'] float32, without the camera's own pattern.

        A place that a frame did not see holds what it showed when it was last seen, or will show
        when it is first seen: nothing happens there that a network could respond to.
        """
        frames = frames.astype(np.float32)
        some = self._replace(transforms=self.transforms[::2])  # enough for a median
        return self._on_canvas(frames - some._pattern(frames[::2]))

    def _on_canvas(self, frames: np.ndarray) -> np.ndarray:
        shape = self.canvas[::-1]
        out = np.empty((len(frames), *self.canvas), np.float32)
        seen = np.empty(out.shape, bool)
        whole = np.ones(self.size, np.float32)
        for i, M in enumerate(self.transforms):
            # Cubic: linear interpolation blurs by the fraction of the shift, and edges flicker.
            flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            cv2.warpPerspective(frames[i], M, shape, out[i], flags, cv2.BORDER_REPLICATE)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            seen[i] = cv2.warpPerspective(whole, M, shape, flags=flags) > 0.99
        for order in (range(1, len(out)), range(len(out) - 2, -1, -1)):
            for i in order:
                take = seen[i - order.step] & ~seen[i]
                out[i][take] = out[i - order.step][take]
                seen[i] |= take
        return out

    def _pattern(self, frames: np.ndarray) -> np.ndarray:
        """What stays at its place in the frames while the scene moves: [H, W].

        Shading and fixed pattern of the camera would move over the registered scene. Small things
        are clipped: a target that the camera follows stays at its place as well.
        """
        scene = self._on_canvas(frames).mean(axis=0)  # [H', W']
        rest = [
            frame - cv2.warpPerspective(scene, M, self.size[::-1], borderMode=cv2.BORDER_REPLICATE)
            for frame, M in zip(frames, self.transforms, strict=True)
        ]
        pattern = np.median(rest, axis=0)
        shading = cv2.GaussianBlur(pattern, (0, 0), 4.0)
        fine = pattern - shading
        bound = PATTERN * 1.4826 * np.median(np.abs(fine))
        return shading + np.clip(fine, -bound, bound)

    def restore(self, maps: np.ndarray) -> np.ndarray:
        """Maps on the canvas [n, H', W'] in each frame's own coordinates, [n, H, W] float32.

        What lies beyond the canvas is 0. The nearest value is taken: interpolation would lower
        those of targets of one pixel.
        """
        out = np.zeros((len(maps), *self.size), np.float32)
        for own, one, M in zip(out, maps, self.transforms, strict=True):
            cv2.warpPerspective(one, M, self.size[::-1], own, cv2.INTER_NEAREST)
        return out


def register(frames: np.ndarray, mode: str) -> Alignment | None:
    """How the frames [n, H, W] of a window lie on its middle frame; None to leave them as they are.

    Args:
        mode: one of REGISTRATIONS: shifts, shifts with rotation, or perspective; `auto` is with
            rotation, of cameras that move by more than they shake and of windows where all that is
            seen moves: no part of the scene may begin to change.

    Whatever the mode, None where too few points agree on a motion, or where it does not make the
    window change less in time: blank skies, noise, tiny or single frames.
    """
    n, *size = frames.shape
    if mode == "none" or n < 2 or min(size) < LEAST_SIDE or not np.isfinite(frames.sum()):
        return None
    factor = -(-max(size) // LONGEST_SIDE)
    textures = _textures(frames, factor)
    if textures is None:
        return None
    transforms = _measure(textures, "euclidean" if mode == "auto" else mode)
    if transforms is None:
        return None
    still = mode == "auto" and factor * _extent(transforms, textures.shape[1:]) < LEAST_MOTION
    if still or not _helps(textures, transforms, everywhere=mode == "auto"):
        return None
    return _place(_enlarged(transforms, factor), tuple(size))


def _textures(frames: np.ndarray, factor: int) -> np.ndarray | None:
    """Frames without shading, contrast clipped, reduced by `factor`: [n, h, w] uint8 about 128.

    None where the frames are flat.
    """
    details = []
    for frame in frames:
        frame = frame.astype(np.float32)
        if factor > 1:
            size = [side // factor for side in frame.shape]
            frame = frame[: size[0] * factor, : size[1] * factor]
            frame = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
        fine, coarse = (cv2.GaussianBlur(frame, (0, 0), sigma) for sigma in (1.0, SHADING))
        details.append(fine - coarse)
    details = np.stack(details)
    middle = details[len(details) // 2]
    # The median deviation is that of the scene without its brightest things; on frames that are
    # flat for the most part it is next to nothing.
    scale, spread = 1.4826 * np.median(np.abs(middle)), middle.std()
    scale = scale if scale > 0.02 * spread else 0.25 * spread
    if not scale > 1e-3:
        return None
    return np.clip(128 + details * (127 / CLIP / scale), 1, 255).astype(np.uint8)


def _measure(textures: np.ndarray, model: str) -> np.ndarray | None:
    """The transforms [n, 3, 3] from the middle frame to every frame; None if not to be measured.

    First from frame to frame outwards, each begun where its neighbour was found; then again, all
    against the mean of the registered frames, which has less noise and better points.
    """
    n, middle = len(textures), len(textures) // 2
    found: list[np.ndarray | None] = [None] * n
    found[middle] = np.eye(3)
    points = _points(textures[middle])[:ROUGH_POINTS]  # the best come first
    unknown = 0
    for order in (range(middle + 1, n), range(middle - 1, -1, -1)):
        for i in order:
            start = found[i - order.step]
            motion = _fit(textures[middle], textures[i], points, start, model, levels=2)
            found[i] = start if motion is None else motion
            unknown += motion is None
    if unknown > n // 4:
        return None
    mean = np.mean([_warped(t, M) for t, M in zip(textures, found, strict=True)], axis=0)
    mean = np.rint(mean).astype(np.uint8)
    points = _points(mean)
    refined = [_fit(mean, t, points, M, model, 0) for t, M in zip(textures, found, strict=True)]
    refined = [old if new is None else new for old, new in zip(found, refined, strict=True)]
    return np.array(refined) @ np.linalg.inv(refined[middle])


def _points(texture: np.ndarray) -> np.ndarray:
    """Corners to track, spread over a texture: [points, 1, 2] float32 (x, y)."""
    points = cv2.goodFeaturesToTrack(texture, POINTS, 0.01, SPACING)
    return np.empty((0, 1, 2), np.float32) if points is None else points


def _fit(reference, texture, points, start, model: str, levels: int) -> np.ndarray | None:
    """The motion [3, 3] from one texture to another, near `start`; None if too few points agree."""
    if len(points) < LEAST_POINTS:
        return None
    guess = cv2.perspectiveTransform(points.astype(np.float64), start).astype(np.float32)
    moved, tracked, _ = cv2.calcOpticalFlowPyrLK(
        reference, texture, points, guess,
        winSize=(REACH, REACH), maxLevel=levels, flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    tracked = tracked.ravel() > 0
    source, target = points[tracked, 0], moved[tracked, 0]
    if len(source) < LEAST_POINTS:
        return None
    motion, agree = MODELS[model](source, target)
    if motion is None or np.count_nonzero(agree) < max(LEAST_POINTS, LEAST_SHARE * len(points)):
        return None
    # Points that lie close together may all be on one target.
    spread = source[np.ravel(agree) > 0].std(axis=0).max()
    return motion if spread > LEAST_SPREAD * max(texture.shape) else None


def _translation(source: np.ndarray, target: np.ndarray):
    """Shift [3, 3] of points [p, 2] by the mean of those near the median; which those are."""
    shift = target - source
    agree = np.linalg.norm(shift - np.median(shift, axis=0), axis=1) < TOLERANCE
    motion = np.eye(3)
    motion[:2, 2] = shift[agree].mean(axis=0) if agree.any() else 0
    return motion, agree


def _euclidean(source: np.ndarray, target: np.ndarray):
    """Rotation and shift [3, 3] of points [p, 2], by those that agree; which those are."""
    similar, agree = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=TOLERANCE)
    if similar is None:
        return None, agree
    agree = agree.ravel() > 0
    motion = np.eye(3)
    motion[:2, :2] = similar[:, :2] / np.hypot(*similar[:, 0])
    motion[:2, 2] = target[agree].mean(axis=0) - motion[:2, :2] @ source[agree].mean(axis=0)
    return motion, agree


def _homography(source: np.ndarray, target: np.ndarray):
    """Homography [3, 3] of points [p, 2], by those that agree; which those are."""
    return cv2.findHomography(source, target, cv2.RANSAC, TOLERANCE)


MODELS = {"translation": _translation, "euclidean": _euclidean, "homography": _homography}


def _warped(texture, transform, border=cv2.BORDER_REPLICATE) -> np.ndarray:
    """A texture [h, w] in the coordinates of the middle frame."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(
        texture, transform, texture.shape[::-1], flags=flags, borderMode=border
    )


def _extent(transforms: np.ndarray, size: tuple[int, int]) -> float:
    """The farthest that a corner [pixels of the textures] is from where the middle frame has it."""
    h, w = size
    corners = np.array([[[0, 0], [w, 0], [0, h], [w, h]]], np.float64)
    moved = [cv2.perspectiveTransform(corners, M) - corners for M in transforms]
    return float(np.abs(moved).max())


def _helps(textures: np.ndarray, transforms: np.ndarray, everywhere: bool) -> bool:
    """Whether registered frames change less in time, over the places that all of them saw.

    With `everywhere` hardly any place may change more instead.
    """
    both = list(zip(textures, transforms, strict=True))
    registered = np.stack([_warped(t, M) for t, M in both])
    seen = np.min([_warped(np.full_like(t, 255), M, cv2.BORDER_CONSTANT) for t, M in both], axis=0)
    seen = seen == 255
    if np.count_nonzero(seen) < LEAST_SEEN * seen.size:
        return False
    before, after = _change(textures), _change(registered)
    if not after[seen].mean() < (1 - LEAST_GAIN) * before[seen].mean():
        return False
    if not everywhere:
        return True
    # As the network will see them: the camera's own pattern would change in a blank sky.
    size = textures.shape[1:]
    some = slice(None, None, 2 if len(textures) > 3 else 1)
    before = _change(textures[some])
    after = _change(Alignment(transforms[some], size, size).warp(textures[some]))
    before, after = (cv2.blur(change * seen, (PLACE, PLACE)) for change in (before, after))
    return bool((after > GROWTH * before)[seen].mean() < MOST_GROWN)


def _change(textures: np.ndarray) -> np.ndarray:
    """The mean distance of every pixel [n, h, w] from its mean in time, [h, w]."""
    mean = textures.mean(axis=0, dtype=np.float32)
    return np.mean([np.abs(t - mean) for t in textures], axis=0)


def _enlarged(transforms: np.ndarray, factor: int) -> np.ndarray:
    """Transforms between frames reduced by `factor` as those between the frames themselves."""
    middle = (factor - 1) / 2  # the centre of the first reduced pixel
    enlarge = np.array([[factor, 0, middle], [0, factor, middle], [0, 0, 1]])
    return enlarge @ transforms @ np.linalg.inv(enlarge)


def _place(transforms: np.ndarray, size: tuple[int, int]) -> Alignment:
    """The canvas that holds all frames, as far as MARGIN allows, and the transforms from it."""
    H, W = size
    corners = np.array([[[0, 0], [W - 1, 0], [0, H - 1], [W - 1, H - 1]]], np.float64)
    placed = np.concatenate(
        [cv2.perspectiveTransform(corners, np.linalg.inv(M))[0] for M in transforms]
    )
    limit = np.array([W, H]) * MARGIN // 8 * 8
    over = np.stack([-placed.min(axis=0), placed.max(axis=0) - (W - 1, H - 1)])  # [2, (x, y)]
    # In steps of 8: the prepared networks keep their arrays where the size stays.
    margins = np.clip(np.ceil((over - 0.01) / 8) * 8, 0, limit).astype(int)
    (left, top), (right, bottom) = margins.tolist()
    shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], float)
    return Alignment(transforms @ shift, (H + top + bottom, W + left + right), size)
