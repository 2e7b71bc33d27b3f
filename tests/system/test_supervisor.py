"""The supervisor of ``manage.py serve`` with real child processes."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byteor_cloud.server import supervisor
from tests.patience import PATIENCE_S, wait_until

# Supervises the programs given as JSON, with short restart delays, and prints `ready` when all are ready.
SUPERVISE = """
import json, logging, os, sys
from pathlib import Path
from byteor_cloud.server import supervisor

supervisor._RESTART_DELAYS = (0.0, 0.05, 0.1)
supervisor._STOP_SECONDS = float(sys.argv[2])
logging.basicConfig(format="%(message)s")

def probe(path):
    return None if path is None else Path(path).exists

children = [
    supervisor.Child(f"child{number}", [sys.executable, "-c", program], dict(os.environ), probe(path))
    for number, (program, path) in enumerate(json.loads(sys.argv[1]))
]
sys.exit(supervisor.run(children, lambda: os.write(1, b"ready\\n")))
"""

# The programs write each line in one call, so that lines do not mix. Except for FAILING, they run for a minute unless a
# signal stops them.
SPEAK = """
import os, signal, subprocess, sys, time

def say(text):
    os.write(1, f"{text}\\n".encode())

"""
PATIENT = SPEAK + "say(f'pid {os.getpid()}'); time.sleep(60)"
GRACEFUL = SPEAK + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(say('bye')))" + PATIENT
STUBBORN = SPEAK + "signal.signal(signal.SIGTERM, lambda *_: say('no'))" + PATIENT
FAILING = SPEAK + "say('pid 0'); sys.exit(3)"
PARENT = SPEAK + f"subprocess.Popen([sys.executable, '-c', {PATIENT!r}]); time.sleep(60)"


class Supervised:
    """A supervisor process, and methods that read the output of the supervisor and its children."""

    def __init__(self, *programs: tuple[str, Path | None], stop_seconds: float) -> None:
        given = json.dumps([(program, path and str(path)) for program, path in programs])
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, given, str(stop_seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": str(Path(supervisor.__file__).parents[2])},
        )

        assert self.process.stdout is not None
        self._output = self.process.stdout.fileno()
        self._pending_output = b""

    def next_line(self, seconds: float = PATIENCE_S) -> str:
        """Return the next line of output, or an empty string after a timeout or at the end of the output."""
        while b"\n" not in self._pending_output:
            if not select.select([self._output], [], [], seconds)[0]:
                return ""
            if not (piece := os.read(self._output, 4096)):
                return ""
            self._pending_output += piece
        line, _, self._pending_output = self._pending_output.partition(b"\n")
        return line.decode()

    def pid(self) -> int:
        """Return the next process id in the output, skipping other lines."""
        while not (line := self.next_line()).startswith("pid "):
            assert line, "no process printed its id"
        return int(line.removeprefix("pid "))

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, list[str], list[str]]:
        """Send a signal and return the exit code, the remaining output and the log lines."""
        self.process.send_signal(number)
        output, logged = self.process.communicate(timeout=PATIENCE_S)
        return (
            self.process.returncode,
            (self._pending_output + output).decode().splitlines(),
            logged.decode().splitlines(),
        )


type Supervise = Callable[..., Supervised]


@pytest.fixture
def supervise() -> Iterator[Supervise]:
    started: list[Supervised] = []

    def start(*programs: str | tuple[str, Path], stop_seconds: float = PATIENCE_S) -> Supervised:
        probed = [(program, None) if isinstance(program, str) else program for program in programs]
        started.append(Supervised(*probed, stop_seconds=stop_seconds))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # in a container, init may never reap a zombie


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until_gone(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), every_s=0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_stops_children_gracefully(supervise: Supervise, number: signal.Signals) -> None:
    supervised = supervise(GRACEFUL, GRACEFUL)
    pids = {supervised.pid(), supervised.pid()}

    code, output, logged = supervised.end(number)

    assert code == 0
    assert [line for line in output if line != "ready"] == ["bye", "bye"]
    assert logged == []
    assert not any(map(is_alive, pids))


def test_ready_is_printed_once_after_probe_succeeds(supervise: Supervise, tmp_path: Path) -> None:
    opened = tmp_path / "open"
    supervised = supervise((PATIENT, opened), GRACEFUL)
    pids = [supervised.pid(), supervised.pid()]
    assert supervised.next_line(0.15) == ""

    opened.touch()
    assert supervised.next_line() == "ready"

    os.kill(pids[0], signal.SIGKILL)
    supervised.pid()
    _, output, _ = supervised.end()
    assert "ready" not in output


def test_restart_delays_of_repeatedly_killed_child_increase_to_maximum(supervise: Supervise) -> None:
    supervised = supervise(PATIENT)
    pids = [supervised.pid()]

    for _ in range(4):
        os.kill(pids[-1], signal.SIGKILL)
        pids.append(supervised.pid())

    code, _, logged = supervised.end()
    assert code == 0
    assert logged == [
        f"child0 exited unexpectedly (SIGKILL); restarting it in {delay} s" for delay in ("0", "0.05", "0.1", "0.1")
    ]
    assert len(set(pids)) == 5
    assert not any(map(is_alive, pids))


def test_long_running_child_is_restarted_immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_STEADY_SECONDS", 0.0)
    kept = supervisor._SupervisedChild(supervisor.Child("steady", [sys.executable, "-c", ""], {}))

    for _ in range(3):
        kept.wait()
        kept.update()  # restarts the child immediately, because the first delay is 0

        assert kept.restart_at is None
    kept.wait()


def test_restart_does_not_affect_other_children(supervise: Supervise) -> None:
    supervised = supervise(PATIENT, PATIENT)
    pids = [supervised.pid(), supervised.pid()]

    os.kill(pids[0], signal.SIGKILL)
    supervised.pid()

    assert is_alive(pids[1])


def test_failed_child_is_logged_with_exit_code(supervise: Supervise) -> None:
    supervised = supervise(FAILING)
    supervised.pid()
    supervised.pid()

    code, _, logged = supervised.end()

    assert code == 0
    assert logged[0] == "child0 exited unexpectedly (exit code 3); restarting it in 0 s"


def test_descendants_of_killed_child_are_stopped(supervise: Supervise) -> None:
    supervised = supervise(PARENT)
    grandchild = supervised.pid()

    os.kill(parent_of(grandchild), signal.SIGKILL)

    wait_until_gone(grandchild)


def test_child_that_ignores_stop_signal_is_killed_after_deadline(supervise: Supervise) -> None:
    supervised = supervise(STUBBORN, stop_seconds=0.5)
    pid = supervised.pid()

    code, _, logged = supervised.end()

    assert code == 1
    assert logged == ["child0 is still running; killing it"]
    assert not is_alive(pid)


def test_second_stop_signal_kills_children_immediately(supervise: Supervise) -> None:
    supervised = supervise(STUBBORN)
    supervised.pid()
    supervised.process.send_signal(signal.SIGINT)
    assert supervised.next_line() == "no"  # otherwise the signals could arrive as one

    code, _, logged = supervised.end(signal.SIGINT)

    assert code == 1
    assert logged == ["child0 is still running; killing it"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notifies a process of its parent's death")
def test_children_stop_when_supervisor_is_killed(supervise: Supervise) -> None:
    supervised = supervise(PATIENT, GRACEFUL)
    pids = [supervised.pid(), supervised.pid()]

    supervised.process.kill()

    for pid in pids:
        wait_until_gone(pid)


def test_restart_delay_grows_to_30_seconds() -> None:
    assert supervisor._RESTART_DELAYS == (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
