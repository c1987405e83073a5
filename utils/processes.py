"""Work shared among processes that end with the main one."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from utils.errors import leave_signals_to_main


@contextmanager
def in_processes(make: Callable, items: Sequence, workers: int) -> Iterator[Iterator]:
    """An iterator over make(item) for every item, in order, by `workers` processes (1: this one).

    On an error or Ctrl-C the processes are ended at once; they end too when this one is killed.
    """
    if workers < 2 or len(items) < 2:
        yield map(make, items)
        return
    with ProcessPoolExecutor(min(workers, len(items)), initializer=end_with_main) as pool:
        try:
            results = deque(pool.submit(make, item) for item in items)
            yield (results.popleft().result() for _ in items)
        except BaseException:
            # None is cancelled, as pool.map does: Python 3.11 would print a traceback about those
            # that are when the processes end.
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


@contextmanager
def deaf_from_birth() -> Iterator[None]:
    """Processes started inside never hear Ctrl-C, not even while they import."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
