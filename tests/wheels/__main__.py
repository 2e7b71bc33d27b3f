"""``make wheels``: build both distributions, install each outside of the checkout, and run their programs.

Exits with 1 and a message if two builds differ, the agent's distribution installs packages of the service, or another
check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import requests
import yaml

from byteor import __version__
from tests.ports import free_port
from tests.terminal_story import Story
from tests.wheels.building import ROOT, Failed, build, environment, install, run

# Packages of the service that the agent's distribution must not install.
ONLY_SERVICE = ("django", "boto3", "gevent", "gunicorn", "psycopg", "procrastinate", "byteor-cloud")
PAGES = ("/admin/login/", "/api/docs", "/api/redoc", "/static/byteor/console.css")
PATIENCE_S = 300.0


def build_twice(uv: str, folder: Path) -> dict[str, Path]:
    """Build both wheels twice, in different folders. Raises Failed if a build fails or the two builds differ."""
    first, second = (build(uv, folder / name) for name in ("first", "another"))
    for name, wheel in first.items():
        if wheel.read_bytes() != second[name].read_bytes():
            raise Failed(f"two builds of {name} differ")
    print(f"  ✓ built twice with equal bytes: {', '.join(wheel.name for wheel in first.values())}", flush=True)
    return first


def install_agent(uv: str, python: str, folder: Path, wheel: Path) -> Path:
    """Install the agent's distribution, and return the folder with its programs.

    Raises Failed if the installation fails or contains packages of the service.
    """
    locked = ("--constraint", ROOT / "requirements/runtime.lock")
    programs = install(uv, python, folder / "agent", *locked, wheel)
    installed = run(uv, "pip", "list", "--python", programs / "python", folder=folder).lower().split()
    if unwanted := sorted(set(ONLY_SERVICE) & set(installed)):
        raise Failed(f"byteor installs {', '.join(unwanted)}")
    return programs


def install_service(uv: str, python: str, folder: Path, wheels: Mapping[str, Path]) -> Path:
    """Install the service with its locked dependencies, and return the folder with its programs.

    Raises Failed if a step fails or a dependency is missing.
    """
    into = folder / "service"
    install(uv, python, into, "--require-hashes", "--requirement", ROOT / "requirements/runtime.lock")
    programs = install(uv, python, into, "--no-deps", *wheels.values())
    run(uv, "pip", "check", "--python", programs / "python", folder=folder)
    return programs


@contextlib.contextmanager
def served(programs: Path, folder: Path) -> Iterator[str]:
    """Serve with the embedded database while the block runs. Yields the server's URL."""
    address = f"127.0.0.1:{free_port()}"
    variables = environment() | {"BYTEOR_CLOUD_API_BIND_ADDR": address}
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "byteor-cloud", "serve"], cwd=folder, env=variables, stdout=log, stderr=log
        )
    try:
        wait_until_ready(server, f"http://{address}", folder / "serve.log")
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(60)


def wait_until_ready(server: subprocess.Popen[bytes], base: str, log: Path) -> None:
    """Wait until the server is ready. Raises Failed if it exits, or is not ready in time."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{base}/readyz", timeout=5).ok:
                return
        time.sleep(0.2)
    raise Failed(f"the service did not become ready: {log.read_text()[-2000:]}")


def check_pages(base: str) -> None:
    """Fetch pages of the console and the API docs, and compare the OpenAPI document with docs/openapi.yaml.

    Raises Failed if a page is empty or an error, or if the document differs.
    """
    for page in PAGES:
        found = requests.get(base + page, timeout=30)
        if not found.ok or not found.content:
            raise Failed(f"GET {page}: {found.status_code}")
    document = yaml.safe_load(requests.get(f"{base}/api/schema", timeout=60).text)
    if document != yaml.safe_load((ROOT / "docs/openapi.yaml").read_text()):
        raise Failed("GET /api/schema differs from docs/openapi.yaml")


class Browser:
    """An HTTP session that signs in with a one-time link and submits forms of the console."""

    def __init__(self, base: str, link: str) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._fill_in(base + link[link.index("/auth/link/") :])

    def allow(self, address: str) -> None:
        """Allow the sign-in of a machine on this page of the device flow."""
        page, _, code = address.partition("?user_code=")
        found = self._fill_in(page, code=code)
        self._fill_in(page, found, decision="allow")

    def _fill_in(self, url: str, page: str | None = None, **values: str) -> str:
        """Submit the form of a page, and return the next page. Raises Failed if the form is refused."""
        page = self._session.get(url, timeout=30).text if page is None else page
        hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
        response = self._session.post(url, data={**dict(hidden), **values}, headers={"Referer": url}, timeout=30)
        if not response.ok:
            raise Failed(f"POST {url}: {response.status_code}")
        return response.text


def tell_story(base: str, folder: Path, service: Path, programs: Path) -> Story:
    """Create an organization, then release a pipeline and roll it back with the installed command.

    Returns the story, which has the evidence's path and key id. Raises Failed if a step or a check fails.
    """

    def sign_in(email: str) -> Callable[[str], None]:
        link = run(service / "byteor-cloud", "sign_in_link", "--email", email, "--json", folder=folder)
        return Browser(base, json.loads(link)["login_url"]).allow

    run(service / "byteor-cloud", "bootstrap", "--org", "Wheels", "--email", "ada@example.com", folder=folder)
    story = Story(programs / "byteor", folder / "story", base)
    try:
        story.tell(allow=sign_in("ada@example.com"), invite=sign_in)
    except AssertionError as error:
        raise Failed(f"the release with the installed command failed: {error}") from error
    return story


def check_python(uv: str, python: str, folder: Path, wheels: Mapping[str, Path], *, runs_demo: bool) -> None:
    """Install both distributions with this Python, and run the command, the agent, the verifier and the service.

    With ``runs_demo``, also run the demo. Raises Failed if a step or a check fails.
    """
    folder.mkdir()
    for name in ("apps", "byteor_cloud"):  # programs must not import modules from their working folder
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('imported from the working folder')")
    agent = install_agent(uv, python, folder, wheels["byteor"])
    service = install_service(uv, python, folder, wheels)
    version = run(agent / "python", "-VV", folder=folder).split("(")[0].strip()
    print(f"  ✓ {version}: installed into empty environments", flush=True)
    check_command(agent, folder)
    print(f"  ✓ {version}: the command and the typed client run without Django", flush=True)
    if runs_demo:
        run(service / "python", "-P", "-m", "byteor_cloud.demo", folder=folder)
        print(f"  ✓ {version}: the demo succeeds, including its sealed processes", flush=True)
    with served(service, folder) as base:
        check_pages(base)
        print(f"  ✓ {version}: the service serves its console and its OpenAPI document", flush=True)
        story = tell_story(base, folder, service, agent)
    print(f"  ✓ {version}: a pipeline is released and rolled back with the command and its agents", flush=True)
    verify(agent, folder, story.evidence, story.kid)
    print(f"  ✓ {version}: the verifier proves the evidence, and rejects it after a change", flush=True)


def check_command(programs: Path, folder: Path) -> None:
    """Run the command, and import the client with its models. Raises Failed if one of them does not work."""
    if run(programs / "byteor", "--version", folder=folder).split() != ["byteor", __version__]:
        raise Failed("byteor --version did not print the version")
    if "Release commands:" not in run(programs / "byteor", "--help", folder=folder):
        raise Failed("byteor --help did not list the commands")
    run(
        programs / "python", "-P", "-c",
        "from byteor.client import AsyncByteOr, ByteOr; import byteor.client.models; ByteOr('http://127.0.0.1')",
        folder=folder,
    )  # fmt: skip


def verify(agent: Path, folder: Path, evidence: Path, kid: str) -> None:
    """Check that the evidence is proven offline, and rejected after a change of a word. Otherwise raises Failed."""
    if not run(agent / "byteor-verify", evidence, "--trust", kid, folder=folder).startswith("PROVEN"):
        raise Failed("byteor-verify did not print PROVEN")
    changed = bytearray(evidence.read_bytes())
    at = changed.index(b"quotes")
    changed[at : at + 6] = b"QUOTES"
    evidence.write_bytes(changed)
    if not run(agent / "byteor-verify", evidence, "--trust", kid, folder=folder, codes=(1,)).startswith("NOT PROVEN"):
        raise Failed("byteor-verify did not reject changed evidence")


def main() -> int:
    """Check both distributions and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="make wheels", description="Build both distributions, install them outside of the checkout, and run them."
    )
    parser.add_argument("--uv", required=True, help="the uv program")
    parser.add_argument("pythons", nargs="*", default=[sys.executable], help="the Python interpreters to install with")
    options = parser.parse_args()
    uv = os.path.abspath(shutil.which(options.uv) or options.uv)
    with tempfile.TemporaryDirectory(prefix="byteor-wheels-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o711)  # PostgreSQL's account must be able to enter the folder
        try:
            wheels = build_twice(uv, folder)
            for number, python in enumerate(options.pythons):
                check_python(uv, os.path.abspath(python), folder / str(number), wheels, runs_demo=number == 0)
        except Failed as error:
            print(f"wheels: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
