"""The process that tests' servers are forked from outlives whoever asks it for one."""

import os
import pickle
import socket
import struct

import pytest
import zygote


def test_a_request_comes_whole_with_its_files():
    ours, its = socket.socketpair()
    body = pickle.dumps({"command": ["sglang"]})
    with ours, its:
        socket.send_fds(ours, [struct.pack("!I", len(body))], [0, 1])
        ours.sendall(body)
        request, files = zygote.received(its)
    assert (request, len(files)) == ({"command": ["sglang"]}, 2)
    for file in files:
        os.close(file)


@pytest.mark.parametrize("sent", [b"", b"\0\0", struct.pack("!I", 9) + b"half"])
def test_a_request_that_breaks_off_is_told(sent: bytes):
    ours, its = socket.socketpair()
    with its:
        with ours:
            ours.sendall(sent)
        with pytest.raises(ConnectionError):
            zygote.received(its)
