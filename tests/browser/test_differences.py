"""The members of a record that differ, on the pages of a replay, of a comparison and of a bisect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, Page, expect

from apps.artifacts.services import bisects, replays
from tests.artifacts.incidents import frames, incident, ingested, journal
from tests.browser.axe import examine, prepare
from tests.browser.conftest import sign_in
from tests.browser.filled import row_page, signed_in
from tests.worlds import World, plan, run_jobs

WIDTHS = (1440, 1000, 390)
ORDER: dict[str, Any] = {
    "id": 4711, "account": "DE-1", "side": "buy", "currency": "EUR", "note": f"{'x' * 300} at par {'y' * 300}",
    "legs": [{"venue": "XETR", "price": 101.25}, {"venue": "XLON", "price": 99.5}],
    "flags": {"<i>\u202e": True, "a/b": {"c": {"d": {"e": [None, {"deep": [1, 2, 3]}]}}}},
    **{f"member_{number}": number for number in range(12)},
}  # fmt: skip
RULES = ["account:drop", "note:truncate=303", "legs.price:replace_with=0", "flags.a/b.c.d.e.deep:hash"]


def test_replay_and_bisect_pages_show_members_that_differ(world: World, page: Page, shot: Callable[..., None]) -> None:
    stages = {"copy": "identity", "mask": "dataguard_redact"}
    good, bad = (world.version(content=plan(stages=[{"id": id, "op": op}])) for id, op in stages.items())
    order = json.dumps(ORDER).encode()
    content = incident(
        bad.spec_kv, stage_config={"mask": {"rules": RULES}}, quotes_in=journal([order]), expected=frames((1, order))
    )
    artifact = ingested(world, content)
    request: Any = {"environment": world.dev, "actor": world.operator.actor}
    replay, other = (replays.request(artifact, version=version, **request) for version in (bad, good))
    run_jobs()
    bisect, compared = (bisects.request(artifact, predicate=each, **request) for each in ("diverges", other.pk))
    run_jobs()
    removed = ("\N{MINUS SIGN} removed", "/account", '"DE-1"', "-")
    price = ("~ changed", "/legs/0/price", "101.25", '"0"')
    sign_in(page, world.operator.user)

    # The page of the replay shows the members that differ, as captured and as replayed, with their pointers.
    page.goto(row_page(replay))
    divergence = page.locator("#divergence")
    title, *found = rows(divergence)
    assert title == ("Change", "Member", "Captured", "Replayed")
    assert found[:3] == [("… 1 equal member",), removed, ("… 2 equal members",)]
    assert found[3][2].startswith(f"…{'x' * 37} at par yyy")
    assert found[3][3] == f'…{"x" * 37} at"'
    assert divergence.locator(".members mark").all_inner_texts() == [f" par {'y' * 155}"]
    assert found[4:-1:2] == [("… 1 equal member",), ("… 1 equal member",), ("… 2 equal members",)]
    assert found[5] == price
    assert [row[:3] for row in found[-2:]] == [
        ("~ changed", "/flags/a~1b/c/d/e/1/deep", "[1, 2, 3]"),
        ("… 12 equal members",),
    ]
    shot(page, "difference-replay", widths=WIDTHS, full_page=True)
    divergence.get_by_text("Both records").click()
    expect(divergence.get_by_label("Captured record as JSON")).to_contain_text('"currency": "EUR"')

    # The comparison with another replay shows the same members.
    compare = f"{row_page(other)}?compare={replay.pk}"
    page.goto(compare)
    first = page.locator(".panel", has=page.get_by_role("heading", name="First difference"))
    assert rows(first) == [("Change", "Member", "This replay", "Other replay"), *found]
    shot(page, "difference-compared", widths=WIDTHS, full_page=True)

    # A bisect shows the difference at its first bad version.
    for each, titles in ((bisect, ("Captured", "Replayed")), (compared, (str(good), str(bad)))):
        page.goto(row_page(each))
        panel = page.locator(".panel", has=page.get_by_role("heading", name=f"Why {bad} is bad"))
        assert rows(panel) == [("Change", "Member", *titles), *found]
    shot(page, "difference-bisected", widths=WIDTHS, full_page=True)

    # Viewers see neither names nor values of members.
    for row in (replay, bisect, compared):
        hidden = signed_in(world.viewer.user).get(row_page(row)).text
        assert not [text for text in ("DE-1", "/account", "currency", "101.25") if text in hidden]

    prepare(page)
    assert [problem for path in (compare, row_page(bisect)) for problem in examine(page, path)] == []


def rows(panel: Locator) -> list[tuple[str, ...]]:
    """Return the texts of the cells of each row."""
    return [tuple(row.split("\t")) for row in panel.locator("table.members tr").all_inner_texts()]
