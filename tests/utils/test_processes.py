import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.golden import REPOSITORY
from utils.processes import end_with_main, in_processes, signals_held


def double(number):
    if number == 7:
        raise ValueError("seven")
    return 2 * number, os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    with in_processes(double, range(6), workers) as made:
        results = list(made)
    assert [value for value, _ in results] == [0, 2, 4, 6, 8, 10]
    assert (os.getpid() in {pid for _, pid in results}) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through(workers):
    with pytest.raises(ValueError, match="seven"), in_processes(double, range(9), workers) as made:
        list(made)
    assert not multiprocessing.active_children()


def half_as_bytes(number):
    """More than a pipe holds, so that it is often on its way when another one fails."""
    if number % 2:
        raise ValueError("odd")
    return bytes(300_000)


def test_an_error_while_another_result_is_on_its_way():
    for _ in range(20):
        with pytest.raises(ValueError, match="odd") as caught:  # noqa: SIM117
            with in_processes(half_as_bytes, range(4), 2) as made:
                list(made)
    assert "half_as_bytes" in caught.value.__notes__[0]  # the worker's traceback, for --debug


def test_workers_go_on_while_a_result_is_used(tmp_path):
    paths = [tmp_path / str(i) for i in range(4)]
    with in_processes(Path.touch, paths, 2) as made:
        next(made)
        while not paths[2].exists():
            time.sleep(0.01)


def test_no_result_is_held_on_to():
    with in_processes(np.zeros, range(4), 2) as made:
        first = weakref.ref(next(made))
        assert first() is None


def begin(path):
    """The second fails while the first waits whether the last is begun."""
    path.touch()
    if path.name == "1":
        raise ValueError("one")
    for _ in range(50 if path.name == "0" else 2):
        if not path.with_name("9").exists():
            time.sleep(0.02)


def test_no_item_is_begun_after_an_error(tmp_path):
    paths = [tmp_path / str(i) for i in range(10)]
    with pytest.raises(ValueError, match="one"), in_processes(begin, paths, 2) as made:
        list(made)
    assert not paths[9].exists()


class NeedsTwo(Exception):
    """Comes out of a pickle with an error of its own."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class FailsHere:
    """Goes into a pickle and fails to come out of it, as a missing file would."""

    def __reduce__(self):
        return open, ("/no/such/file",)


def awkward(kind):
    if kind == "error":
        raise NeedsTwo("one", "two")
    return FailsHere() if kind == "result" else threading.Lock()


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        ("error", RuntimeError, "NeedsTwo: one and two"),
        ("result", FileNotFoundError, "/no/such/file"),
        ("lock", TypeError, "cannot pickle"),
    ],
)
def test_what_does_not_come_through_a_pickle_is_an_error(kind, expected, message):
    with (
        pytest.raises(expected, match=message) as caught,
        in_processes(awkward, [kind] * 2, 2) as made,
    ):
        list(made)
    if kind == "error":
        assert "in awkward" in caught.value.__notes__[0]


def die(number):
    faulthandler.disable()  # which would print all that runs
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (9, "killed: did the memory run out"),
        (signal.SIGBUS, "is /dev/shm full"),
        (40, "ended with signal 40"),
    ],
)
def test_a_killed_worker_is_an_error(number, message):
    with (
        pytest.raises(RuntimeError, match=message),
        in_processes(die, [number] * 2, 2) as made,
    ):
        list(made)


def test_a_worker_killed_before_it_is_given_anything_is_an_error():
    with in_processes(abs, range(4), 2) as made:
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()
        with pytest.raises(RuntimeError, match="killed"):
            next(made)


def die_in_the_middle(path):
    """The second waits to be told, and dies with half of its answer on its way."""
    while not path.exists():
        time.sleep(0.01)
    if path.name == "1":
        threading.Timer(0.2, die, [9]).start()
        return bytes(4_000_000)  # no line holds so much
    return None


def test_a_worker_killed_in_the_middle_of_its_answer_is_an_error(tmp_path):
    paths = [tmp_path / str(i) for i in range(2)]
    paths[0].touch()
    with in_processes(die_in_the_middle, paths, 2) as made:
        next(made)
        paths[1].touch()
        while len(multiprocessing.active_children()) == 2:
            time.sleep(0.01)
        with pytest.raises(RuntimeError, match="killed"):
            next(made)


def test_a_worker_that_ends_by_itself_is_an_error():
    with (
        pytest.raises(RuntimeError, match="ended with status 3"),
        in_processes(os._exit, [3, 3], 2) as made,
    ):
        list(made)


class InterruptedProcess(multiprocessing.Process):
    """Ctrl-C arrives as it is born, and again as its end is awaited."""

    def start(self):
        super().start()
        signal.raise_signal(signal.SIGINT)

    def join(self, timeout=None):
        signal.raise_signal(signal.SIGINT)
        super().join(timeout)


def test_ctrl_c_leaves_no_process_behind(monkeypatch):
    monkeypatch.setattr(multiprocessing, "Process", InterruptedProcess)
    with pytest.raises(KeyboardInterrupt), in_processes(time.sleep, [60] * 3, 3) as made:
        list(made)
    assert not multiprocessing.active_children()


class LastProcess(multiprocessing.Process):
    """The machine has room for no second one."""

    def start(self):
        if multiprocessing.active_children():
            raise BlockingIOError("no more")
        super().start()


def test_a_worker_that_cannot_be_born_ends_the_others(monkeypatch):
    monkeypatch.setattr(multiprocessing, "Process", LastProcess)
    with pytest.raises(BlockingIOError), in_processes(abs, range(4), 2):
        pass
    assert not multiprocessing.active_children()


SLEEPERS = """
import os, sys, time
from utils.processes import in_processes

def sleep(number):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece: print() may write the end of line apart
    time.sleep(60)

with in_processes(sleep, range(2), 2) as made:
    list(made)
"""


def test_workers_end_when_the_main_process_is_killed():
    main = subprocess.Popen(
        [sys.executable, "-c", SLEEPERS], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    workers = [int(main.stdout.readline()) for _ in range(2)]
    main.send_signal(signal.SIGKILL)
    main.wait()
    deadline = time.monotonic() + 60
    while any(map(_runs, workers)):
        assert time.monotonic() < deadline, "a worker outlived the main process"
        time.sleep(0.02)
    main.stdout.close()


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_started_while_signals_are_held_are_deaf_to_ctrl_c():
    asks = "import signal; print(*signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with signals_held():
        done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True)
    assert done.stdout == "2 15\n"
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def slow_to_start(*_):
    time.sleep(0.3)
    end_with_main()
    time.sleep(3600)


def test_sigterm_before_a_worker_hears_it_is_not_lost():
    worker = multiprocessing.Process(target=slow_to_start)
    with signals_held():
        worker.start()
    worker.terminate()
    worker.join()
    assert worker.exitcode == -signal.SIGTERM


def test_processes_can_be_started_by_another_thread():
    with ThreadPoolExecutor() as threads:
        assert threads.submit(all_of, abs, range(4)).result() == [0, 1, 2, 3]


def all_of(make, items):
    with in_processes(make, items, 2) as made:
        return list(made)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_held(number):
    heard = []
    before = signal.signal(number, lambda *_: heard.append("late"))
    other = threading.Thread(target=time.sleep, args=(0.2,))  # not masked: it takes the signal
    other.start()
    try:
        with signals_held():
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            heard.append("inside")
        assert heard == ["inside", "late"]
    finally:
        signal.signal(number, before)
        other.join()
