"""Work shared among processes that end with the main one."""

import multiprocessing
import os
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

    On an error or Ctrl-C the processes are ended at once; they end too when this one is killed.
    RuntimeError where one of them is killed.
    """
    if workers < 2 or len(items) < 2:
        yield map(make, items)
        return
    # Each has a line of its own, as one that is ended may leave half a result on it. On the one
    # queue of concurrent.futures, all would wait for the other half.
    team = {}
    try:
        for _ in range(min(workers, len(items))):
            line, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=_work, args=(theirs, make, items), daemon=True)
            with deaf_from_birth():
                process.start()
            theirs.close()
            team[line] = process
        yield _results(team, len(items))
    finally:
        for line, process in team.items():
            process.kill()
            process.join()
            line.close()


def _work(line: Connection, make: Callable, items: Sequence) -> None:
    """In a worker process: answer indices with (index, result, error)."""
    end_with_main()
    while True:
        index = line.recv()
        try:
            answer = index, make(items[index]), None
        except Exception as error:  # whatever it is, the main process is to say it
            error.add_note(traceback.format_exc())
            answer = index, None, error
        line.send(answer)


def _results(team: dict[Connection, multiprocessing.Process], count: int) -> Iterator:
    """What the processes make of items 0 to count - 1, in order; each is given one at a time."""
    indices = iter(range(count))
    free = list(team)
    answers = {}
    for turn in range(count):
        while turn not in answers:
            try:
                for line, index in zip(free, indices, strict=False):
                    line.send(index)
                free = wait(team)
                for line in free:
                    index, result, error = line.recv()
                    answers[index] = result, error
            except (EOFError, OSError):
                team[line].join()
                raise RuntimeError(_how_it_ended(team[line].exitcode)) from None
        result, error = answers.pop(turn)
        if error:
            raise error
        yield result


def _how_it_ended(status: int) -> str:
    if status == -signal.SIGKILL:
        return "a worker process was killed: did the memory run out?"
    how = f"status {status}" if status >= 0 else signal.Signals(-status).name
    return f"a worker process ended with {how}"


@contextmanager
def deaf_from_birth() -> Iterator[None]:
    """Processes started inside never hear Ctrl-C, not even while they import; this one does later.

    Python's resource tracker lets Ctrl-C through when it starts, as it does with the first process
    of the kind `spawn`: start it before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
