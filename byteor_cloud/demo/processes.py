"""The processes of the demo (a control plane and agents), and a client for its API."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests

MANAGE = [sys.executable, "-P", "-m", "byteor_cloud"]
AGENT = [str(Path(sys.executable).with_name("byteor-agent"))]
VERIFY = [str(Path(sys.executable).with_name("byteor-verify"))]
FIRST_PORT, LAST_PORT = 8080, 8180
TIMEOUT_S = 180.0  # starting can take a minute on a busy machine


class DemoError(Exception):
    """The demo cannot continue."""


class ApiClient:
    """A client for the public API with one person's user token."""

    def __init__(self, base: str, token: str) -> None:
        self._base, self._session = base, requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request and return the JSON of the response. Raises DemoError if it fails."""
        return self._send(method, path, body).json()

    def download(self, path: str) -> bytes:
        """Return the bytes of a file. Raises DemoError if the request fails."""
        return self._send("GET", path).content

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> requests.Response:
        try:
            response = self._session.request(method, self._base + path, json=body, timeout=30)
        except requests.RequestException as error:
            raise DemoError(f"{method} {path}: no response ({type(error).__name__})") from error
        if not response.ok:
            raise DemoError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response

    def wait(self, path: str, event: str, is_done: Callable[[Any], bool]) -> Any:
        """Poll ``path`` until ``is_done`` accepts its JSON, and return it.

        Raises DemoError if a request fails, or after ``TIMEOUT_S``.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if is_done(found := self("GET", path)):
                return found
            time.sleep(0.1)
        raise DemoError(f"{event} did not happen within {TIMEOUT_S:.0f} s: {json.dumps(found)[:500]}")


def print_step(step: str, **facts: object) -> None:
    """Print the line of a completed step."""
    print(f"  ✓ {step:<34} " + "  ".join(f"{name}={value}" for name, value in facts.items()), flush=True)


def free_address() -> str:
    """Return 127.0.0.1 with the first free port, starting at 8080. Raises DemoError if none is free."""
    for port in range(FIRST_PORT, LAST_PORT):
        with contextlib.closing(socket.socket()) as probe:
            # gunicorn also sets this option, so a port in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port != FIRST_PORT:
                    print(f"Port {FIRST_PORT} is in use; serving on port {port} instead.", flush=True)
                return f"127.0.0.1:{port}"
    raise DemoError(f"all ports from {FIRST_PORT} to {LAST_PORT - 1} are in use")


class Processes:
    """The processes that one run of the demo starts: a control plane and agents."""

    def __init__(self, data_dir: Path, environ: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self.folder = data_dir / "demo-agents"
        self.run_number = 1
        self.environ = {**environ, "BYTEOR_CLOUD_DATA_DIR": str(data_dir)}
        if "BYTEOR_CLOUD_API_BIND_ADDR" not in self.environ:
            self.environ["BYTEOR_CLOUD_API_BIND_ADDR"] = free_address()
        self.base = f"http://{self.environ['BYTEOR_CLOUD_API_BIND_ADDR']}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, argv: list[str], variables: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process, optionally with more environment variables. It logs to NAME.log in the data folder."""
        environ = {**self.environ, **(variables or {})}
        with (self.data_dir / f"{name}.log").open("ab") as log:
            # The process gets its own group: Ctrl-C reaches only the demo, which then stops the processes in order.
            process = subprocess.Popen(
                argv, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """Stop the started processes, the newest first."""
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=40)
            process.kill()

    def manage(self, *argv: str) -> dict[str, str]:
        """Run a management command and return its JSON. Raises DemoError with its error message."""
        finished = subprocess.run(
            [*MANAGE, *argv, "--json"], env=self.environ, capture_output=True, text=True, check=False
        )
        if finished.returncode != 0:
            raise DemoError(f"manage.py {argv[0]}: {finished.stderr.strip()[-500:]}")
        result: dict[str, str] = json.loads(finished.stdout)
        return result

    def serve(self) -> None:
        """Start the control plane and wait until it is ready. Raises DemoError if it exits or is not ready in time."""
        self.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        server = self.start("serve", [*MANAGE, "serve"])
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if server.poll() is not None:
                log = (self.data_dir / "serve.log").read_text().strip().splitlines()[-5:]
                raise DemoError("the server exited unexpectedly: " + " | ".join(log))
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.base}/readyz", timeout=2).ok:
                    print_step("control plane is ready", at=self.base)
                    return
            time.sleep(0.1)
        raise DemoError(f"the server was not ready within {TIMEOUT_S:.0f} s; see {self.data_dir}/serve.log")

    def state_folder(self, name: str) -> Path:
        """Return the state folder of one of this run's agents. Each run number has its own."""
        return self.folder / (name if self.run_number == 1 else f"{name}-demo-{self.run_number}")

    def run_agent(self, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        """Run an agent until the demo stops, optionally with more environment variables."""
        sample = self.folder / "sample.jsonl"
        options = ["--state", str(folder), "--sample", str(sample), "--interval-override", "0.5"]
        self.start(folder.name, [*AGENT, "run", *options], variables)

    def agent(self, *argv: str, enrollment_token: str | None = None) -> str:
        """Run a command of the reference agent and return its output. Raises DemoError with its error message."""
        environ = dict(self.environ)
        if enrollment_token is not None:
            environ["BYTEOR_ENROLLMENT_TOKEN"] = enrollment_token
        finished = subprocess.run([*AGENT, *argv], env=environ, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise DemoError(f"byteor-agent {argv[0]}: {finished.stderr.strip()[-500:]}")
        return finished.stdout

    def verify(self, *argv: str) -> str:
        """Run the offline verifier and return its output. Raises DemoError unless everything is proven."""
        finished = subprocess.run([*VERIFY, *argv], capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise DemoError(f"byteor-verify: {(finished.stdout + finished.stderr).strip()[-500:]}")
        return finished.stdout
