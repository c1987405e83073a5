"""What a command says: to the terminal, and with the time of day to the log of its run."""

import json
import sys
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from utils.distributed import is_main
from utils.files import write_text


class Log:
    """Says lines on the terminal (above progress bars) and appends them to a file.

    Of several processes that train together only the main one speaks.
    """

    def __init__(self, path: Path):
        self.path = path

    def say(self, text: str) -> None:
        if not is_main():
            return
        tqdm.write(text)
        with open(self.path, "a") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n")


def warn(text: str) -> None:
    """A line on stderr, above progress bars."""
    tqdm.write(f"warning: {text}", file=sys.stderr)


def write_records(path: Path, records: list[dict]) -> None:
    """A JSON-lines file, written whole."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def progress(total: int, unit: str, label: str) -> tqdm:
    """A progress bar with a rate, on stderr; silent where stderr is no terminal, and in all but
    the main process."""
    return tqdm(
        total=total, unit=unit, desc=label, disable=None if is_main() else True,
        dynamic_ncols=True, leave=False, unit_scale=False, smoothing=0.1,
    )  # fmt: skip
