"""Hostile plans are refused. The work is in proportion to their length, and 4 MiB need at most 200 MiB of memory."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.compiler import PlanSyntaxError, compile_plan, parse_plan
from tests.growth import assert_in_proportion

BOMBS = {
    "numbers": '"[" + "1," * (N // 2 - 1) + "1]"',
    "lists": '"[" + "[]," * (N // 3 - 1) + "[]]"',
    "nested": '"[" + "[0]," * (N // 4 - 1) + "[0]]"',
    "objects": '"[" + "{}," * (N // 3 - 1) + "{}]"',
    "members": """"[" + '{"":0},' * (N // 7 - 1) + "{}]" """,
    "keys": """"{" + ",".join(f'"{n}":1' for n in range(N // 10)) + "}" """,
    "connections": """'[' + ','.join('{"from":"a","to":"b"}' for n in range(N // 22)) + ']'""",
    "duplicate": """"[" + "{}," * (N // 3 - 9) + '{"a":1,"a":2}]'""",
    "nan": '"[" + "1," * (N // 2 - 3) + "NaN]"',
    "depth": '"[" * N',
    "digits": '"1" * N',
    "string": "'\"' + chr(92) + 'u0041' * (N // 6) + '\"'",
}
PROGRAM = """
    import json, pathlib, re, resource, sys
    from byteor.engine.compiler import *
    N = 4 * 1024 * 1024
    text = TEXT
    # Linear work needs much less than 20 seconds of processor time. Quadratic work, even in C, would need minutes.
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    try:
        value = parse_plan(text)
    except PlanSyntaxError as error:
        results = [{"error": str(error)}]
    else:
        graph = {"ingress": value, "features": value, "stages": value, "connections": value}
        results = [
            compile_plan(plan).to_json()
            for plan in (
                value,
                {"plan_v": 1, "name": value, "labels": value, "target": "lane_graph", "lane_graph": graph},
                {"plan_v": 1, "name": "a", "target": "single_ring", "single_ring": {"stages": value}},
            )
        ]
    assert all("error" in result or not result["ok"] for result in results)
    # On Linux, getrusage in a child process includes the memory of its parent at the time of the fork.
    peak = re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1] \\
        if sys.platform == "linux" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(max(len(json.dumps(result)) for result in results), peak)
"""


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_hostile_text_of_4_mib_takes_at_most_20_s_of_processor_time_and_200_mib(text: str) -> None:
    program = textwrap.dedent(PROGRAM).replace("TEXT", text)
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    ).stdout

    size, kibibytes = map(float, result.split())
    assert size < 100_000
    assert kibibytes < 200 * 1024


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_work_for_hostile_plan_is_proportional_to_its_length(text: str) -> None:
    def work(size: int) -> None:
        try:
            value = parse_plan(eval(text, {"N": size}))
        except PlanSyntaxError:
            return
        graph = {"ingress": value, "features": value, "stages": value, "connections": value}
        compile_plan(value).to_json()
        compile_plan({"plan_v": 1, "name": value, "target": "lane_graph", "lane_graph": graph}).to_json()
        compile_plan({"plan_v": 1, "name": "a", "target": "single_ring", "single_ring": {"stages": value}}).to_json()

    assert_in_proportion(work, 16 << 10)


ODD: list[Any] = [
    None,
    True,
    -1,
    2.5,
    float("nan"),
    float("-inf"),
    10**400,
    1 << 20_000,
    "",
    "\ud800",
    "\x00",
    "a\n",
    "𝄞",
    "x" * 64,
    [],
    {},
    [[]],
    {"\ud800": {"\x00": []}},
    {1: 2},
    (),
    b"x",
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("base", ["ring", "graph"])
def test_plan_field_refuses_value_that_it_does_not_permit(odd: Any, base: str, request: pytest.FixtureRequest) -> None:
    plan = request.getfixturevalue(base)

    def visit(container: Any, keys: list[Any]) -> None:
        for key in keys:
            original = container[key]
            container[key] = odd
            compilation = compile_plan(plan)
            json.dumps(compilation.to_json(), ensure_ascii=False).encode()
            # The description, the labels and the lists that may be empty accept some of these values.
            assert not compilation.ok or odd == [] or key in {"description", "labels"}
            container[key] = original
            if isinstance(original, dict):
                visit(original, list(original))
            elif isinstance(original, list):
                visit(original, list(range(len(original))))

    visit(plan, list(plan))
    assert compile_plan(plan).ok
    assert not compile_plan(odd).ok
    assert not compile_plan(plan, target=odd).ok or odd is None


def test_list_that_contains_itself_gets_diagnostic(ring: Any) -> None:
    loop: list[Any] = []
    loop.append(loop)
    ring["single_ring"]["stages"] = loop

    assert [d.pointer for d in compile_plan(ring).diagnostics] == ["/single_ring/stages/0"]


def test_diagnostic_for_unprintable_or_too_long_key_points_to_its_object(ring: Any) -> None:
    ring["x" * 65] = ring["\ud800"] = ring["a\n"] = 1
    ring["labels"] = {"\x00": "a", "k" * 65: "a", "": "a", "ok": "a"}

    assert [d.pointer for d in compile_plan(ring).diagnostics] == [
        "/labels/",
        "/labels",
        "/labels",
        "",
        "",
        "",
    ]


@pytest.mark.parametrize(("length", "ok"), [(63, True), (64, False)])
def test_endpoint_name_is_limited_to_63_characters(length: int, ok: bool, ring: Any) -> None:
    ring["single_ring"]["ingress"] = "a" * length

    assert compile_plan(ring).ok is ok
