"""Work shared among processes that end with the main one."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from multiprocessing.connection import Connection, wait

from utils.errors import leave_signals_to_main


@contextmanager
def in_processes(make: Callable, items: Sequence, workers: int) -> Iterator[Iterator]:
    """An iterator over make(item) for every item, in order, by `workers` processes (1: this one).

    The first error in order is raised, and no item is begun once one has come. At Ctrl-C the
    processes are ended at once; they end too when this one is killed. `make` may start no processes
    of its own. RuntimeError where one of them is killed.
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
                _start(team, make, items)
        yield _results(team, len(items))
    finally:
        with signals_held():
            _end(team)


def _start(
    team: dict[Connection, multiprocessing.Process], make: Callable, items: Sequence
) -> None:
    line, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_work, args=(theirs, make, items), daemon=True)
    process.start()
    theirs.close()  # or the end of the process would not be seen on the line
    team[line] = process


def _end(team: dict[Connection, multiprocessing.Process]) -> None:
    """Leave nothing of them to be cleaned up later, as Python drops what a handler raises then."""
    for process in team.values():
        process.kill()
    while team:
        line, process = team.popitem()
        process.join()
        line.close()


def _work(line: Connection, make: Callable, items: Sequence) -> None:
    """In a worker process: answer indices."""
    end_with_main()
    while True:
        index = line.recv()
        line.send_bytes(_answer(make, items, index))


def _answer(make: Callable, items: Sequence, index: int) -> bytes:
    """(index, result, error), pickled."""
    try:
        return pickle.dumps((index, make(items[index]), None))
    except Exception as error:  # whatever it is, the main process is to say it
        error.add_note(traceback.format_exc())
        return pickle.dumps((index, None, _portable(error)))


def _portable(error: Exception) -> Exception:
    """The error, or a RuntimeError of its text where it does not come through a pickle."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of it
        notes = error.__notes__
        error = RuntimeError(f"{type(error).__name__}: {error}")
        error.__notes__ = notes
    return error


def _results(team: dict[Connection, multiprocessing.Process], count: int) -> Iterator:
    """What the processes make of items 0 to count - 1, in order; none is held on to.

    Each process is given one item at a time, and the next as soon as its answer is read.
    """
    indices = iter(range(count))
    answers = {}
    for line in team:
        _give_next(line, team[line], indices)
    for turn in range(count):
        while True:
            for line in wait(team, timeout=0 if turn in answers else None):
                if not _take(line, team[line], answers):
                    indices = iter(())
                _give_next(line, team[line], indices)
            if turn in answers:
                break
        error = answers[turn][1]
        if error is not None:
            raise error
        yield answers.pop(turn)[0]


def _give_next(line: Connection, process: multiprocessing.Process, indices: Iterator[int]) -> None:
    for index in islice(indices, 1):
        with _death_told(process):
            line.send(index)


def _take(line: Connection, process: multiprocessing.Process, answers: dict) -> bool:
    """Put an answer among `answers`, as (result, error) by index; whether it is a result."""
    with _death_told(process):
        content = line.recv_bytes()
    index, result, error = pickle.loads(content)
    answers[index] = result, error
    return error is None


@contextmanager
def _death_told(process: multiprocessing.Process) -> Iterator[None]:
    """RuntimeError where its line is used and the process is no more."""
    try:
        yield
    except (EOFError, OSError):
        process.join()
        raise RuntimeError(how_it_ended(process.exitcode)) from None


@contextmanager
def signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block.

    Processes started inside never hear Ctrl-C, not even while they import; nor SIGTERM, until they
    `leave_signals_to_main`. And none is lost at a fork, where Python drops what a handler raises.
    Python's resource tracker lets Ctrl-C through when it starts, as it does with the first process
    of the kind `spawn`: start it before.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    held = []
    with ExitStack() as later:
        later.callback(lambda: [signal.raise_signal(number) for number in held])
        if threading.current_thread() is threading.main_thread():  # handlers run only there
            for number in numbers:
                later.callback(signal.signal, number, signal.getsignal(number))
                signal.signal(number, lambda number, _: held.append(number))
        # For the processes. Here libraries have threads that are not masked.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        later.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield


def how_it_ended(status: int) -> str:
    """The message for a worker process that should not have ended, by its exit status."""
    if status == -signal.SIGKILL:
        return "a worker process was killed: did the memory run out? try fewer --workers"
    if status == -signal.SIGBUS:
        return "a worker process ended: is /dev/shm full? give it more room, or try fewer --workers"
    how = f"status {status}" if status >= 0 else f"signal {-status}"
    return f"a worker process ended with {how}"


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
