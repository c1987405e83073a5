"""Options: one parser, a YAML file below the command line, one line for every error."""

import argparse
import sys
from pathlib import Path

import yaml

from utils.errors import InputError, nearest, unknown_name

SECTIONS = ("train", "test", "predict")  # of a configuration file


class Parser(argparse.ArgumentParser):
    """argparse that shows defaults, takes no abbreviations, and raises InputError in one line."""

    def __init__(self, **arguments):
        arguments.setdefault("formatter_class", _HelpFormatter)
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str):
        flags = [flag for action in self._actions for flag in action.option_strings]
        if message.startswith("unrecognized arguments: --"):
            guess = nearest(message.split()[2].split("=")[0], flags)
            message += f" (did you mean {guess}?)" if guess else ""
        raise InputError(f"{message}; see {self.prog} --help")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults that say something, and descriptions as written."""

    def _get_help_string(self, action):
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


def one_of(kind: str, names: list[str]):
    """An argparse `type` that names the nearest of `names` if the value is none of them."""

    def check(value: str) -> str:
        if value not in names:
            raise argparse.ArgumentTypeError(str(unknown_name(kind, value, names)))
        return value

    return check


def folder(value: str) -> Path:
    """An argparse `type`: a path that is not empty (as that of an unset shell variable is)."""
    if not value.strip():
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(value)


def picture(value: str) -> Path:
    """An argparse `type`: a PNG file to write."""
    path = folder(value)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise argparse.ArgumentTypeError(f"{value!r}: expected a file name that ends in .png")
    return path


def probability(value: str) -> float:
    """An argparse `type`: a number from 0 to below 1."""
    number = number_above(0, or_equal=True)(value)
    if not number < 1:
        raise argparse.ArgumentTypeError(f"{value!r}: expected a probability below 1")
    return number


def number_above(
    least: float, kind: type = float, or_equal: bool = False, most: float = float("inf")
):
    """An argparse `type`: a finite number above `least` (or equal to it), `most` at the most."""

    def check(value: str):
        try:
            number = kind(value)
        except ValueError:
            number = None
        above = number is not None and (number > least or (or_equal and number == least))
        if not above or number > most or number == float("inf"):
            a = "a whole number" if kind is int else "a number"
            bound = f" of at least {least}" if or_equal else f" above {least}"
            bound = "" if least == float("-inf") else bound
            bound += "" if most == float("inf") else f" and at most {most}"
            raise argparse.ArgumentTypeError(f"{value!r}: expected {a}{bound}")
        return number

    return check


def finite(value: str) -> float:
    """An argparse `type`: any finite number."""
    return number_above(float("-inf"))(value)


def add_common(parser: Parser) -> None:
    """The options of every command: --config and --debug."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE.yaml",
        help="options from a YAML file with a section for each command, such as train:; "
        "the command line wins",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def add_data(parser: Parser, datasets: list[str], **defaults) -> None:
    """--dataset, --datapath and --seqlen, spelled as published."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset", default="NUDT-MIRSDT", metavar="NAME",
        help=f"{', '.join(datasets)}, or a layout of your own as FILE.yaml",
    )  # fmt: skip
    group.add_argument(
        "--datapath",
        type=folder,
        default=Path("datasets/NUDT-MIRSDT"),
        help="folder of the data set",
    )
    group.add_argument(
        "--seqlen", type=number_above(0, int), default=defaults.get("seqlen"), metavar="T",
        help="frames in a window; fixed by a checkpoint",
    )  # fmt: skip


def add_rule(parser: Parser, borders: tuple[str, ...]) -> None:
    """The options of the shooting rule: --window_radius and --border."""
    group = parser.add_argument_group("shooting rule")
    group.add_argument(
        "--window_radius", type=number_above(0, int, or_equal=True, most=1000), default=4,
        metavar="R",
        help="radius r of the (2r + 1) x (2r + 1) windows around target pixels within which a "
        "predicted pixel is no false alarm; the published DeepPro rows had 5, the Plus rows 4",
    )  # fmt: skip
    group.add_argument(
        "--border", choices=borders, default=borders[0],
        help="windows at the edges: clipped there, or as in the published evaluator, where those "
        "over the top or left edge vanish",
    )  # fmt: skip


def add_normalisation(parser: Parser, sources: tuple[str, ...]) -> None:
    """--normalize, --mean and --std."""
    group = parser.add_argument_group("normalisation of grey levels")
    explained = {
        "dataset": "the data set's mean and std, as published; where it has none, the run's or "
        "else the images'",
        "run": "those of the training run",
        "images": "measured on the images",
    }
    group.add_argument(
        "--normalize", choices=sources, default=sources[0],
        help="; ".join(f"{source}: {explained[source]}" for source in sources),
    )  # fmt: skip
    group.add_argument("--mean", type=finite, help="mean grey level, with --std")
    group.add_argument("--std", type=number_above(0), help="standard deviation of grey levels")


def add_clips(parser: Parser) -> None:
    """What an epoch draws and how clips are cut."""
    group = parser.add_argument_group("clips")
    group.add_argument("--batch_size", type=number_above(0, int), default=4, help="clips in a step")
    group.add_argument(
        "--patch_size", type=number_above(3, int), default=128,
        help="side of the training crop in pixels; smaller frames are used whole",
    )  # fmt: skip
    group.add_argument(
        "--sample_rate", type=number_above(0), metavar="SHARE",
        help="clips drawn in an epoch for each clip position; default: the data set's (NUDT 0.1)",
    )  # fmt: skip
    group.add_argument(
        "--mask_resize", choices=("nearest", "bicubic"), default="nearest",
        help="where a data set is resized for training; bicubic is published and dilates targets",
    )  # fmt: skip
    group.add_argument(
        "--workers", type=number_above(0, int, or_equal=True), metavar="N",
        help="processes that read clips; default: 4 beside a GPU, 0 on the CPU",
    )  # fmt: skip


def add_cache(parser: Parser, modes: tuple[str, ...]) -> None:
    """--cache and --cache_dir."""
    group = parser.add_argument_group("cache of decoded frames")
    group.add_argument(
        "--cache", choices=modes, default=modes[0],
        help="disk: decode every frame once, into files that all runs share (see python -m "
        "datasets.cache --help); ram: once a run, into memory; none: anew for every clip",
    )  # fmt: skip
    group.add_argument(
        "--cache_dir", type=folder, metavar="DIR",
        help="where it lies; default: $XDG_CACHE_HOME/deeppro, or else ~/.cache/deeppro",
    )  # fmt: skip


def add_selection(parser: Parser) -> None:
    """How the best epoch is chosen."""
    group = parser.add_argument_group("selection of the best epoch, by pixel IoU")
    group.add_argument(
        "--select_on", choices=("val", "test"), default="val",
        help="val: sequences taken from the training list; test: as published",
    )  # fmt: skip
    group.add_argument(
        "--val_fraction", type=number_above(0), default=0.1, help="share of the training sequences"
    )
    group.add_argument(
        "--threshold_eval", type=probability, default=0.5,
        help="a pixel is positive above this probability; the released runs had 0.3",
    )  # fmt: skip


def add_run(parser: Parser) -> None:
    """Where a training is kept, and which one goes on."""
    group = parser.add_argument_group("run")
    group.add_argument(
        "--savepath", type=folder, default="./log/", help="folder that holds the runs"
    )
    group.add_argument(
        "--log_dir", type=folder, metavar="NAME",
        help="name of the run's folder, continued if there is one; default: a fresh name",
    )  # fmt: skip
    group.add_argument(
        "--resume", type=folder, metavar="RUN",
        help="continue a run (folder, or name under --savepath) with its own options",
    )  # fmt: skip


def add_optimisation(
    parser: Parser, optimizers: tuple[str, ...], schedules: tuple[str, ...]
) -> None:
    """Optimiser, learning rate and seed, spelled as published."""
    group = parser.add_argument_group("optimisation")
    group.add_argument(
        "--epoch", type=number_above(0, int), default=32,
        help="epochs to train; published: 32, 40 on SatVideoIRSDT",
    )  # fmt: skip
    group.add_argument("--optimizer", choices=optimizers, default=optimizers[0], help="which")
    group.add_argument(
        "--learning_rate", type=number_above(0), default=0.001, help="its highest value"
    )
    group.add_argument(
        "--decay_rate", type=number_above(0, or_equal=True), default=1e-4, help="weight decay"
    )
    group.add_argument(
        "--schedule", choices=schedules, default=schedules[0],
        help="step: x lr_decay every step_size epochs; one_cycle: up, then down to nearly 0",
    )  # fmt: skip
    group.add_argument(
        "--step_size", type=number_above(0, int), default=10, metavar="EPOCHS", help="see schedule"
    )
    group.add_argument(
        "--lr_decay", type=number_above(0), default=0.7, metavar="FACTOR", help="see schedule"
    )
    group.add_argument(
        "--seed", type=number_above(0, int, or_equal=True), default=0,
        help="of weights, draws, crops and the validation split",
    )  # fmt: skip


def add_device(parser: Parser) -> None:
    """--device and --gpu."""
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="auto takes the GPU where there is one",
    )  # fmt: skip
    group.add_argument("--gpu", metavar="N", help="which GPU, by number (published default: 0)")


def parse_options(
    parser: Parser, section: str, argv: list[str] | None = None, saved: dict | None = None
) -> argparse.Namespace:
    """Parse in two stages: `saved` options, then the section of --config, then the command line.

    Raises InputError for a key that is no option (with the nearest) and for a bad value.
    """
    first = Parser(add_help=False)
    first.add_argument("--config", type=Path)
    config = first.parse_known_args(argv)[0].config
    below = _as_arguments(parser, saved or {}, "the saved options")
    if config:
        below += _as_arguments(parser, read_section(config, section), f"{config}, {section}:")
    return parser.parse_args(below + (sys.argv[1:] if argv is None else list(argv)))


def read_section(path: Path, section: str) -> dict:
    """One section of a configuration file; InputError if the file or a section is unusable."""
    values = read_yaml(path)
    for key in values:
        if key not in SECTIONS:
            wanted = ", ".join(f"{section}:" for section in SECTIONS)
            raise InputError(f"{path}: unknown section {key!r}: expected {wanted}")
    chosen = values.get(section) or {}
    if not isinstance(chosen, dict):
        raise InputError(f"{path}: {section}: expected `option: value` lines")
    return chosen


def read_yaml(path: Path) -> dict:
    """A YAML mapping; InputError if the file cannot be read as one."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as YAML ({reason})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected `key: value` lines")
    return values


def _as_arguments(parser: Parser, values: dict, source: str) -> list[str]:
    """Options by name as the command-line arguments that would set them."""
    actions = {a.dest: a for a in parser._actions if a.option_strings and a.dest != "help"}
    arguments = []
    for key, value in values.items():
        if key not in actions or key == "config":
            guess = nearest(str(key), [a for a in actions if a != "config"])
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise InputError(f"{source} unknown option {key!r}{hint}")
        flags = actions[key].option_strings
        if isinstance(value, bool):
            if actions[key].nargs != 0:
                raise InputError(f"{source} {key}: takes a value, not {value}")
            negative = [f for f in flags if f.startswith("--no-")]
            arguments += flags[:1] if value else negative[:1]
        elif isinstance(value, (dict, list)):
            raise InputError(f"{source} {key}: takes one value, not {value}")
        elif value is not None:
            arguments.append(f"{flags[0]}={value}")
    return arguments
