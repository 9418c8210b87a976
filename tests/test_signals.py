"""Signals: they are the main thread's, whose waits they end; workers neither take them nor pass a mask of theirs on."""

import os
import signal
import subprocess
import sys
import threading

import pytest

import iocpcore
from support import WAIT, run_python, until

if not hasattr(signal, "pthread_sigmask"):
    pytest.skip("this system has no signal masks", allow_module_level=True)

TELL_MASK = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"


def mask():
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def mask_of_a_subprocess():
    done = subprocess.run([sys.executable, "-c", TELL_MASK], capture_output=True, text=True, check=True, timeout=WAIT)
    return done.stdout.strip()


def mask_of_a_forked_child():
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, str(sorted(mask())).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(tell)
    with os.fdopen(told) as lines:
        return lines.read()


def mask_of_a_thread():
    masks = []
    thread = threading.Thread(target=lambda: masks.append(mask()))
    thread.start()
    thread.join(WAIT)
    return str(sorted(masks[0]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons dislike a fork with threads, and are right
@pytest.mark.parametrize("made", [mask_of_a_subprocess, mask_of_a_forked_child, mask_of_a_thread])
def test_what_a_callback_starts_has_the_signal_mask_of_what_the_main_thread_starts(proactor, made):
    masks = []
    proactor.post(lambda: masks.append(made()))
    until(lambda: masks)
    assert masks == [made()]


def test_a_process_that_a_callback_starts_can_be_terminated(proactor):
    statuses = []

    def start_and_terminate():
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            process.terminate()
            statuses.append(process.wait(WAIT))

    proactor.post(start_and_terminate)
    until(lambda: statuses)
    assert statuses == [-signal.SIGTERM]


def test_a_callback_may_change_its_workers_mask_and_finds_it_again(backend):
    masks = []
    with iocpcore.Proactor(1, backend) as proactor:
        proactor.post(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGUSR1})
        proactor.post(lambda: masks.append(mask()))
        until(lambda: masks)
    assert signal.SIGUSR1 in masks[0]
    assert signal.SIGUSR1 not in mask()


def test_a_waiting_worker_leaves_a_signal_to_the_main_thread_that_has_blocked_it_later(backend):
    """Taken by the worker, the signal would end the process."""
    output = run_python(
        f"""
import iocpcore, os, signal, threading, time
with iocpcore.Proactor(1, {backend!r}) as proactor:
    signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})
    worker = []
    proactor.post(lambda: worker.append(threading.get_native_id()))
    def sleeps():
        with open(f"/proc/self/task/{{worker[0]}}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "S"
    def idle():
        # Several times: it may have been on its way to a lock.
        return all(time.sleep(0.005) or worker and sleeps() for _ in range(5))
    while not idle():
        pass
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
        print(signal.sigtimedwait({{signal.SIGUSR1}}, 30).si_signo == signal.SIGUSR1)
"""
    )
    assert output.split() == ["True"] * 3


def test_a_signal_ends_the_main_threads_sleep_though_workers_wait_and_work(backend):
    output = run_python(
        f"""
import iocpcore, os, signal, threading, time

class Woken(Exception):
    pass

def wake(number, frame):
    raise Woken

signal.signal(signal.SIGUSR1, wake)
leave = threading.Event()
with iocpcore.Proactor(2, {backend!r}) as proactor:
    proactor.post(leave.wait, 60, worker=0)
    for _ in range(20):
        try:
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            time.sleep(100)
        except Woken:
            print("woken")
    leave.set()
"""
    )
    assert output.split() == ["woken"] * 20
