"""Tests of the start and end of child processes, also in a process with an event loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from byteor_cloud.captures.spawning import Child

ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8"}
_LARGE_PROCESS = """
from gevent import monkey
monkey.patch_all()
import os
from byteor_cloud.captures import spawning
forks = []
os.register_at_fork(before=lambda: forks.append(1))
child = spawning.Child("json.tool", environment={})
child.socket.sendall(b'{"a":1}')
child.socket.shutdown(1)
print(child.socket.recv(100), child.kill() in (0, -9), forks)
"""


def test_child_communicates_over_socket_and_has_separate_session() -> None:
    child = Child("json.tool", "--compact", environment=ENVIRONMENT)

    assert os.getsid(child.pid) == child.pid
    child.socket.sendall(b'{"a": 1}')
    child.socket.shutdown(1)
    assert child.socket.recv(100) == b'{"a":1}\n'
    child.kill()


def test_kill_stops_process_and_returns_negative_signal_number() -> None:
    child = Child("json.tool", environment=ENVIRONMENT)

    assert child.kill() == -signal.SIGKILL
    assert child.kill() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_starting_missing_program_raises_file_not_found_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with pytest.raises(FileNotFoundError):
        Child("json.tool", environment=ENVIRONMENT)


def test_child_process_is_started_without_fork() -> None:
    done = subprocess.run([sys.executable, "-c", _LARGE_PROCESS], capture_output=True, text=True, check=True)

    assert done.stdout == "b'{\\n    \"a\": 1\\n}\\n' True []\n"
