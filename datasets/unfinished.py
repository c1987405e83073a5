"""Hidden folders in which something is made until it is whole."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.files import locked


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Make `folder`, empty and this process' own; it is removed at the end with what is left in it.

    What a run that was killed left in it is removed first. InputError if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        try:
            for place in folder.iterdir():
                shutil.rmtree(place) if place.is_dir() else place.unlink()
            yield folder
        finally:
            shutil.rmtree(folder)
