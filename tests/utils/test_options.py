import argparse
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from utils.errors import InputError
from utils.options import Parser, add_common, number_above, one_of, parse_options


@pytest.fixture
def parser():
    parser = Parser(prog="train.py")
    parser.add_argument("--epoch", type=number_above(0, int), default=32)
    parser.add_argument("--rate", type=number_above(0, or_equal=True), default=0.5)
    parser.add_argument("--model", type=one_of("model", ["DeepPro", "Other"]), default="DeepPro")
    parser.add_argument("--visual", action=argparse.BooleanOptionalAction, default=False)
    add_common(parser)
    return parser


def test_defaults_saved_config_and_command_line_in_this_order(parser, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("train:\n  rate: 0.25\n  visual: true\n")
    saved = {"epoch": 5, "rate": 0.125, "visual": False}
    argv = ["--config", str(config)]
    assert parse_options(parser, "train", []).epoch == 32
    assert parse_options(parser, "train", [], saved).rate == 0.125
    options = parse_options(parser, "train", argv, saved)
    assert (options.epoch, options.rate, options.visual) == (5, 0.25, True)
    options = parse_options(parser, "train", [*argv, "--rate", "1", "--no-visual"], saved)
    assert (options.rate, options.visual) == (1.0, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epok: 3}", "unknown option 'epok'; did you mean 'epoch'"),
        ("trian: {epoch: 3}", "unknown section 'trian'"),
        ("train: {epoch: many}", "expected a whole number above 0"),
        ("train: {epoch: true}", "takes a value, not True"),
        ("train: {epoch: [1, 2]}", "takes one value"),
        ("train: 5", "expected `option: value` lines"),
        ("train: {config: a.yaml}", "unknown option 'config'"),
        ("x", "expected `key: value` lines"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_bad_configuration_is_refused(parser, tmp_path, text, message):
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(InputError, match=message):
        parse_options(parser, "train", ["--config", str(config)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epok", "3"], r"did you mean --epoch\?"),
        (["--epo", "3"], "unrecognized"),
        (["--epoch", "0"], "expected a whole number above 0"),
        (["--rate", "nan"], "expected a number of at least 0"),
        (["--rate", "inf"], "expected a number"),
        (["--model", "deeppro"], "did you mean 'DeepPro'"),
        (["--config", "none.yaml"], "No such file"),
    ],
)
def test_bad_arguments_are_refused(parser, argv, message):
    with pytest.raises(InputError, match=message):
        parse_options(parser, "train", argv)


@pytest.mark.parametrize("command", ["train.py", "test.py", "predict.py", "benchmark.py"])
def test_help_does_not_wait_for_libraries_that_only_results_need(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", command, "--help"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith(f"usage: {command}")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported
    assert not imported & {"matplotlib", "sklearn", "scipy.optimize", "scipy.spatial"}
