"""Execution of side effects: HTTP requests and programs, with limits on time and output."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from apps.artifacts.services import effects
from apps.artifacts.services.effects import Executor
from byteor.engine.replay import EffectFailed, SideEffectPolicy
from tests.artifacts.servers import serve_http
from tests.patience import PATIENCE_S, wait_until

POLICY = SideEffectPolicy((), (), {}, consented=True, stages=frozenset())


@pytest.fixture
def executor(tmp_path: Path) -> Executor:
    return Executor(POLICY, tmp_path, "replay-1", until=time.monotonic() + 60, timeout_s=0.4)


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set environment variables that would redirect requests to a proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")


def python(source: str) -> str:
    assert "|" not in source
    return f"exec:{sys.executable}|-c|{source}"


# --- HTTP


def test_record_is_posted_once(executor: Executor, proxied: None) -> None:
    with serve_http() as receiver:
        executor.perform("notify", f"http_post:{receiver.origin}/hook/a%20b?x=1#part", b"\0payload")

    ((path, headers, body),) = receiver.requests
    assert (path, body) == ("/hook/a%20b?x=1", b"\0payload")
    assert headers["Host"] == receiver.origin.removeprefix("http://")
    assert (headers["X-ByteOr-Replay"], headers["X-ByteOr-Stage"]) == ("replay-1", "notify")
    assert headers["Content-Type"] == "application/octet-stream"
    assert not {"Authorization", "Cookie"} & set(headers)


@pytest.mark.parametrize("status", [301, 307, 404, 500])
def test_http_post_fails_on_error_status_and_does_not_follow_redirect(executor: Executor, status: int) -> None:
    with serve_http() as elsewhere:

        def redirect(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Location", elsewhere.origin + "/stolen")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        message = f"^the response has the status {status}$"
        with serve_http(redirect) as receiver, pytest.raises(EffectFailed, match=message):
            executor.perform("s", f"http_post:{receiver.origin}", b"x")

        assert [path for path, _, _ in receiver.requests] == ["/"]
        assert elsewhere.requests == []


def trickling(handler: BaseHTTPRequestHandler, whole: threading.Event) -> None:
    with suppress(OSError):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
        for _ in range(600):
            handler.wfile.write(b"y")
            time.sleep(0.05)
        whole.set()


def silent(handler: BaseHTTPRequestHandler, _whole: threading.Event) -> None:
    handler.rfile.read(1)


@pytest.mark.parametrize("respond", [trickling, silent])
def test_http_post_fails_if_response_headers_do_not_arrive_within_timeout(
    executor: Executor, respond: Callable[[BaseHTTPRequestHandler, threading.Event], None]
) -> None:
    whole = threading.Event()
    with serve_http(lambda handler: respond(handler, whole)) as receiver:
        with pytest.raises(EffectFailed, match=r"^no response within the time limit \(at most 0\.4 s\)$"):
            executor.perform("s", f"http_post:{receiver.origin}", b"x")

        assert not whole.is_set()


def test_http_post_does_not_wait_for_end_of_response_body(executor: Executor) -> None:
    whole = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            for _ in range(10_000):
                handler.wfile.write(b"z" * 65_536)
            whole.set()

    with serve_http(endless) as receiver:
        executor.perform("s", f"http_post:{receiver.origin}", b"x")

    assert not whole.is_set()


def test_http_post_fails_if_connection_is_refused(executor: Executor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(EffectFailed, match=r"^no response: ConnectionRefusedError$"):
        executor.perform("s", f"http_post:http://127.0.0.1:{port}", b"x")


def rubbish(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0\r\n\r\n")


def test_http_post_fails_if_server_does_not_speak_http_or_tls(executor: Executor) -> None:
    with serve_http(rubbish) as receiver:
        for scheme, why in (("http", "BadStatusLine"), ("https", "SSLError")):
            with pytest.raises(EffectFailed, match=f"^no response: {why}$"):
                executor.perform("s", f"http_post:{receiver.origin.replace('http', scheme)}", b"x")
        assert len(receiver.requests) == 1


# --- programs


def test_program_receives_record_but_not_worker_environment(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYTEOR_CLOUD_MASTER_KEY", "secret")
    source = (
        "import os,sys; open('out','wb').write(sys.stdin.buffer.read()); print(dict(os.environ), file=open('env','w'))"
    )

    executor.perform("notify", python(source) + "|$HOME; touch x", b"\0payload")

    assert (tmp_path / "out").read_bytes() == b"\0payload"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["env", "out"]
    environment = eval((tmp_path / "env").read_text())
    environment.pop("LC_CTYPE", None)  # Python sets this variable itself
    assert environment == {
        "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(tmp_path), "TMPDIR": str(tmp_path),
        "BYTEOR_REPLAY": "replay-1", "BYTEOR_STAGE": "notify",
    }  # fmt: skip


def test_error_says_why_program_failed_or_did_not_start(executor: Executor) -> None:
    with pytest.raises(EffectFailed, match=r"^the program failed with exit code 3: no such thing$"):
        executor.perform("s", python("import sys; print('no such thing', file=sys.stderr); sys.exit(3)"), b"")
    with pytest.raises(EffectFailed, match=r"^the program failed with exit code 1: no error output$"):
        executor.perform("s", "exec:/bin/false", b"")
    with pytest.raises(EffectFailed, match=r"^the program does not start: FileNotFoundError$"):
        executor.perform("s", "exec:/no/such/program", b"")


def test_long_error_output_is_truncated(executor: Executor) -> None:
    source = "import sys; sys.stdout.write('o' * 3000000); sys.stderr.write('e' * 3000000); sys.exit(1)"

    with pytest.raises(EffectFailed) as failed:
        Executor(POLICY, executor.folder, "r", executor.until, timeout_s=5).perform("s", python(source), b"")

    assert str(failed.value) == "the program failed with exit code 1: " + "e" * 2000


def test_reading_endless_error_output_stops_at_time_limit() -> None:
    over = threading.Event()

    def read() -> None:
        with Path("/dev/zero").open("rb") as endless, suppress(TimeoutError):
            effects._read_stderr(endless.fileno(), time.monotonic() + 0.1)
        over.set()

    threading.Thread(target=read, daemon=True).start()

    assert over.wait(PATIENCE_S)


def test_slow_program_is_killed_with_its_children(executor: Executor, tmp_path: Path) -> None:
    command = "exec:/bin/sh|-c|sleep 60 & echo $! > child; wait"

    with pytest.raises(EffectFailed, match=r"^the program exceeded the time limit \(at most 0\.4 s\) and was killed$"):
        executor.perform("s", command, b"")

    child = int((tmp_path / "child").read_text())
    wait_until(lambda: _ended(child), every_s=0.01)


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_total_side_effect_time_of_replay_is_limited(tmp_path: Path) -> None:
    executor = Executor(POLICY, tmp_path, "r", until=time.monotonic() - 1)

    with pytest.raises(EffectFailed, match="took too long in total"):
        executor.perform("s", "exec:/bin/true", b"")
