import pytest

from tests.golden import RELEASED, needs_shared
from utils.errors import InputError
from utils.runs import Run, create_run, find_run

NAMES = {
    "NUDT-MIRSDT-Noise8.0_FJY(g0.15-o1.3)__2024-12-27_23-28__SoftLoUloss_DeepPro-Plus_DataL40": (
        "NUDT-MIRSDT-Noise8.0_FJY(g0.15-o1.3)",
        "DeepPro-Plus",
    ),
    "RGB-T__2025-01-14_15-27__SoftLoUloss_DeepPro-Plus_DataL40": ("RGB-T", "DeepPro-Plus"),
    "my_set__2026-01-02_03-04-2__HAM_DeepPro_DataL8": ("my_set", "DeepPro"),
    "SatVideoIRSDT__2025-07-22_19-41__SoftLoUloss_DeepPro-Plus_DataL40_ZSadd200": (
        "SatVideoIRSDT",
        "DeepPro-Plus",
    ),
    "renamed": (None, None),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_tell_data_set_and_model(tmp_path, name):
    run = Run(tmp_path / name)
    assert (run.dataset, run.model) == NAMES[name]


def test_a_renamed_run_is_known_by_its_log(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/DeepPro-Plus.txt").touch()
    assert Run(tmp_path).model == "DeepPro-Plus"


def test_runs_are_found_in_both_places_and_by_path(tmp_path):
    for folder in ("own", "sem_seg/released (v1.0)"):
        (tmp_path / folder / "checkpoints").mkdir(parents=True)
    assert find_run(tmp_path, "own").folder == tmp_path / "own"
    assert find_run(tmp_path, "released (v1.0)/").folder == tmp_path / "sem_seg/released (v1.0)"
    assert find_run("elsewhere", tmp_path / "own").folder == tmp_path / "own"
    with pytest.raises(InputError, match="did you mean 'own'"):
        find_run(tmp_path, "owm")


def test_fresh_runs_never_share_a_folder(tmp_path):
    runs = [create_run(tmp_path, None, "Set", "SoftIoU", "DeepPro", 40) for _ in range(3)]
    assert len({run.folder for run in runs}) == 3
    assert {(run.dataset, run.model) for run in runs} == {("Set", "DeepPro")}
    assert all(run.checkpoints.is_dir() and (run.folder / "logs").is_dir() for run in runs)


def test_options_read_back(tmp_path):
    run = Run(tmp_path)
    assert run.options() == {}
    run.save_options({"model": "DeepPro", "learning_rate": 1e-5, "sample_rate": None})
    assert run.options() == {"model": "DeepPro", "learning_rate": 1e-5, "sample_rate": None}


def test_another_gpu_may_take_a_run_over(tmp_path):
    """A run that was begun on one of several GPUs goes on anywhere, an old one as well."""
    run = Run(tmp_path)
    run.save_options({"model": "DeepPro", "gpu": "1"})
    assert run.options() == {"model": "DeepPro"}
    (tmp_path / "options.yaml").write_text("model: DeepPro\ngpu: '1'\n")
    assert run.options() == {"model": "DeepPro"}


@needs_shared
def test_all_released_runs_say_what_they_are():
    runs = [Run(p) for p in (RELEASED / "sem_seg").iterdir()]
    assert len(runs) == 7
    assert all(run.dataset and run.model in ("DeepPro", "DeepPro-Plus") for run in runs)
