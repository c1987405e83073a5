import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.golden import REPOSITORY
from utils.processes import deaf_from_birth, in_processes


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


@pytest.mark.parametrize(
    ("number", "message"), [(9, "killed: did the memory run out"), (15, "ended with SIGTERM")]
)
def test_a_killed_worker_is_an_error(number, message):
    with in_processes(half_as_bytes, [0, 0, 0], 2) as made:
        next(made)  # the next ones do not fit their pipes
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, number)
        with pytest.raises(RuntimeError, match=message):
            list(made)


def test_a_worker_that_ends_by_itself_is_an_error():
    with (
        pytest.raises(RuntimeError, match="ended with status 3"),
        in_processes(os._exit, [3, 3], 2) as made,
    ):
        list(made)


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


def test_processes_are_born_deaf_to_ctrl_c_where_it_is_asked_for():
    asks = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("late"))
    try:
        with deaf_from_birth():
            done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True)
            signal.raise_signal(signal.SIGINT)
            heard.append("inside")
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == ["inside", "late"]
    assert done.stdout == "True\n"
