import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from models import window_length
from tests.golden import RELEASED, needs_shared
from utils.checkpoints import (
    load_checkpoint,
    load_newest,
    load_weights,
    save_checkpoint,
)
from utils.errors import InputError
from utils.runs import Run


class Bomb:
    """What a hostile checkpoint holds: code that runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def state(epoch=3, **more):
    return {"epoch": epoch, "model_state_dict": nn.Linear(2, 3).state_dict(), **more}


def test_a_checkpoint_reads_back(tmp_path):
    saved = state(mean=1.5, records=[{"loss": 0.5, "iou": None}])
    save_checkpoint(tmp_path / "a.pth", saved)
    read = load_checkpoint(tmp_path / "a.pth")
    assert torch.equal(read["model_state_dict"]["weight"], saved["model_state_dict"]["weight"])
    assert (read["epoch"], read["mean"], read["records"]) == (3, 1.5, saved["records"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("numpy", ["numpy.core", "numpy._core"])
def test_a_scalar_of_any_numpy_is_read(tmp_path, numpy):
    """As released files hold one, and those that a user has saved again."""
    core = np.float64(0).__reduce__()[0].__module__.removesuffix(".multiarray")
    torch.save(state(best_iou=np.float64(0.5)), tmp_path / "own.pth")
    ours, named = (f"{name}.multiarray\n".encode() for name in (core, numpy))
    with (
        zipfile.ZipFile(tmp_path / "own.pth") as own,
        zipfile.ZipFile(tmp_path / "a.pth", "w") as new,
    ):
        for part in own.infolist():
            new.writestr(part, own.read(part).replace(ours, named))
    assert load_checkpoint(tmp_path / "a.pth")["best_iou"] == 0.5


def test_code_is_refused_and_never_run(tmp_path):
    for i, hostile in enumerate(
        (state(optimizer=Bomb(str(tmp_path / "ran"))), Bomb(str(tmp_path / "ran")))
    ):
        torch.save(hostile, tmp_path / f"{i}.pth")
        with pytest.raises(InputError, match="could execute code"):
            load_checkpoint(tmp_path / f"{i}.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb(str(tmp_path / "ran"))))
    with pytest.raises(InputError, match=r"plain\.pth"):
        load_checkpoint(tmp_path / "plain.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, share):
    save_checkpoint(tmp_path / "a.pth", state())
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"a\.pth: not a checkpoint"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("start", [0.3, 0.6, 0.8])
def test_a_hole_in_a_file_of_full_length_is_refused(tmp_path, start):
    """As a disk leaves one: torch reads it without a word, as weights that are zero."""
    save_checkpoint(tmp_path / "a.pth", {"model_state_dict": nn.Linear(100, 100).state_dict()})
    content = bytearray((tmp_path / "a.pth").read_bytes())
    hole = slice(int(start * len(content)), int(start * len(content)) + 64)
    content[hole] = bytes(64)
    (tmp_path / "a.pth").write_bytes(content)
    torch.load(tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: damaged: .* is not what was written"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content", [{"model_state_dict": {"a": 1}}, {"weights": {}}, [1, 2], {"model_state_dict": 3}]
)
def test_foreign_contents_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match="model_state_dict"):
        load_checkpoint(tmp_path / "a.pth")


def test_text_missing_and_odd_epoch_are_refused(tmp_path):
    (tmp_path / "a.pth").write_text("hello")
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "a.pth")
    with pytest.raises(InputError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "b.pth")
    torch.save(state(epoch="three"), tmp_path / "c.pth")
    with pytest.raises(InputError, match="`epoch` is 'three'; expected int"):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize(
    "odd",
    [
        *({"model": [1]}, {"seqlen": "abc"}, {"seqlen": -4}, {"seqlen": 10**9}, {"mean": "abc"}),
        *({"model_state_dict": {5: torch.zeros(2)}}, {"records": 3}),
        {"model_state_dict": {"w": torch.zeros(2, 2).to_sparse()}},
    ],
)
def test_odd_fields_are_refused_by_path(tmp_path, odd):
    torch.save(state(**odd) if "model_state_dict" not in odd else odd, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth"):
        load_checkpoint(tmp_path / "a.pth")


def test_runs_written_with_whole_numbers_are_read(tmp_path):
    torch.save(state(mean=100, std=20), tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth")["mean"] == 100


def test_weights_of_another_model_or_shape_are_refused():
    with pytest.raises(InputError, match=r"not the weights of B: 1 tensors missing, 0 unknown"):
        load_weights(
            nn.Sequential(nn.Linear(2, 3)),
            {"model_state_dict": {"0.weight": torch.zeros(3, 2)}},
            "B",
            "a.pth",
        )
    with pytest.raises(InputError, match="2 of another shape"):
        load_weights(nn.Linear(2, 4), state(), "B", "a.pth")
    poisoned = state()
    poisoned["model_state_dict"]["bias"][0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        load_weights(nn.Linear(2, 3), poisoned, "B", "a.pth")


def test_resuming_passes_over_torn_checkpoints(tmp_path):
    run = Run(tmp_path)
    whole = {"records": [], "optimizer_state_dict": {}, "model": "M", "dataset": "D", "seqlen": 8}
    whole |= {"mean": 1.0, "std": 2.0, "best_iou": 0.5}
    assert load_newest(run) == (None, None, {})
    for kind, epoch in (("previous", 6), ("last", 7), (5, 4)):
        save_checkpoint(run.checkpoint(kind), state(epoch, **whole))
    assert load_newest(run)[0]["epoch"] == 7
    run.checkpoint("last").write_bytes(run.checkpoint("last").read_bytes()[:500])
    found, path, torn = load_newest(run)
    assert (found["epoch"], path.name) == (6, "previous_model.pth")
    assert [p.name for p in torn] == ["last_model.pth"]
    run.checkpoint("previous").write_bytes(b"")
    assert load_newest(run)[0]["epoch"] == 4
    save_checkpoint(run.checkpoint(5), state(4))
    with pytest.raises(InputError, match="it lacks model, dataset"):
        load_newest(run)
    run.checkpoint(5).write_bytes(b"")
    with pytest.raises(InputError, match="no whole checkpoint"):
        load_newest(run)


def test_every_kind_of_torn_checkpoint_falls_back_to_the_one_before(tmp_path):
    """Where an average is kept, one without the raw weights is no use either."""
    run, raw = Run(tmp_path), {"raw_state_dict": nn.Linear(2, 3).state_dict(), "averaged": 4}
    whole = {"records": [], "optimizer_state_dict": {}, "model": "M", "dataset": "D", "seqlen": 8}
    whole |= {"mean": 1.0, "std": 2.0, "best_iou": 0.5}
    kinds = ("last", "previous", 10, 5, "best")
    for epoch, kind in zip((11, 10, 9, 4, 3), kinds, strict=True):
        save_checkpoint(run.checkpoint(kind), state(epoch, **whole, **raw))
    damages = (
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content.replace(b"weight", b"w\0ight"),
        lambda content: b"",
    )
    for kind, after, damage in zip(kinds, (10, 9, 4, 3), damages, strict=False):
        path = run.checkpoint(kind)
        path.write_bytes(damage(path.read_bytes()))
        found, _, torn = load_newest(run, averaged=True)
        assert found["epoch"] == after
        assert path in torn
    save_checkpoint(run.checkpoint("last"), state(12, **whole))
    assert load_newest(run)[0]["epoch"] == 12
    found, _, torn = load_newest(run, averaged=True)
    assert found["epoch"] == 3
    assert "it lacks raw_state_dict, averaged" in torn[run.checkpoint("last")]


@needs_shared
def test_every_released_checkpoint_is_read():
    paths = sorted(RELEASED.glob("sem_seg/*/checkpoints/*.pth"))
    assert len(paths) == 8
    for path in paths:
        read = load_checkpoint(path)
        assert window_length(read["model_state_dict"]) == 40
        assert read["epoch"] >= 0
        if path.name == "best_model.pth":
            assert 0 < float(read["class_avg_iou"]) < 1
