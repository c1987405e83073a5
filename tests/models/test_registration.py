"""Registration against known motions, and the Detector that registers."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from models import Detector
from models.registration import REGISTRATIONS, Alignment, register
from utils.errors import InputError

SIZE, T = 96, 10
MOVING = [mode for mode in REGISTRATIONS if mode != "none"]
CENTRE = np.array([[[20, 20], [75, 20], [20, 75], [75, 75], [48, 48]]], np.float64)


def scenery(seed: int = 0, side: int = 256) -> np.ndarray:
    """A scene [side, side] of all scales, grey levels about 120."""
    rng = np.random.default_rng(seed)
    scales = [cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), s) * s for s in (1, 2, 4, 9)]
    scene = sum(scales)
    return (120 + 15 * scene / scene.std()).astype(np.float32)


def moved(x: float, y: float, degrees: float = 0, tilt: float = 0) -> np.ndarray:
    """A motion [3, 3] about the middle of the frame."""
    middle = np.array([[1, 0, -SIZE / 2], [0, 1, -SIZE / 2], [0, 0, 1]])
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    motion = np.array([[c, -s, x], [s, c, y], [tilt, 0, 1]])
    return np.linalg.inv(middle) @ motion @ middle


def drift(count: int = T, x: float = 0.83, y: float = -0.37, degrees: float = 0, tilt: float = 0):
    """A steady motion, no motion in the middle frame."""
    return [moved(x * i, y * i, degrees * i, tilt * i) for i in np.arange(count) - count // 2]


def film(motions: list[np.ndarray], noise: float = 1.0, seed: int = 0) -> np.ndarray:
    """Frames [n, SIZE, SIZE] uint8: what lies at p in a frame without motion lies at M p."""
    rng, scene = np.random.default_rng(seed), scenery(seed)
    place = np.array([[1, 0, 80], [0, 1, 80], [0, 0, 1.0]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    frames = [
        cv2.warpPerspective(scene, place @ np.linalg.inv(M), (SIZE, SIZE), flags=flags)
        for M in motions
    ]
    frames = np.array(frames) + rng.normal(0, noise, (len(motions), SIZE, SIZE))
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def distance(alignment: Alignment, motions: list[np.ndarray]) -> float:
    """The largest distance, in pixels, between where points are and where they are said to be."""
    H, W = alignment.canvas
    onto_canvas = _middle_on_canvas(alignment)
    errors = [
        cv2.perspectiveTransform(CENTRE, M @ onto_canvas) - cv2.perspectiveTransform(CENTRE, true)
        for M, true in zip(alignment.transforms, motions, strict=True)
    ]
    assert min(H, W) >= SIZE
    return float(np.linalg.norm(errors, axis=-1).max())


def _middle_on_canvas(alignment: Alignment) -> np.ndarray:
    return np.linalg.inv(alignment.transforms[len(alignment.transforms) // 2])


class Bright(nn.Module):
    """Probability 0.98 where a pixel is 35 grey levels over its median in time, else 0.02."""

    def __init__(self, seqlen: int = T):
        super().__init__()
        self.seqlen = seqlen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert torch.isfinite(x).all()
        over = x[:, 0] - x[:, 0].median(1, keepdim=True).values
        return torch.where(over > 35, 4.0, -4.0)


def detector(register: str) -> Detector:
    return Detector(Bright(), 0, 1, register=register)


@pytest.mark.parametrize("mode", MOVING)
def test_shifts_are_recovered(mode):
    motions = drift()
    alignment = register(film(motions), mode)
    assert distance(alignment, motions) < (0.2 if mode == "homography" else 0.1)


@pytest.mark.parametrize("mode", ["euclidean", "auto"])
def test_rotations_are_recovered(mode):
    motions = drift(degrees=0.4)
    assert distance(register(film(motions), mode), motions) < 0.1


def test_perspective_is_recovered():
    motions = drift(tilt=1.5e-4)
    frames = film(motions)
    assert distance(register(frames, "homography"), motions) < 0.25
    assert distance(register(frames, "euclidean"), motions) > 0.5


def test_large_frames_are_measured_reduced():
    motions = drift(x=2.4, y=-1.2)
    frames = np.array(
        [cv2.resize(f, (480, 480), interpolation=cv2.INTER_CUBIC) for f in film(motions)]
    )
    alignment = register(frames, "euclidean")
    shifts = (alignment.transforms @ _middle_on_canvas(alignment))[:, :2, 2]
    np.testing.assert_allclose(shifts, 5 * np.array([M[:2, 2] for M in motions]), atol=0.4)


@pytest.mark.parametrize("mode", MOVING)
def test_shading_of_the_camera_does_not_hold_the_estimate(mode):
    """Plain intensities would find hardly any motion: the shading stands still."""
    motions = drift(degrees=0.1)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    frames = film(motions).astype(np.float32) + 300 * (x**2 + y**2)
    assert distance(register(frames, mode), motions) < (0.6 if mode == "translation" else 0.3)


@pytest.mark.parametrize("mode", MOVING)
def test_fast_bright_target_does_not_disturb(mode):
    motions = drift()
    frames = film(motions)
    for i, frame in enumerate(frames):
        cv2.circle(frame, (15 + 7 * i, 60), 3, 255, -1)
    assert distance(register(frames, mode), motions) < 0.2


@pytest.mark.parametrize("mode", MOVING)
def test_target_before_a_blank_sky_is_not_followed(mode):
    rng = np.random.default_rng(0)
    frames = np.rint(rng.normal(80, 2, (T, SIZE, SIZE))).astype(np.uint8)
    for i, frame in enumerate(frames):
        cv2.circle(frame, (30 + 3 * i, 50), 4, 250, -1)
    assert register(frames, mode) is None


FLAT = np.full((T, SIZE, SIZE), 77, np.uint8)
UNUSABLE = {
    "flat": FLAT,
    "black": FLAT * 0,
    "noise": np.random.default_rng(1).integers(0, 256, FLAT.shape, np.uint8),
    "one frame": film(drift(1)),
    "tiny": film(drift())[:, :8, :8],
    "one row": film(drift())[:, :1],
    "not finite": np.where(film(drift()) > 140, np.nan, 1.0),
    "one step": np.concatenate([FLAT[:5], FLAT[5:] + 100]),
}


@pytest.mark.parametrize("mode", MOVING)
@pytest.mark.parametrize("kind", UNUSABLE)
def test_frames_without_a_motion_to_measure_stay_as_they_are(kind, mode):
    assert register(UNUSABLE[kind], mode) is None


def test_a_cut_in_the_window_is_survived():
    frames = np.concatenate([film(drift(5)), film(drift(5), seed=1)])
    for mode in MOVING:
        assert register(frames, mode) is None
        np.testing.assert_array_equal(detector(mode)(frames), detector("none")(frames))


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "f4", "i8"])
def test_any_kind_of_grey_level(dtype):
    motions = drift()
    frames = 200 * film(motions).astype(np.int64)
    assert distance(register(frames.astype(dtype), "euclidean"), motions) < 0.1


def test_places_that_a_frame_did_not_see_hold_what_they_showed():
    motions = drift(x=3)
    frames = film(motions, noise=0)
    alignment = register(frames, "translation")
    canvas = alignment.warp(frames)
    top, left = np.rint(-_shift(alignment, 5)).astype(int)[::-1]
    assert canvas.shape[2] > SIZE
    # What only the last frames see, at the right: the first frames show the same.
    side = canvas[:, top + 10 : top + 80, left - 10]
    assert np.ptp(side, axis=0).max() < 12
    assert np.abs(np.diff(side[5:], axis=0)).max() < 12
    np.testing.assert_allclose(
        canvas[5, top : top + SIZE, left : left + SIZE], frames[5], atol=2
    )  # the middle frame is not resampled; what little seems to be the camera's pattern goes


def _shift(alignment: Alignment, i: int) -> np.ndarray:
    return alignment.transforms[i, :2, 2]


@pytest.mark.parametrize("mode", MOVING)
def test_maps_are_in_each_frames_own_coordinates(mode):
    """Targets of one pixel that cross a moving scene, one of them along the border."""
    frames = film(drift(25, x=1.3, y=0.4))
    truth = np.zeros(frames.shape, bool)
    for i in range(len(frames)):
        truth[i, 40 + i, 90 - 3 * i] = truth[i, 1, 3 * i + 2] = True
    frames[truth] = 255
    found = detector(mode)(frames) > 0.5
    near = np.array([cv2.dilate(f.astype(np.uint8), np.ones((3, 3))) for f in found]) > 0
    assert near[truth].mean() > 0.9
    wide = np.array([cv2.dilate(t.astype(np.uint8), np.ones((5, 5))) for t in truth]) > 0
    assert np.count_nonzero(found & ~wide) < 5
    assert np.count_nonzero((detector("none")(frames) > 0.5) & ~wide) > 50


@pytest.mark.parametrize("mode", MOVING)
def test_no_detections_at_the_borders_that_come_into_view(mode):
    frames = film(drift(x=4, y=-3, degrees=0.2), noise=2)
    assert detector(mode)(frames).max() < 0.5


def test_beyond_the_canvas_nothing_is_detected():
    shifts = np.array([moved(60 * i, 0) for i in range(-1, 2)])
    alignment = Alignment(shifts, (SIZE, SIZE), (SIZE, SIZE))
    maps = alignment.restore(np.ones((3, SIZE, SIZE), np.float32))
    assert maps.shape == (3, SIZE, SIZE)
    assert maps[0].sum() == maps[2].sum() == SIZE * (SIZE - 60)
    assert not maps[2, :, :60].any()
    assert not maps[0, :, SIZE - 60 :].any()


@pytest.mark.parametrize("count", [3, 10, 11, 24])
def test_stream_is_the_windows_registered_one_by_one(count):
    frames = film(drift(count))
    maps = np.array(list(detector("euclidean").stream(iter(frames))))
    expected = np.zeros(frames.shape, np.float32)
    for start, stop in {3: [(0, 3)], 10: [(0, 10)], 11: [(0, 10), (1, 11)]}.get(
        count, [(0, 10), (9, 19), (14, 24)]
    ):
        one = detector("euclidean")(frames[start:stop])
        expected[start:stop] = np.maximum(expected[start:stop], one)
    np.testing.assert_array_equal(maps, expected)


@pytest.mark.parametrize("scene", ["noise", "still scene", "shaking a little"])
def test_auto_leaves_a_still_camera_alone(scene):
    rng = np.random.default_rng(3)
    frames = {
        "noise": rng.integers(0, 256, (12, SIZE, SIZE), np.uint8),
        "still scene": film(drift(12, 0, 0), noise=4),
        "shaking a little": film([moved(*rng.normal(0, 0.2, 2)) for _ in range(12)]),
    }[scene]
    np.testing.assert_array_equal(detector("auto")(frames), detector("none")(frames))


def below(sky: np.ndarray, ground: np.ndarray, share: float) -> np.ndarray:
    """Frames whose lower rows, all but `share` of them, show the ground."""
    rows = round(share * SIZE)
    return np.concatenate([sky[:, :rows], ground[:, rows:]], axis=1)


@pytest.mark.parametrize("share", [0.65, 0.7, 0.8, 0.9])
@pytest.mark.parametrize(("count", "speed"), [(30, 0.5), (2, 6.0)])
def test_auto_does_not_move_still_ground_below_drifting_clouds(share, count, speed):
    """The clouds are most of the frame, and their points agree."""
    clouds, ground = film(drift(count, speed, 0.0)), film(drift(count, 0, 0), seed=1)
    assert register(below(clouds, ground, share), "auto") is None


def test_auto_follows_a_skyline_below_a_blank_sky_with_fixed_pattern():
    """Registered, the pattern moves over the sky that stood still, but it is taken away."""
    rng = np.random.default_rng(2)
    motions, pattern = drift(30, 0.5, 0.0), rng.normal(0, 2, (SIZE, SIZE))
    sky = np.full((30, SIZE, SIZE), 90.0)
    frames = below(sky, film(motions, noise=0).astype(float), 0.6) + pattern
    frames = np.rint(frames + rng.normal(0, 1, frames.shape)).clip(0, 255).astype(np.uint8)
    assert distance(register(frames, "auto"), motions) < 0.3


def test_an_unknown_registration_names_the_nearest():
    with pytest.raises(InputError, match="euclidean"):
        detector("euclidian")
