"""Files that appear whole or not at all."""

import fcntl
import json
import os
import secrets
import tempfile
from contextlib import contextmanager
from pathlib import Path

from utils.errors import InputError


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/deeppro, or else ~/.cache/deeppro. OSError where nobody knows the home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "deeppro"
    except RuntimeError:
        raise OSError(0, "no home folder") from None


@contextmanager
def written_whole(path: str | Path):
    """A temporary file beside `path` to write to; it takes the name on a clean exit.

    Killed, interrupted or out of space on the way, what stood at `path` before stands there still.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named before it is made: a signal in between leaves nothing behind.
    temporary = path.parent / f".{path.stem[:40]}-{secrets.token_hex(4)}{path.suffix}"
    try:
        temporary.touch(mode=0o600, exist_ok=False)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what `written_whole` left in a folder when it was killed."""
    for path in folder.glob(".*-????????.*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: str | Path, content: bytes) -> None:
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: str | Path, value) -> None:
    """JSON without NaN or infinity (what is undefined is null)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def locked(folder: Path):
    """Claim a folder for this process; InputError if another one has it. Leaves no file behind.

    Forked workers give their share of the lock up: they may outlive a killed process for seconds.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    held = [descriptor]

    def give_up() -> None:
        while held:
            os.close(held.pop())

    os.register_at_fork(after_in_child=give_up)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"{folder}: another process is writing to it; wait, or stop it") from None
    finally:
        give_up()


def writable_folder(folder: str | Path, hint: str) -> Path:
    """Make `folder` and see that files can be made in it; InputError with `hint` if not."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}): {hint}") from error
    return folder
