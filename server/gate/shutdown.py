"""The end of the server, on SIGTERM or Ctrl-C: nothing new is taken, what runs is finished, and nothing is left.

    signal ----> requests run on, new ones get 503 ----> the rest is told that it is over ----> children end, exit 0
           <-------- --shutdown-seconds, at most ------>  <---- a few seconds, at most ---->

A second signal skips the waiting. SGLang's own way out has no deadline, takes new requests all the while, and ends by
SIGKILL.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from sglang.srt.managers.io_struct import AbortReq, ShutdownReq
from sglang.srt.managers.tokenizer_manager import SignalHandler
from sglang.srt.utils import kill_process_tree
from sglang.srt.utils.cudacore_pyspy_dump_utils import collect_scheduler_processes

from sglang_moss import socket_folder

from ..errors import ShuttingDown
from ..http_closing import all_has_left
from .admission import Admission

logger = logging.getLogger(__name__)

_LAST_WORDS_SECONDS = 5.0  # for clients to read that it is over, and slow ones the end of their answers
_HURRIED_WORDS_SECONDS = 0.5
_CHILDREN_SECONDS = 1.5  # to leave by themselves; taking an interpreter down takes longer, and has nothing to save
_POLL_SECONDS = 0.05
_OVER = {
    "type": "abort",
    "message": ShuttingDown.SENTENCE,
    "status_code": ShuttingDown.status,
    "code": ShuttingDown.code,
}


class GracefulShutdown(SignalHandler):
    """In the place of SGLang's handler; made in the event loop, as that is.

    Args:
        manager: SGLang's `TokenizerManager`.
        admission: of the server's requests.
        seconds: for those that run to finish.
    """

    def __init__(self, manager: Any, admission: Admission, seconds: float) -> None:
        super().__init__(manager)
        self._admission = admission
        self._seconds = seconds
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self.sigterm_handler)

    def sigterm_handler(self, signum: Any = None, frame: Any = None) -> None:  # noqa: ARG002 (SGLang's signature)
        """Begin, or hurry up."""
        if self._task is not None:
            self._hurry.set()
            return
        self._admission.close(self._seconds)
        logger.info("shutting down: %d requests have %g s to finish", self._admission.n_requests, self._seconds)
        self._task = asyncio.create_task(self._shut_down())

    def running_phase_sigquit_handler(self, signum: Any = None, frame: Any = None) -> None:  # noqa: ARG002
        """A child died: so does the server, at once. SGLang would dump for a minute, in which nobody is answered."""
        logger.critical("a process of the server has died; the server ends")
        socket_folder.remove()
        with contextlib.suppress(RuntimeError):  # one that does not end in time
            kill_process_tree(os.getpid(), include_parent=False, wait_timeout=_CHILDREN_SECONDS)
        os._exit(1)

    async def _shut_down(self) -> None:
        status = 0
        try:
            await self._until(lambda: self._admission.n_requests == 0 or self._hurry.is_set(), self._seconds)
            hurried = time.monotonic() + _HURRIED_WORDS_SECONDS
            await self._until(
                lambda: (self._is_over() and all_has_left()) or (self._hurry.is_set() and time.monotonic() > hurried),
                _LAST_WORDS_SECONDS,
            )
            await self._end_children()
        except Exception:
            logger.exception("shutting down failed")
            status = 1
        finally:
            socket_folder.remove()
            # Not by returning: connections whose clients read nothing more would be waited for.
            os._exit(status)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)

    def _is_over(self) -> bool:
        """Whether every request has been answered; those that run are told that it is over."""
        for rid, state in list(self.tokenizer_manager.rid_to_state.items()):
            if state.time_stats.api_server_dispatch_time:  # else SGLang would look for what is removed here
                self.tokenizer_manager._handle_abort_req(AbortReq(rid=rid, finished_reason=_OVER))
        return self._admission.n_requests == 0

    async def _end_children(self) -> None:
        watchdog = self.tokenizer_manager._subprocess_watchdog
        if watchdog is not None:
            watchdog.stop()
        self.tokenizer_manager._dispatch_to_scheduler(ShutdownReq())
        await self._until(lambda: not collect_scheduler_processes(), _CHILDREN_SECONDS)
        kill_process_tree(os.getpid(), include_parent=False)
