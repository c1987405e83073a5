"""Errors that a user can mend: one line that names the value, what was expected, what to do."""

import atexit
import difflib
import errno
import gc
import signal
import sys
import traceback
from collections.abc import Callable, Iterable


class InputError(ValueError):
    """Bad input. The command prints its one line and exits with status 2."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, with what to tell the user (where to resume, say)."""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that looks most like `name`, whatever the case; None if none does."""
    folded = {n.lower(): n for n in names}
    match = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    return folded[match[0]] if match else None


def unknown_name(kind: str, name: str, names: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry, with the nearest one."""
    names = list(names)
    guess = nearest(name, names)
    hint = f"did you mean {guess!r}? " if guess else ""
    return InputError(f"unknown {kind} {name!r}: {hint}choose from {', '.join(names)}")


def size_text(shape: Iterable[int]) -> str:
    """A size as messages have it: 24 x 32."""
    return " x ".join(map(str, shape))


def run_command(main: Callable[[], None], debug: bool | None = None) -> None:
    """Run a command's main and turn what goes wrong into one line and an exit status.

    InputError and a missing or refused file end with status 2, Ctrl-C with 130, SIGTERM with 143,
    a full disk and other failures of the machine with 1. With `--debug` the traceback is shown.
    """
    debug = "--debug" in sys.argv if debug is None else debug
    received = []

    def terminate(number, frame):
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    gc.freeze()  # what has been imported stays: Python need not look through it for garbage again
    atexit.register(gc.freeze)  # nor as it ends, half a second; files are closed by then
    try:
        main()
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away; nobody is left to tell
        sys.exit(1)
    except (Exception, KeyboardInterrupt) as error:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one just ends it, without a word
            signal.signal(number, signal.SIG_DFL)
        if debug:
            traceback.print_exc()
        line, status = explain(error, terminated=bool(received))
        print(line, file=sys.stderr)
        sys.exit(status)


def leave_signals_to_main(*_) -> None:
    """In a worker process: Ctrl-C is the main process' to handle, SIGTERM just ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def explain(error: BaseException, terminated: bool = False) -> tuple[str, int]:
    """The one line to print for an error, and the exit status."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted{': ' + text if text else ''}", 143 if terminated else 130
    if isinstance(error, InputError):
        # From a worker process the message arrives behind the worker's traceback.
        return f"error: {text.rpartition('InputError: ')[2]}", 2
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            name = f"{error.filename2}: " if error.filename2 else name  # a copy's second is written
            return f"error: {name}{error.strerror}: free some space, then run again", 1
        return f"error: {name}{error.strerror or text}", 2
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return f"error: out of memory ({text}): use smaller frames, crops or batches", 1
    return f"error: {type(error).__name__}: {text} (run again with --debug for the traceback)", 1
