import pytest

from utils.errors import InputError
from utils.plots import plot_training


def test_pictures_are_png_files(tmp_path):
    record = {"epoch": 1, "loss": 0.5, "iou": None}
    plot_training(tmp_path / "a.png", [record])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"a\.jpg: pictures are PNG"):
        plot_training(tmp_path / "a.jpg", [record])
    assert not (tmp_path / "a.jpg").exists()
