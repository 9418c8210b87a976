"""post(): functions that run in a worker's thread."""

import logging
import threading

import pytest

import iocpcore
from support import WAIT, Acting, until


def test_a_posted_function_runs_in_a_worker_with_its_arguments(proactor):
    done = []
    proactor.post(lambda *arguments: done.append((threading.current_thread().name, arguments)), 1, "two")
    until(lambda: done == [("iocpcore-worker-0", (1, "two"))])


def test_what_one_thread_posts_keeps_its_order(proactor):
    done = []
    for number in range(1000):
        proactor.post(done.append, number)
    until(lambda: len(done) == 1000)
    assert done == list(range(1000))


def test_without_a_worker_named_they_take_turns(backend):
    done = []
    with iocpcore.Proactor(3, backend) as proactor:
        for _ in range(6):
            proactor.post(lambda: done.append(threading.current_thread().name))
        until(lambda: len(done) == 6)
    assert sorted(done) == sorted([f"iocpcore-worker-{number}" for number in range(3)] * 2)


def test_the_worker_can_be_named(backend):
    done = []
    with iocpcore.Proactor(3, backend) as proactor:
        for _ in range(5):
            proactor.post(lambda: done.append(threading.current_thread().name), worker=2)
        until(lambda: len(done) == 5)
    assert set(done) == {"iocpcore-worker-2"}


def test_in_a_callback_the_callbacks_own_worker_is_meant(backend, connect):
    done = []

    def note(first):
        done.append((first, threading.current_thread().name))

    def post(session):
        proactor.post(note, threading.current_thread().name)

    with iocpcore.Proactor(3, backend) as proactor:
        listener = proactor.listen(Acting(on_connect=post))
        for _ in range(6):
            connect(listener)
        until(lambda: len(done) == 6)
        proactor.close(0)
    assert all(first == then for first, then in done)
    assert len({first for first, _ in done}) == 3


def test_what_is_posted_in_a_callback_runs_after_it(proactor):
    done = []

    def outer():
        proactor.post(done.append, "inner")
        done.append("outer")

    proactor.post(outer)
    until(lambda: len(done) == 2)
    assert done == ["outer", "inner"]


def test_an_exception_is_logged_and_counted_and_the_worker_goes_on(proactor, caplog):
    def fail():
        raise LookupError("mine")

    done = []
    proactor.post(fail)
    proactor.post(done.append, 1)
    until(lambda: done == [1])
    (record,) = [record for record in caplog.records if record.name == "iocpcore"]
    assert record.levelno == logging.ERROR
    assert "fail" in record.getMessage() and "posted" in record.getMessage()
    assert record.exc_info[1].args == ("mine",)
    until(lambda: proactor.stats().callback_errors == 1)


def test_what_was_posted_before_close_is_called_and_let_go(backend):
    class Argument:
        """Something that can be seen to go."""

        alive = 0

        def __init__(self):
            Argument.alive += 1

        def __del__(self):
            Argument.alive -= 1

    done = []
    proactor = iocpcore.Proactor(2, backend)
    for _ in range(100):
        proactor.post(lambda argument: done.append(1), Argument())
    proactor.close()
    assert len(done) == 100
    assert Argument.alive == 0


def test_a_function_that_was_posted_and_never_polled_is_called(backend):
    done = []
    proactor = iocpcore.Proactor(0, backend)
    proactor.post(done.append, 1)
    proactor.close()
    assert done == [1]
    with pytest.raises(RuntimeError, match="closed"):
        proactor.post(done.append, 2)


def test_posting_after_close_says_so(backend):
    proactor = iocpcore.Proactor(1, backend)
    proactor.close()
    with pytest.raises(RuntimeError, match="closed"):
        proactor.post(print)


@pytest.mark.parametrize(
    "arguments, options, error",
    [
        (("no function",), {}, TypeError),
        ((None,), {}, TypeError),
        ((print,), {"worker": 1}, ValueError),
        ((print,), {"worker": -1}, ValueError),
        ((print,), {"worker": "0"}, TypeError),
        ((print,), {"worker": True}, TypeError),
        ((), {}, TypeError),
    ],
)
def test_a_wrong_argument_of_post_is_refused(proactor, arguments, options, error):
    with pytest.raises(error):
        proactor.post(*arguments, **options)


async def _coroutine_function():
    """Called, it would only make a coroutine."""


def _generator_function():
    yield


@pytest.mark.parametrize("function", [_coroutine_function, _generator_function])
def test_a_function_that_would_do_nothing_when_called_is_refused(proactor, function):
    with pytest.raises(TypeError, match="which nobody would"):
        proactor.post(function)


def test_several_threads_may_post_at_once(backend):
    done = []
    with iocpcore.Proactor(2, backend) as proactor:

        def post(sender):
            for number in range(500):
                proactor.post(done.append, (sender, number), worker=sender % 2)

        threads = [threading.Thread(target=post, args=(sender,)) for sender in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        until(lambda: len(done) == 2000)
    for sender in range(4):
        assert [number for own, number in done if own == sender] == list(range(500))
