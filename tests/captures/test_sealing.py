"""Tests of the limits and seals of a process. Most run in a child process, because a seal cannot be undone."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from byteor_cloud.captures import sealing

LIMITS = """
import json, resource, sys
from byteor_cloud.captures import sealing
before = resource.getrlimit(resource.RLIMIT_AS)
sealing.limit(processor_s=7, file_bytes=1000)
kinds = ("CORE", "CPU", "FSIZE", "NOFILE")
print(json.dumps({kind: resource.getrlimit(getattr(resource, f"RLIMIT_{kind}")) for kind in kinds}))
sealing.seal()
for kind in ("CPU", "AS"):
    try:
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        print(kind, "is not raised")
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = sealing.environment([str(Path(sealing.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops the capability to raise limits")
def test_limits_are_set_and_sealed_process_cannot_raise_them(tmp_path: Path) -> None:
    done = run(LIMITS, tmp_path)

    found, *rest = done.stdout.splitlines()
    limits = json.loads(found)
    assert (limits["CORE"], limits["CPU"], limits["FSIZE"]) == ([0, 0], [7, 7], [1000, 1000])
    assert limits["NOFILE"][1] == min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert rest == ["CPU is not raised", "AS is not raised"], done.stderr


@pytest.mark.skipif(sealing.in_force()["files"] is None, reason="this system has no Landlock")
def test_sealed_process_reads_only_permitted_files(tmp_path: Path) -> None:
    """README.md stands in for the master key, because the data folder is often inside the project's folder."""
    beside = Path(sealing.__file__).parents[2] / "README.md"
    (tmp_path / "given").write_text("given")
    code = f"""
from pathlib import Path
from byteor_cloud.captures import sealing
sealing.seal(readable=[Path("given")])
import decimal, zoneinfo, byteor.engine.replay
print(Path("given").read_text(), zoneinfo.ZoneInfo("UTC"), len(Path(sealing.__file__).read_text()) > 0)
for path in ({str(beside)!r}, "/etc/passwd", "/proc/self/environ", "other"):
    try:
        print(open(path).read())
    except PermissionError:
        print("refused")
try:
    open("given", "w")
except PermissionError:
    print("not written")
"""
    (tmp_path / "other").write_text("secret")

    done = run(code, tmp_path)

    assert done.stdout.splitlines() == ["given UTC True", *["refused"] * 4, "not written"], done.stderr


def test_child_environment_contains_no_server_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYTEOR_CLOUD_MASTER_KEY", "secret")

    found = sealing.environment(["/a", "/b"], TMPDIR="/c")

    assert found["PYTHONPATH"] == f"{Path(__file__).parents[2]}{os.pathsep}/a{os.pathsep}/b"
    assert found.keys() == {"PYTHONPATH", "PATH", "LANG", "MALLOC_ARENA_MAX", "TMPDIR"}
