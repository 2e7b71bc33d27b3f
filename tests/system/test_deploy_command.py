"""``byteor deploy`` with real processes: a server with its worker, agents, and a terminal of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation
from tests.system.fleet import Fleet
from tests.worlds import plan

AGENTS = ("edge-1", "edge-2")
PROGRAMS = Path(sys.executable).parent


class Site:
    """An installation with the environments ``dev`` and ``prod``. ``run_agents`` starts two agents in ``dev``."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation, self.folder = installation, folder
        self.server = installation.serve()
        self.fleet = Fleet(installation)
        self.prod = self.fleet.call(
            "POST", self.fleet.environment.rpartition("/")[0], {"name": "prod", "posture": "prod"}
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        self._bundles = 0

    def run_agents(self) -> None:
        """Enroll the agents, start them, and wait until they are online."""
        for name in AGENTS:
            token = self.fleet.call("POST", f"{self.fleet.environment}/enrollment-tokens", {})["token"]
            state = ["--state", str(self.folder / name)]
            address = [
                "--url",
                self.installation.base,
                "--environment",
                self.installation.base + self.fleet.environment,
            ]
            subprocess.run(
                [PROGRAMS / "byteor-agent", "enroll", *address, "--name", name, *state],
                env={**os.environ, "BYTEOR_ENROLLMENT_TOKEN": token},
                capture_output=True,
                check=True,
            )
            (self.folder / "sample.jsonl").write_text('{"symbol": "ACME"}\n')
            options = ["--sample", str(self.folder / "sample.jsonl"), "--interval-override", "0.5"]
            self.processes.append(
                subprocess.Popen(
                    [PROGRAMS / "byteor-agent", "run", *state, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        path = f"{self.fleet.environment}/agents/summary"
        wait_until(lambda: self.fleet.call("GET", path)["liveness"].get("online") == len(AGENTS))

    def bundle(self, environment: str, **config: Any) -> str:
        """Create a config bundle, and return its name."""
        self._bundles += 1
        name = f"quotes-{self._bundles}"
        draft = self.fleet.call("POST", f"{environment}/drafts", {"name": name, "plan": plan()})
        version = self.fleet.call("POST", f"{environment}/drafts/{draft['id']}/version", {})
        body = {"name": name, "version_id": version["id"], "env": {"BUNDLE": name}, **config}
        self.fleet.call("POST", f"{environment}/config-bundles", body)
        return name

    def newest(self) -> Any:
        """Return the newest deployment in ``dev``."""
        return self.fleet.call("GET", f"{self.fleet.environment}/deployments?limit=1")["results"][0]

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables of commands, without PYTHONPATH, which hides installed packages in tests."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {
            **inherited, "BYTEOR_URL": self.installation.base, "BYTEOR_TOKEN": self.fleet.token,
            "XDG_CONFIG_HOME": str(self.folder), "TERM": "xterm-256color",
        }  # fmt: skip

    def byteor(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command with its output in a pipe."""
        return subprocess.run(
            [PROGRAMS / "byteor", *arguments], env=self.variables, capture_output=True, text=True, timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip


class Screen:
    """A command on a terminal of 80 columns, and all that it has printed there."""

    def __init__(self, site: Site, *arguments: str) -> None:
        self._terminal, other_end = pty.openpty()
        fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        self.process = subprocess.Popen(
            [PROGRAMS / "byteor", *arguments],
            env=site.variables, stdin=other_end, stdout=other_end, stderr=other_end, start_new_session=True,
        )  # fmt: skip
        os.close(other_end)
        self._printed = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._terminal, 65536)
            except OSError:  # the command has ended
                return
            if not part:
                return
            self._printed += part

    @property
    def text(self) -> str:
        """The printed text, without the sequences that control colors and the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._printed.decode(errors="replace")).replace("\r", "")

    def wait_for(self, text: str) -> None:
        """Wait until the command has printed the text."""
        wait_until(lambda: text in self.text or self.process.poll() is not None)
        assert text in self.text, self.text

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        """Wait until the command has ended, and return its exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        os.close(self._terminal)
        return code


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    installation = Installation()
    made = Site(installation, tmp_path_factory.mktemp("site"))
    try:
        made.run_agents()
        yield made
    finally:
        for process in made.processes:
            process.terminate()
            process.wait(PATIENCE_S)
        installation.remove()


def test_command_follows_rollout_across_server_restart(site: Site) -> None:
    screen = Screen(site, "deploy", site.bundle(site.fleet.environment), "--env", "dev", "--canary")
    screen.wait_for("Deploy? [y/N]: ")
    screen.type("y\n")
    screen.wait_for("To start it:")

    site.installation.stop(site.server)
    screen.wait_for("A request failed.")
    site.server = site.installation.serve()
    screen.wait_for("Requests succeed again.")
    site.fleet.call("POST", f"{site.fleet.environment}/deployments/{site.newest()['id']}/next-wave", {})

    assert screen.end() == 0, screen.text
    assert re.search(r"Wave 1 +━+ +1 of 1 +done", screen.text), screen.text
    assert screen.text.count("A request failed.") == 1
    assert screen.text.rstrip().endswith("Deployed quotes: 2 of 2 agents are active.")


def test_rollout_continues_after_command_is_interrupted(site: Site) -> None:
    screen = Screen(site, "deploy", site.bundle(site.fleet.environment), "--env", "dev", "--canary", "--yes")
    screen.wait_for("To start it:")

    screen.process.send_signal(signal.SIGINT)

    assert screen.end() == 130, screen.text
    deployment = site.newest()
    assert "Interrupted. The work continues on the server." in screen.text
    assert f"byteor deployments watch {deployment['id']}" in screen.text
    assert deployment["status"] == "deploying"
    site.fleet.call("POST", f"{site.fleet.environment}/deployments/{deployment['id']}/next-wave", {})
    followed = site.byteor("deployments", "watch", "--env", "dev", "--json", "status")
    assert (followed.returncode, followed.stdout) == (0, '{\n  "status": "active"\n}\n')


def test_command_exits_3_if_rollout_fails(site: Site) -> None:
    name = site.bundle(site.fleet.environment, env={"PASSWORD": {"secret_ref": "NO_SUCH_SECRET"}})

    found = site.byteor("deploy", name, "--env", "dev", "--yes")

    assert found.returncode == 3, found.stdout + found.stderr
    assert "The rollout of quotes failed, because too many agents failed" in found.stdout
    assert "NO_SUCH_SECRET" in found.stdout
    assert "\x1b" not in found.stdout


def test_command_exits_8_if_deployment_still_waits_for_approval_at_timeout(site: Site) -> None:
    prod = site.fleet.environment.rpartition("/")[0] + f"/{site.prod['id']}"
    token = site.fleet.call("POST", f"{prod}/enrollment-tokens", {})["token"]
    site.fleet.call("POST", f"{prod}/agents", {"name": "edge-3"}, token)

    found = site.byteor("deploy", site.bundle(prod), "--env", "prod", "--yes", "--timeout", "1")

    assert found.returncode == 8, found.stdout + found.stderr
    assert "Waiting for approval. Any operator or admin can approve, but not" in found.stdout
    assert "byteor deployments watch " in found.stderr
