"""A command that runs in a child of the zygote, and looks from outside as if it ran here.

    python -IS warm_python.py ADDRESS sglang serve ...
    python -IS warm_python.py ADDRESS -m MODULE ...

It hands over arguments, variables, folder, stdin, stdout and stderr, passes signals on, and ends as the child does, and
with the child all that has been started. It imports next to nothing, so that it starts in no time.
"""

import os
import pickle
import signal
import socket
import struct
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def main() -> None:
    address, *arguments = sys.argv[1:]
    zygote = socket.socket(socket.AF_UNIX)
    zygote.connect(address)
    request = {"command": arguments, "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109 (pathlib takes longer than the rest)
    body = pickle.dumps(request)
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until the request is sent
    for number in PASSED_ON:
        signal.signal(number, lambda number, _frame: zygote.sendall(bytes([number])))
    socket.send_fds(zygote, [struct.pack("!I", len(body))], [0, 1, 2])
    zygote.sendall(body)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    answer = zygote.recv(4, socket.MSG_WAITALL)
    if len(answer) < 4:
        sys.exit("warm_python: the zygote has ended")
    [status] = struct.unpack("!i", answer)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


main()
