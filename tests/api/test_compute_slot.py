"""Tests of the compute slot, in a process with an event loop, like an API process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.compiler import Ops, compile_plan
from byteor.engine.strict_json import JsonLimits, MalformedJson, read
from byteor_cloud.captures import sealing
from tests.engine.compiler.test_ops import EXAMPLE, install

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PREAMBLE = """
from gevent import monkey
monkey.patch_all()
import json, os, signal, sys, threading
from pathlib import Path
import django
django.setup()
import gevent
from django.test import RequestFactory
from byteor_cloud.computing import computations
from byteor_cloud.api import compute_slot
from byteor.engine.strict_json import JsonLimits, MalformedJson, read
from byteor_cloud.errors import DomainError, InvalidInput
from tests.api.test_compute_slot import CALLS, PLANS, large

compute = compute_slot.compute_for(RequestFactory().get("/"))

def pids():
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and "computing.process" in stat.with_name("cmdline").read_text():
                found.append(int(stat.parent.name))
        except OSError:
            pass
    return found
"""


def large(op: str = "identity", **changes: Any) -> dict[str, Any]:
    """Return a plan that is too large to be compiled outside the compute process."""
    names = ["source", *(f"stage-{number:04d}" for number in range(60)), "sink"]
    graph = {
        "ingress": names[:1],
        "egress": names[-1:],
        "stages": [{"id": name, "op": op} for name in names[1:-1]],
        "connections": [{"from": one, "to": other} for one, other in pairwise(names)],
    }
    return {"plan_v": 1, "name": "large", "target": "lane_graph", "lane_graph": {**graph, **changes}}


PLANS = {
    "valid": large(),
    "unknown op": large("idntity"),
    "wrong argument": large("http_post:ftp://x"),
    "no object": ["x" * 5000],
    "no stages": large(stages=[]),
    "other target": {**large(), "target": "single_ring"},
    "lone surrogate": large("\ud800"),
    "package's op": large("repeat:2"),
    "package's op with a wrong argument": large("repeat:two"),
}
CALLS = [b'{"a": ' + b" " * 5000 + text for text in (b'1, "a": 2}', b"NaN}", b'"\\u0000"}', b"[1,]}", b"2}", b"\xff")]


def run(program: str, tmp_path: Path) -> str:
    """Run a program with an event loop and with the ops ``repeat`` and ``endless`` installed, and return its output."""
    install(tmp_path, "acme", {"repeat": "acme_stages:repeat", "endless": "endless_stage"})
    (tmp_path / "endless_stage.py").write_text(
        "def validate(argument):\n    while argument:\n        pass\n\ndef process(payload, params):\n    pass\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(EXAMPLE), str(tmp_path)])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "DJANGO_SETTINGS_MODULE": "byteor_cloud.settings",
        "BYTEOR_CLOUD_DATA_DIR": str(tmp_path),
        "SECRET_OF_THE_PARENT": "hidden",
    }
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + program],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def repr_json(value: Any) -> str:
    """Return the value as JSON text, as the program prints it."""
    return json.dumps(json.loads(json.dumps(value)))


def test_results_and_errors_of_compute_process_equal_those_of_direct_calls(tmp_path: Path) -> None:
    output = run(
        """
compute_slot.SMALL_BYTES = -1
for name, plan in PLANS.items():
    print(json.dumps(json.loads(compute(computations.preview, plan, None))))
for text in CALLS:
    try:
        print(compute(read, text, JsonLimits()))
    except MalformedJson as error:
        print((str(error), error.fault, error.message, error.line, error.column, error.pointer))
print(len(pids()))
""",
        tmp_path,
    ).splitlines()

    sys.path[:0] = [str(EXAMPLE), str(tmp_path)]
    try:
        ops = Ops.installed()
    finally:
        del sys.path[:2]
    expected = [repr_json(compile_plan(plan, ops=ops).to_json() | {"truncated": False}) for plan in PLANS.values()]
    for text in CALLS:
        try:
            expected.append(str(read(text, JsonLimits())))
        except MalformedJson as error:
            expected.append(str((str(error), error.fault, error.message, error.line, error.column, error.pointer)))
    assert output[:-1] == expected
    assert output[-1] == "1"


def test_computation_over_time_limit_is_refused_and_next_one_succeeds(tmp_path: Path) -> None:
    output = run(
        """
compute_slot.LIMIT_S = 1
for plan in (large("endless:x"), large()):
    try:
        print(compute(computations.compile_draft, plan).spec_hash is not None)
    except DomainError as error:
        print(error.status, error.reason)
""",
        tmp_path,
    )

    assert output == "400 too_complex\nTrue\n"


def test_killed_compute_process_is_replaced(tmp_path: Path) -> None:
    output = run(
        """
waiting = gevent.spawn(compute, computations.compile_draft, large("endless:x"))
while not pids():
    gevent.sleep(0.01)
gevent.sleep(0)
[pid] = pids()
os.kill(pid, signal.SIGKILL)
try:
    waiting.get()
except DomainError as error:
    print(error.status, error.retry_after > 0)
print(compute(computations.compile_draft, large()).spec_hash is not None, pids() != [pid])
[pid] = pids()
os.kill(pid, signal.SIGKILL)  # while the process computes nothing
while Path(f"/proc/{pid}").exists():
    gevent.sleep(0.01)
print(compute(computations.compile_draft, large()).spec_hash is not None)
""",
        tmp_path,
    )

    assert output == "503 True\nTrue True\nTrue\n"


def test_compute_process_has_low_priority_and_inherits_no_secrets_or_files(tmp_path: Path) -> None:
    output = run(
        """
import socket
listening = socket.create_server(("127.0.0.1", 0))
compute(computations.compile_draft, large())
process = Path(f"/proc/{pids()[0]}")
print(sorted(name.partition("=")[0] for name in (process / "environ").read_text().split("\\0") if name))
opened = [os.readlink(each) for each in (process / "fd").iterdir()]
print(sorted(each.partition(":")[0] for each in opened if not each.startswith("pipe:")))
status = dict(line.split(":\\t", 1) for line in (process / "status").read_text().splitlines())
lower = os.getpriority(os.PRIO_PROCESS, pids()[0]) - os.getpriority(os.PRIO_PROCESS, 0)
print(status["Cpus_allowed_list"].isdigit(), lower > 0)
print(*(status[name].strip() for name in ("Seccomp", "NoNewPrivs")), int(status["CapEff"], 16) in {0, 4})
""",
        tmp_path,
    ).splitlines()

    assert output[0] == "['LANG', 'MALLOC_ARENA_MAX', 'PATH', 'PYTHONPATH']"
    assert output[1] == str(["/dev/null", "/dev/null", str(tmp_path / "computing.turn"), "socket"])
    assert output[2] == "True True"
    assert output[3] == ("2 1 True" if sealing.in_force()["network"] == "seccomp" else "0 1 True")


def test_computation_over_memory_limit_is_refused(tmp_path: Path) -> None:
    output = run(
        """
limits = JsonLimits(max_bytes=1 << 30, max_values=1 << 30)
try:
    compute(read, b"[" + b"[]," * 10_000_000 + b"[]]", limits)
except InvalidInput as error:
    print(error.detail)
print(len(compute(read, b"[" + b"[]," * 1_000 + b"[]]", limits)))
""",
        tmp_path,
    )

    assert output == "This takes more than 256 MiB of memory. Send or request less data.\n1001\n"


def test_small_json_is_read_without_compute_process(tmp_path: Path) -> None:
    assert run("print(compute(read, b'[1]', JsonLimits()), pids())", tmp_path) == "[1] []\n"


def test_large_configuration_is_checked_in_compute_process(tmp_path: Path) -> None:
    output = run(
        """
from byteor.engine.configuration import RuntimeConfig
config = RuntimeConfig("default", "spin", {}, {}, {"NAME": "x" * 5000}, {"enabled": False})
print(compute(computations.check_runtime_config, {}, "sha256:0", config).capabilities, len(pids()))
""",
        tmp_path,
    )

    assert output == "['deploy'] 1\n"


def test_unexpected_error_is_not_reported_as_invalid_input(tmp_path: Path) -> None:
    output = run(
        """
try:
    compute(computations.diff_kv, "no spec" * 1000, "no spec")
except RuntimeError as error:
    print("KvError" in str(error))
""",
        tmp_path,
    )

    assert output == "True\n"
