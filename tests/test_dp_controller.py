"""SGLang's data-parallel controller under our care: it waits for work, ignores Ctrl-C, and ends with a rank."""

import gc
import logging
import multiprocessing
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from sglang_moss.dp_controller import PatientSocket, is_settled, settle

pytestmark = pytest.mark.wide

SPAWN = multiprocessing.get_context("fork")


def controller(pipe: Any, before: Any) -> None:
    """A process with a rank that ends badly when it is told to, in SGLang's loop.

    It is a fork of a process with threads, any of which may have held the lock of a log's file.
    """
    logging.disable()
    signal.signal(signal.SIGINT, signal.default_int_handler if before == signal.SIG_DFL else before)
    signal.signal(signal.SIGQUIT, before)
    pipe.send("started")
    reader, writer = SPAWN.Pipe(duplex=False)
    rank = SPAWN.Process(target=lambda: (writer.close(), os._exit(reader.recv())))  # or with this process
    rank.start()
    context = zmq.Context()
    receiver = context.socket(zmq.PULL)
    receiver.bind("inproc://a")
    one: Any = SimpleNamespace(scheduler_procs=[rank], recv_from_tokenizer=receiver)
    pipe.recv()
    settle(one)
    pipe.send("settled")
    writer.send(pipe.recv())
    time.sleep(60)


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN], ids=["at a terminal", "in the background"])
def test_it_is_seen_to_be_settled_and_ends_with_a_rank(before: signal.Handlers):
    ours, its = SPAWN.Pipe()
    process = SPAWN.Process(target=controller, args=(its, before))
    process.start()
    assert ours.recv() == "started"
    try:
        assert not is_settled()
        ours.send("go on")
        assert ours.recv() == "settled"
        assert is_settled()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        ours.send(3)
        process.join(120)
        assert process.exitcode == -signal.SIGQUIT
    finally:
        process.kill()


def test_a_message_is_there_at_once_and_nothing_only_after_a_while(monkeypatch):
    monkeypatch.setattr("sglang_moss.dp_controller._PAUSE_MS", 100)
    context = zmq.Context()
    receiver, sender = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    receiver.bind("inproc://b")
    sender.connect("inproc://b")
    patient = PatientSocket(receiver)
    del receiver  # which would close what both share
    gc.collect()
    sender.send_pyobj(["a request"])
    assert patient.recv_pyobj(flags=zmq.NOBLOCK) == ["a request"]
    started = time.monotonic()
    with pytest.raises(zmq.ZMQError):
        patient.recv(flags=zmq.NOBLOCK)
    assert time.monotonic() - started >= 0.09
