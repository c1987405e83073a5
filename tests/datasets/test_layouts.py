import pytest

from datasets.layouts import PUBLISHED, Layout, find_layout, layout_names
from utils.errors import InputError


@pytest.mark.parametrize("name", layout_names())
def test_every_name_and_alias_is_found(name):
    assert find_layout(name).name == name


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("NUDT-MIRSDT", 105.4025, 26.6452),
        ("NUDT-MIRSDT-Noise8.0_FJY(g0.15-o1.3)", 105.4025, 26.6452),
        ("NUDT-MIRSDT-HiNo", 105.4025, 26.6452),
        ("RGB-T", 85.0799, 47.4845),
        ("IRDST-simulation", 106.8523, 56.9243),
        ("SatVideoIRSDT", 111.47, 22.43),
        ("IRSatVideo-LEO", 72.104, 12.303),
        ("Folder", None, None),
    ],
)
def test_published_statistics(name, mean, std):
    layout = find_layout(name)
    assert (layout.name, layout.mean, layout.std) == (name, mean, std)


def test_snr_subsets_hold_the_twenty_test_sequences():
    subsets = find_layout("NUDT-MIRSDT").subsets
    assert len(subsets["low_snr"]) == 8
    assert len(subsets["high_snr"]) == 12
    assert not set(subsets["low_snr"]) & set(subsets["high_snr"])


def test_unknown_name_gives_the_nearest():
    with pytest.raises(InputError, match="did you mean 'NUDT-MIRSDT'"):
        find_layout("NUDT_MIRSDT")


def test_a_layout_from_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("frames: 'f/{sequence}'\nmasks: 'm/{sequence}'\nmean: 90\nstd: 20.5\n")
    layout = find_layout(str(path))
    assert layout == Layout("mine", frames="f/{sequence}", masks="m/{sequence}", mean=90, std=20.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("farmes: x", "unknown key 'farmes': did you mean 'frames'"),
        ("lists: {train: 5}", "expected `split: path` entries"),
        ("subsets: {low: Sequence4}", "subsets: expected"),
        ("mean: 90", "mean and std go together"),
        ("mean: dark", "mean: expected a number, got 'dark'"),
        ("mean: true", "mean: expected a number"),
        ("std: .inf", "std: expected a number above 0"),
        ("size: [a, b]", "height, width"),
        ("sample_rate: -1", "sample_rate: expected"),
        ("masks: m", "holds {sequence}"),
        ("first_number: -5", "at least 0"),
        ("when: 2026-13-45", "cannot be read as YAML"),
        ("std: 0", "std: expected a number above 0"),
        ("frames: '{seq}'", "holds {sequence}"),
        ("size: [5]", "expected \\[height, width\\]"),
        ("- a\n- b", "expected `key: value` lines"),
        ("a: [", "cannot be read as YAML"),
        ("evaluation_split: nope", "no split 'nope'"),
    ],
)
def test_bad_yaml_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        find_layout(str(path))


def test_missing_yaml_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        find_layout(str(tmp_path / "none.yaml"))


def test_names_are_unique():
    names = [n for layout in PUBLISHED for n in (layout.name, *layout.aliases)]
    assert len(names) == len(set(names))
