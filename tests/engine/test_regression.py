"""Keys of verdicts, merged groups of differences, and the summary in Markdown."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from byteor.engine import regression
from byteor.engine.regression import MAX_GROUPS, MAX_NAMED, MergedGroups, describe_group, summarize, verdict_key
from byteor.engine.replay import FixtureOutcome

GOLDEN = {"egress": {"out": {"records": 1, "sha256": "sha256:1"}}, "stop": None, "actions": "sha256:2"}


def test_verdict_key_changes_with_each_of_its_inputs() -> None:
    base: dict[str, Any] = {
        "content_hash": "sha256:c",
        "journal_lane": None,
        "last_n": None,
        "golden": None,
        "candidate": "sha256:a",
        "baseline": "sha256:b",
        "engine": "sha256:e",
    }
    others: dict[str, list[Any]] = {
        "content_hash": ["sha256:d"],
        "journal_lane": ["in", ""],
        "last_n": [1, 2],
        "golden": [
            GOLDEN,
            {**GOLDEN, "egress": {}},
            {**GOLDEN, "stop": {"stage": "s", "sequence": 1, "ingress": "in"}},
            {**GOLDEN, "actions": "sha256:3"},
        ],
        "candidate": ["sha256:b"],
        "baseline": ["sha256:a", None],
        "engine": ["sha256:f"],
    }

    keys = [verdict_key(**base | {name: value}) for name, values in others.items() for value in values]
    keys += [verdict_key(**base), verdict_key(**base | {"candidate": "sha256:b", "baseline": "sha256:a"})]

    assert set(others) == set(base)
    assert all(one != other for one, other in combinations(keys, 2))
    assert verdict_key(**base | {"golden": GOLDEN}) == verdict_key(**base | {"golden": dict(reversed(GOLDEN.items()))})
    text = (
        b'{"baseline":"sha256:b","candidate":"sha256:a","engine":"sha256:e","fixture":{"content_hash":"sha256:c",'
        b'"expect":"same","journal_lane":null,"last_n":null}}'
    )
    assert verdict_key(**base) == "sha256:" + hashlib.sha256(text).hexdigest()


def group(id: int | str, count: int = 1, **values: Any) -> dict[str, Any]:
    return {
        "id": str(id), "egress": "out", "kind": "changed", "pointers": ["/a"], "code": None, "count": count, **values
    }  # fmt: skip


@pytest.mark.parametrize("most", [3, MAX_GROUPS])
@pytest.mark.parametrize("seed", range(20))
def test_merged_groups_equal_those_of_reference_implementation(
    monkeypatch: pytest.MonkeyPatch, seed: int, most: int
) -> None:
    monkeypatch.setattr(regression, "MAX_GROUPS", most)
    chosen = random.Random(seed)
    verdicts = [
        (
            f"v{number}",
            [group(id, chosen.randint(1, 9)) for id in chosen.sample(range(6), chosen.randint(0, 4))],
            chosen.choice([0, 0, 5]),
            chosen.choice([(f"f{at}", f"name {at}") for at in range(8)]),
            chosen.choice(["sha256:1", "sha256:2", None]),
        )
        for number in range(30)
    ]

    merged = MergedGroups()
    for verdict, groups, more, fixture, baseline in verdicts:
        merged.add(verdict, groups, more, fixture=fixture, baseline=baseline)

    rows = [(row, each["id"], each["count"]) for row in verdicts for each in row[1]]
    listed = list(dict.fromkeys(id for _, id, _ in rows))[:most]
    totals = Counter[str]()
    for _, id, count in rows:
        totals[id] += count
    expected = []
    for id in sorted(listed, key=lambda each: (-totals[each], each)):
        mine = [(row, count) for row, other, count in rows if other == id]
        by_baseline = Counter[str | None]()
        for row, count in mine:
            by_baseline[row[4]] += count
        names = dict(row[3] for row, _ in mine)
        expected.append({
            "id": id, "egress": "out", "kind": "changed", "pointers": ["/a"], "code": None, "count": totals[id],
            "baselines": [{"config_hash": name, "count": count} for name, count in by_baseline.items()],
            "fixture_count": len(names),
            "fixtures": [{"id": key, "name": name} for key, name in list(names.items())[:MAX_NAMED]],
            "verdict_id": mine[0][0][0],
        })  # fmt: skip
    assert merged.as_json() == expected
    assert merged.more == sum(row[2] for row in verdicts) + sum(
        count for id, count in totals.items() if id not in listed
    )


def shown(count: int, *names: str, fixtures: int | None = None, **values: Any) -> dict[str, Any]:
    """Return a merged group of ``count`` differences that lists these fixtures, of ``fixtures`` in total."""
    listed = [{"id": name, "name": name} for name in names]
    return {**group("1", count), **values, "fixtures": listed, "fixture_count": fixtures or len(listed)}


def summary(**values: Any) -> str:
    given: dict[str, Any] = {
        "candidate": "orders 4",
        "status": "passed",
        "outcomes": {FixtureOutcome.EQUAL: 1},
        "reasons": {},
        "baselines": [],
        "not_tested": [],
        "groups": [],
        "more": 0,
        "work": (0, 0),
        "error": None,
    }
    return summarize(**given | values)


def test_summary_lists_baselines_and_groups() -> None:
    found = summary(
        status="differs",
        outcomes={FixtureOutcome.DIFFERENT: 2, FixtureOutcome.EQUAL: 1_205, FixtureOutcome.NOT_TESTED: 1},
        baselines=[{"config_hash": "sha256:0a", "agents": 1_200, "share": 0.75}],
        not_tested=[{"config_hash": "sha256:0b", "agents": 1}, {"config_hash": None, "agents": 399}],
        groups=[
            shown(1_234, "incident 1", "incident 2", "a", "b", "c", fixtures=7, pointers=["/price", "/items/*/id"]),
            shown(3, "incident 1", kind="missing", pointers=[], code="schema"),
            shown(2, "incident 1", kind="extra", pointers=[]),
            shown(2, "incident 1", kind="bytes", pointers=[]),
            shown(1, "incident 1", kind="stop", egress=None, pointers=[], code="rejected"),
            shown(1, "incident 1", kind="action", egress=None, pointers=[], code="http_post"),
        ],
        more=1,
        work=(12_500, 10_000),
    )

    assert (
        found
        == """\
### `orders 4`: differences found

1,208 verdicts: 1,205 equal, 2 different, 1 not tested.

| compared with | agents | share |
| --- | ---: | ---: |
| `sha256:0a` | 1,200 | 75.0% |

400 agents run a configuration that was not tested.

| the candidate | differences | fixtures |
| --- | ---: | --- |
| changes `/price`, `/items/*/id` in `out` | 1,234 | `incident 1`, `incident 2`, `a`, `b`, `c` and 2 more |
| no longer outputs records to `out` (`schema`) | 3 | `incident 1` |
| newly outputs records to `out` | 2 | `incident 1` |
| changes the bytes of `out` | 2 | `incident 1` |
| stops differently (`rejected`) | 1 | `incident 1` |
| has other side effects (`http_post`) | 1 | `incident 1` |

1 further difference is in no group.

Work: 12,500 units, +25% compared with the baselines.
"""
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "### `orders 4`: no differences\n\n1 verdict: 1 equal.\n"),
        (
            {"outcomes": {}},
            "### `orders 4`: nothing was tested\n\n"
            "There were no fixtures to test, or no agent ran a configuration to compare with.\n",
        ),
        (
            {"outcomes": {FixtureOutcome.NOT_TESTED: 2}, "reasons": {"no | op": 2}},
            "### `orders 4`: nothing was tested\n\n2 verdicts: 2 not tested.\n\n"
            "| reason | verdicts |\n| --- | ---: |\n| `no \\| op` | 2 |\n",
        ),
        (
            {"status": "failed", "outcomes": {}, "error": "killed\n`10` times"},
            "### `orders 4`: the test failed\n\n``killed `10` times``\n",
        ),
        ({"status": "cancelled", "error": "canceled"}, "### `orders 4`: the test was canceled\n\n`canceled`\n\n"
         "1 verdict: 1 equal.\n"),
    ],
)  # fmt: skip
def test_summary_without_groups_shows_status_verdicts_reasons_and_error(values: dict[str, Any], expected: str) -> None:
    assert summary(**values) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a|b", r"`a\|b`"),
        ("a `b` c", "``a `b` c``"),
        ("`", "`` ` ``"),
        ("a ``` b", "````a ``` b````"),
        ("<b>&amp;</b> @team #1", "`<b>&amp;</b> @team #1`"),
        ("one\r\ntwo\n\n| x |", r"`one  two  \| x \|`"),
        ("\u202eevil\u2066", "`  evil  `"),
        ("\ud800\0", "`    `"),
        ("", "`  `"),
        ("x" * 81, f"`{'x' * 79}…`"),
    ],
)
def test_summary_shows_names_with_markup_as_code(name: str, expected: str) -> None:
    found = summary(candidate=name, groups=[shown(1, name, egress=name, pointers=[name, ""])])

    assert found == (
        f"### {expected}: no differences\n\n1 verdict: 1 equal.\n\n"
        "| the candidate | differences | fixtures |\n| --- | ---: | --- |\n"
        f"| changes {expected if name else 'the record'}, the record in {expected} | 1 | {expected} |\n"
    )


def test_summary_with_many_long_names_fits_into_comment_on_pull_request() -> None:
    name = "`" * 4096
    groups = [shown(1, *[name] * 5, pointers=[name] * 64)] * 1_000
    baselines = [{"config_hash": f"sha256:{'0' * 64}", "agents": 1, "share": 0.001}] * 1_000

    found = summary(groups=groups, baselines=baselines, error=name)

    assert len(found) < 65_536
    assert "\n\n… and 980 more groups." in found
    assert "\n\n… and 980 more configurations." in found
    assert " and 59 more in `out` |" in found
    assert describe_group(groups[0]).endswith(" and 59 more in `out`")
