"""The compute slot of an API process: it runs one long computation at a time, in a low-priority child process.

A thread that computes keeps the interpreter's lock for milliseconds at a time and so delays every other request of its
process. While a request waits for the slot or holds it, it occupies no database connection. It occupies no request slot
either, unless the waiting bodies are too large in total (``_MAX_WAITING_BYTES``).
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from gevent.monkey import get_original, is_module_patched

from byteor_cloud.api import request_slots
from byteor_cloud.captures.sealing import MEMORY_BYTES, environment
from byteor_cloud.captures.spawning import Child
from byteor_cloud.computing.computations import COMPUTATIONS, EXPECTED, HEAD, READS_FILES, Outcome
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.concurrency.fair import FairSlots
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import InvalidInput, Unavailable
from byteor_cloud.server import draining
from byteor_cloud.storage import data_folders

# Inputs of at most this size are computed in this process, unless the function reads files. A plan of 25 stages
# compiles in half a millisecond, or in 7 ms if most of its names are misspelled. Sending an input to the child process
# and its result back takes half a millisecond, or longer while other requests compute.
SMALL_BYTES = 2048
MAX_WAIT_S = 20.0
LIMIT_S = 20  # seconds of processor time for one computation
_MAX_WAITING = 256
# The bodies of requests that wait for the compute slot stay in memory. While these bodies exceed this number of bytes
# in total, further waiting requests keep their request slots. The number of slots then limits how many more can wait.
_MAX_WAITING_BYTES = 32 * 1024 * 1024
_DEADLINE_S = 60.0  # the most seconds without a response: the child may wait for the host's other compute processes

# The original poll instead of gevent's, because ``is_alive`` polls without waiting.
_poll = get_original("select", "poll")
_log = logging.getLogger(__name__)


def compute_for(request: HttpRequest) -> Compute:
    """Return the ``compute`` argument for services that work for this request."""
    if not is_module_patched("threading"):
        return here

    def compute[**A, R](function: Callable[A, R], /, *args: A.args, **kwargs: A.kwargs) -> R:
        if connection.in_atomic_block:
            raise RuntimeError("a transaction must not wait for a computation")
        if function not in READS_FILES and _is_small((args, kwargs)):
            return function(*args, **kwargs)
        name = function.__qualname__
        assert COMPUTATIONS[name] is function  # noqa: S101  otherwise the child calls another function
        call = pickle.dumps((name, args, kwargs), pickle.HIGHEST_PROTOCOL)
        result: R = _result(_slot.run(request, call))
        return result

    return compute


def _is_small(value: Any) -> bool:
    left, waiting = SMALL_BYTES, [value]
    while waiting and left >= 0:
        each = waiting.pop()
        left -= 8
        if isinstance(each, (str, bytes)):
            left -= len(each)
        elif isinstance(each, (dict, list, tuple)) and len(each) * 8 <= left:
            waiting.extend(each)
            if isinstance(each, dict):
                waiting.extend(each.values())
        elif isinstance(each, (dict, list, tuple)):
            return False
        elif is_dataclass(each):
            waiting.extend(getattr(each, field.name) for field in fields(each))
    return left >= 0


def _result(message: bytes) -> Any:
    outcome: Outcome = pickle.loads(message)  # noqa: S301  our own child process wrote the message
    if outcome.needs_more_memory:
        detail = f"This takes more than {MEMORY_BYTES >> 20} MiB of memory. Send or request less data."
        raise InvalidInput(detail, code="too_complex")
    if outcome.crash is not None:
        raise RuntimeError(f"The computation failed:\n{outcome.crash}")
    if outcome.error is None:
        return outcome.result
    name, args, attributes = outcome.error
    error = EXPECTED[name].__new__(EXPECTED[name], *args)
    error.__dict__.update(attributes)
    raise error


@contextmanager
def compute_slot(request: HttpRequest) -> Iterator[None]:
    """Hold this process's compute slot during the block, without a database connection.

    The request slot is released during the block, unless ``_MAX_WAITING_BYTES`` is exceeded when the wait for
    the compute slot begins. Raises Unavailable if the compute slot, or the request slot after the block, does not
    become free in time, or if too many requests are waiting. Outside an event loop, there is no slot.
    """
    if is_module_patched("threading"):
        with _slot.held(request, 0):
            yield
    else:
        yield


class _ComputeSlot:
    """The slot and the compute process, which is started at the first use and serves many requests."""

    def __init__(self) -> None:
        self._slots = FairSlots(1, waiting=_MAX_WAITING)
        self._waiting_bytes = 0
        self._idle: _Child | None = None

    def run(self, request: HttpRequest, call: bytes) -> bytes:
        with self.held(request, len(call)):
            return self._compute(call)

    @contextmanager
    def held(self, request: HttpRequest, size: int) -> Iterator[None]:
        holder = request_slots.holder_of(request)
        with self._waiting(request, size):
            self._slots.take(holder, timeout_s=MAX_WAIT_S)
            try:
                yield
            finally:
                self._slots.give_back(holder)

    @contextmanager
    def _waiting(self, request: HttpRequest, size: int) -> Iterator[None]:
        release_connection()
        self._waiting_bytes += size
        try:
            if self._waiting_bytes > _MAX_WAITING_BYTES:
                yield
            else:
                with request_slots.released_slot(request):
                    yield
        finally:
            self._waiting_bytes -= size

    def _compute(self, call: bytes) -> bytes:
        child, self._idle = self._idle, None
        if child is None or not child.is_alive:
            child = _Child()
        is_reusable = False
        try:
            message, is_reusable = child.compute(call)
        finally:
            if is_reusable and not draining.is_draining():
                self._idle = child
            else:
                child.kill()
        return message

    def close(self) -> None:
        """Kill the compute process if it is idle. If it computes for a request, that request kills it later."""
        child, self._idle = self._idle, None
        if child is not None:
            child.kill()


class _Child:
    """A compute process (``byteor_cloud.computing.process``). It has no secrets and none of this process's sockets."""

    def __init__(self) -> None:
        paths = filter(None, [os.environ.get("PYTHONPATH")])  # the folders may contain packages with ops
        folder = settings.CONFIG.data_dir.resolve()
        arguments = [str(os.getpid()), str(folder / "computing.turn"), str(LIMIT_S), str(data_folders.captures())]
        try:
            self._process = Child("byteor_cloud.computing.process", *arguments, environment=environment(paths))
        except OSError as error:
            raise Unavailable("The compute process could not be started. Try again later.", retry_after=10) from error
        self._socket = self._process.socket
        self._socket.settimeout(_DEADLINE_S)

    @property
    def is_alive(self) -> bool:
        poller = _poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        return not poller.poll(0)  # the socket of an idle process becomes readable only when the process exits

    def compute(self, call: bytes) -> tuple[bytes, bool]:
        """Return the outcome, and whether the process accepts further calls. Raises Unavailable or InvalidInput."""
        try:
            self._socket.sendall(HEAD.pack(len(call), False) + call)
            size, is_last = HEAD.unpack(self._receive(HEAD.size))
            return self._receive(size), not is_last
        except TimeoutError as error:
            raise Unavailable("The host is busy with other computations. Try again later.", retry_after=10) from error
        except (EOFError, OSError) as error:
            code = self._process.kill()
            if code == -signal.SIGXCPU:
                detail = f"This takes more than {LIMIT_S} s of processor time. Send or request less data."
                raise InvalidInput(detail, code="too_complex") from None
            _log.warning("the compute process exited with %s", code)
            raise Unavailable("The compute process exited unexpectedly. Try again.", retry_after=1) from error

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self._socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()


_slot = _ComputeSlot()
draining.on_drain(_slot.close)
