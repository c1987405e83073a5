import json

import pytest

from utils import snr_curve
from utils.errors import InputError


def evaluation(**more) -> dict:
    """Four sequences of ten targets; thresholds 0, 0.5, 0.9."""

    def sequence(snr, hits):
        return {"snr": snr, "targets": 10, "hits": hits}

    return {
        "model": "Eye",
        "overall": {"thresholds": [0, 0.5, 0.9], "fa": [1.0, 1e-4, 1e-6]},
        "sequences": {
            "a": sequence(4.0, [10, 9, 8]),
            "b": sequence(1.0, [10, 3, 1]),
            "c": sequence(2.0, [10, 5, 3]),
            "d": sequence(6.0, [10, 10, 10]),
            "nothing in it": {"snr": None, "targets": 0, "hits": [0, 0, 0]},
        },
        **more,
    }


def test_pd_at_the_lowest_threshold_whose_fa_is_low_enough():
    curve = snr_curve.snr_curve(evaluation(), fa=1e-4, bins=2)
    assert (curve.name, curve.threshold, curve.fa) == ("Eye", 0.5, 1e-4)
    assert curve.snr == [1.5, 5.0]
    assert curve.pd == [0.4, 0.95]
    assert snr_curve.snr_curve(evaluation(), fa=9e-5, bins=4).pd == [0.1, 0.3, 0.8, 1.0]


def test_no_threshold_is_that_clean():
    with pytest.raises(InputError, match=r"Fa is above 1e-07 at every threshold.*raise --fa"):
        snr_curve.snr_curve(evaluation(), fa=1e-7, bins=2)


def test_more_bins_than_sequences():
    with pytest.raises(InputError, match="4 sequences of known SNR, 5 bins"):
        snr_curve.snr_curve(evaluation(), fa=1e-4, bins=5)


def test_command_draws_and_prints(tmp_path, run_main):
    (tmp_path / "eye").mkdir()
    (tmp_path / "eye/metrics.json").write_text(json.dumps(evaluation()))
    status, out, _ = run_main(
        snr_curve.main, tmp_path / "eye", "--out", tmp_path / "c.png", "--bins", 2, "--fa", 1e-4
    )
    assert status == 0
    assert "0.400" in out
    assert "0.950" in out
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_evaluations_of_two_data_sets_do_not_compare(tmp_path, run_main):
    other = evaluation()
    other["sequences"]["a"]["snr"] = 4.5
    for name, results in (("one", evaluation()), ("other", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(results))
    paths = (tmp_path / "one.json", tmp_path / "other.json")
    more = ("--out", tmp_path / "c.png", "--bins", 2, "--fa", 1e-4)
    assert run_main(snr_curve.main, *paths, *more)[0] == 2
    status, out, _ = run_main(snr_curve.main, paths[0], paths[0], *more)
    assert status == 0
    assert "Eye in one" in out


@pytest.mark.parametrize("text", ["{", "[]", '{"overall": null}'])
def test_what_is_no_evaluation_is_named(tmp_path, run_main, text):
    (tmp_path / "metrics.json").write_text(text)
    status, _, errors = run_main(snr_curve.main, tmp_path, "--out", tmp_path / "c.png")
    assert status == 2
    assert str(tmp_path / "metrics.json") in errors
    assert errors.count("\n") == 1
