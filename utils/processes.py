"""Work shared among processes that end with the main one."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait

from utils.errors import leave_signals_to_main


@contextmanager
def in_processes(make: Callable, items: Sequence, workers: int) -> Iterator[Iterator]:
    """An iterator over make(item) for every item, in order, by `workers` processes (1: this one).

    After an error, the first in order, no item is begun; Ctrl-C ends the processes at once, and
    they end too when this one is killed. RuntimeError where one of them is killed.
    """
    if workers < 2 or len(items) < 2:
        yield map(make, items)
        return
    # Each has a line of its own, as one that is ended may leave half a result on it. On the one
    # queue of concurrent.futures, all would wait for the other half.
    team = {}
    try:
        with signals_held():
            for _ in range(min(workers, len(items))):
                line, theirs = multiprocessing.Pipe()
                process = multiprocessing.Process(
                    target=_work, args=(theirs, make, items), daemon=True
                )
                process.start()
                theirs.close()  # or the end of the process would not be seen on the line
                team[line] = process
        yield _results(team, len(items))
    finally:
        with signals_held():
            for process in team.values():
                process.kill()
            for line, process in team.items():
                process.join()
                process.close()
                line.close()


def _work(line: Connection, make: Callable, items: Sequence) -> None:
    """In a worker process: answer indices with (index, result, error), pickled."""
    end_with_main()
    while True:
        index = line.recv()
        try:
            answer = pickle.dumps((index, make(items[index]), None))
        except Exception as error:  # whatever it is, the main process is to say it
            error.add_note(traceback.format_exc())
            answer = pickle.dumps((index, None, _portable(error)))
        line.send_bytes(answer)


def _portable(error: Exception) -> Exception:
    """The error, or a RuntimeError of its text where it does not come through a pickle whole."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of it
        notes = error.__notes__
        error = RuntimeError(f"{type(error).__name__}: {error}")
        error.__notes__ = notes
    return error


def _results(team: dict[Connection, multiprocessing.Process], count: int) -> Iterator:
    """What the processes make of items 0 to count - 1, in order; each is given one at a time."""
    indices = iter(range(count))
    free = list(team)
    answers = {}
    for turn in range(count):
        while turn not in answers:
            received = []
            try:
                for line, index in zip(free, indices, strict=False):
                    line.send(index)
                free = wait(team)
                for line in free:
                    received.append(line.recv_bytes())
            except (EOFError, OSError):
                team[line].join()
                raise RuntimeError(_how_it_ended(team[line].exitcode)) from None
            for index, result, error in map(pickle.loads, received):
                answers[index] = result, error
                if error is not None:
                    indices = iter(())  # what was begun before it is waited for, no more is begun
        result, error = answers.pop(turn)
        if error is not None:
            raise error
        yield result


def _how_it_ended(status: int) -> str:
    if status == -signal.SIGKILL:
        return "a worker process was killed: did the memory run out?"
    how = f"status {status}" if status >= 0 else f"signal {-status}"
    return f"a worker process ended with {how}"


@contextmanager
def signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block; to be called in the main thread.

    Processes started inside never hear Ctrl-C, not even while they import. Python's resource
    tracker lets it through when it starts, as it does with the first process of the kind `spawn`:
    start it before.
    """
    held = []
    handlers = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    # For the processes; it does not do for this one, as libraries have threads that hear for it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in held:
            signal.raise_signal(number)


def end_with_main() -> None:
    """In a worker process: end when the main process does, even if that is killed outright."""
    leave_signals_to_main()

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def stop_when_told(wanted: bool = True) -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, for the loop inside to end in its own time.

    The second one interrupts as usual; so does the first where this is not wanted.
    """
    told = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def tell(number, frame) -> None:
        told.set()
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in before if wanted else ():
        signal.signal(number, tell)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
