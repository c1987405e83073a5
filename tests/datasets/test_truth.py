import pytest

from datasets.truth import read_snr, snr_subsets
from utils.errors import InputError

ROWS = """sequence,frame,target,snr
a,1,1,2.0
a,2,1,3.0
a,2,2,3.4
b,1,1,3.1
c,1,1,9.0
"""


def test_sequences_are_sorted_by_the_mean_over_their_targets(tmp_path):
    (tmp_path / "truth.csv").write_text(ROWS)  # a: (2.5 + 3.4) / 2
    snr = read_snr(tmp_path)
    assert snr == pytest.approx({"a": 2.95, "b": 3.1, "c": 9.0})
    assert snr_subsets(snr, ["c", "a", "b", "empty"]) == {
        "low_snr": ("a",),
        "high_snr": ("c", "b"),
    }


def test_no_truth_no_subsets(tmp_path):
    assert read_snr(tmp_path) == {}
    assert snr_subsets({}, ["a"]) == {}


@pytest.mark.parametrize(
    "text",
    [
        "frame,x\n1,2\n",
        "sequence,target,snr\na,1,loud\n",
        "sequence,target,snr\na,1,nan\n",
        "\0\xff",
    ],
)
def test_an_unreadable_truth_is_named(tmp_path, text):
    (tmp_path / "truth.csv").write_text("sequence\n" + text if text[0] == "\0" else text)
    with pytest.raises(InputError, match=r"truth\.csv: cannot be read"):
        read_snr(tmp_path)
