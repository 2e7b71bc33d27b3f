import json
from collections.abc import Callable
from typing import Any

import pytest

from byteor.engine.compiler import compile_plan, locate, parse_plan
from tests.growth import assert_in_proportion

TEXT = """\
 {
  "plan_v": 1,
  "single_ring": {"stages": [
    {"id": "a",
     "op" : "identity"}, [[], [true, "é𝄞", null]],
    {"id": "b", "depends_on": ["a", "[{\\"]"]}
  ]},
  "a/b~c": {"": 5, "\\u0064\\"": -1.5e3},
  "0": 7
}"""


@pytest.mark.parametrize(
    ("pointer", "line", "column"),
    [
        ("", 1, 2),
        ("/plan_v", 2, 3),
        ("/single_ring", 3, 3),
        ("/single_ring/stages", 3, 19),
        ("/single_ring/stages/0", 4, 5),
        ("/single_ring/stages/0/op", 5, 6),
        ("/single_ring/stages/1", 5, 26),
        ("/single_ring/stages/1/0", 5, 27),
        ("/single_ring/stages/1/1/0", 5, 32),
        ("/single_ring/stages/1/1/1", 5, 38),
        ("/single_ring/stages/1/1/2", 5, 44),
        ("/single_ring/stages/2/depends_on/1", 6, 37),
        ("/a~1b~0c", 8, 3),
        ("/a~1b~0c/", 8, 13),
        ('/a~1b~0c/d"', 8, 20),
        ("/0", 9, 3),
    ],
)
def test_locate_finds_member_keys_and_item_starts(pointer: str, line: int, column: int) -> None:
    assert locate(TEXT, [pointer]) == {pointer: (line, column)}


@pytest.mark.parametrize(
    ("pointer", "line", "column"),
    [
        ("/nothing", 1, 2),
        ("/nothing/at/all", 1, 2),
        ("/plan_v/below/a/number", 2, 3),
        ("/single_ring/ingress", 3, 3),
        ("/single_ring/stages/3", 3, 19),
        ("/single_ring/stages/00", 3, 19),
        ("/single_ring/stages/-1/op", 3, 19),
        ("/single_ring/stages/2/op", 6, 5),
        ("/single_ring/stages/1/1/9", 5, 31),
        ("no pointer", 1, 2),
    ],
)
def test_locate_returns_nearest_existing_ancestor_if_pointer_leads_nowhere(
    pointer: str, line: int, column: int
) -> None:
    assert locate(TEXT, [pointer]) == {pointer: (line, column)}


def test_locate_returns_same_positions_for_pointers_together_and_separately() -> None:
    pointers = ["/single_ring/stages/2/id", "/0", "", "/single_ring", "/single_ring/stages/1/1/1", "/0", "/x/y"]

    assert locate(TEXT, pointers) == {pointer: locate(TEXT, [pointer])[pointer] for pointer in pointers}
    assert locate(TEXT, []) == {}


def test_locate_counts_carriage_returns_as_characters() -> None:
    assert locate('{\r\n "a": 1,\r\n\r\n "b": 2}', ["/a", "/b"]) == {"/a": (2, 2), "/b": (4, 2)}
    assert locate('{\r"a": 1}', ["/a"]) == {"/a": (1, 3)}


def test_locate_accepts_scalar_document() -> None:
    assert locate('\n "plan"', ["", "/name"]) == {"": (2, 2), "/name": (2, 2)}


@pytest.mark.parametrize("indent", [None, 2])
def test_locate_finds_every_pointer_of_plan(golden: Callable[[str], Any], indent: int | None) -> None:
    plan = golden("contract-graph")
    text = json.dumps(plan, indent=indent)
    places = {pointer: value for pointer, value in walk(plan, "") if pointer}

    found = locate(text, places)

    lines = text.split("\n")
    for pointer, value in places.items():
        line, column = found[pointer]
        key = pointer.rpartition("/")[2]
        expected = json.dumps(value)[:1] if key.isdigit() else f'"{key}": '
        assert lines[line - 1][column - 1 :].startswith(expected), pointer
    assert len(places) == 40


def walk(value: Any, pointer: str) -> Any:
    yield pointer, value
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    for key, child in members:
        yield from walk(child, f"{pointer}/{key}")


def test_locate_finds_diagnostic_lines(ring: Any) -> None:
    ring["single_ring"]["stages"][1]["op"] = "dataguard_chek"
    ring["single_ring"]["stages"][2]["depends_on"] = ["nobody"]
    ring["colour"] = "blue"
    text = json.dumps(ring, indent=1)
    pointers = [diagnostic.pointer for diagnostic in compile_plan(parse_plan(text)).diagnostics]

    found = locate(text, pointers)

    lines = text.split("\n")
    assert {pointer: lines[place.line - 1].strip() for pointer, place in found.items()} == {
        "/colour": '"colour": "blue"',
        "/single_ring/stages/1/op": '"op": "dataguard_chek",',
        "/single_ring/stages/2/depends_on/0": '"nobody"',
    }


@pytest.mark.parametrize(
    "text",
    [
        lambda size: "[" + "1," * (size // 2) + "1]",
        lambda size: "[" + "[]," * (size // 3) + "1]",
        lambda size: "[" + '"",' * (size // 3) + "1]",
        lambda size: "[" + '{"a":1},' * (size // 8) + "1]",
        lambda size: "{" + ",".join(f'"{number}":[]' for number in range(size // 12)) + "}",
        lambda size: '{"' + "\\n" * (size // 2) + '": [1, 2]}',
        lambda size: '{"' + "k" * (size // 2) + '": [' + "0," * (size // 4) + "0]}",
        lambda size: "[" + "\n" * size + "1]",
        lambda size: "[" * 64 + " " * size + "]" * 64,
    ],
    ids=["numbers", "lists", "strings", "objects", "members", "escapes", "long key", "lines", "depth"],
)
def test_locate_work_is_proportional_to_text_length(text: Callable[[int], str]) -> None:
    def work(size: int) -> None:
        pointers = ["/" + "k" * (size // 2) + "/5", *(f"/{number * (size // 800)}/a" for number in range(200))]
        assert len(locate(text(size), pointers)) == len(pointers)

    # ``assert_in_proportion`` does not count the work inside C functions. If that work were quadratic, the next line
    # would take hours.
    work(4 << 20)

    assert_in_proportion(work, 16 << 10)
