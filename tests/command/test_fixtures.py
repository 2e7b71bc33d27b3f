"""Tests of ``byteor fixtures`` and ``byteor regress``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.urls import reverse

from apps.artifacts.models import Fixture
from apps.releases.models import AcceptedDifference, ConfigBundle, Regression
from tests.artifacts.fixture_steps import RECORDS, STRICT, bundle, capture, kept
from tests.artifacts.kept import OTHER_MASK
from tests.command.conftest import Terminal
from tests.worlds import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, run_jobs: Callable[..., int]) -> None:
    """Run the waiting jobs whenever a command would sleep."""
    monkeypatch.setattr("byteor.command.waiting.sleep", lambda _: run_jobs())


@pytest.fixture
def now(world: World) -> ConfigBundle:
    """Create and return a config bundle, a capture of which is kept as the fixture ``cards``."""
    made = bundle(world, "now")
    kept(world, capture(world, made, RECORDS))
    return made


def test_fixture_is_listed_updated_and_deleted(terminal: Terminal, world: World, now: ConfigBundle) -> None:
    assert "cards  quotes    the baseline's result  never" in terminal("fixtures", "list").out
    assert terminal("fixtures", "list", "--expired").err == "No results.\n"
    terminal.use(str(world.project_admin.api.token), organization="acme", project="trading", environment="dev")

    updated = terminal("fixtures", "update", "cards", "--note", "Cards", "--no-owner", "--expires", "2999-01-31")
    assert updated == (0, "Updated fixture cards\n", "")
    fixture = Fixture.objects.get()
    assert (fixture.note, fixture.owner) == ("Cards", None)
    assert "Expires:  2999-01-31 00:00 UTC" in terminal("fixtures", "show", "cards").out
    assert terminal("fixtures", "update", "cards", "--expires", "2999-01-31", "--never-expires").code == 2
    assert terminal("fixtures", "update", "cards").code == 2

    assert terminal("fixtures", "delete", "cards").code == 2
    assert Fixture.objects.count() == 1
    assert terminal("fixtures", "delete", "cards", "--yes") == (0, "Deleted fixture cards\n", "")
    assert Fixture.objects.count() == 0


@pytest.mark.usefixtures("jobs")
def test_regression_shows_and_accepts_differences(terminal: Terminal, world: World, now: ConfigBundle) -> None:
    bundle(world, "changed", STRICT, OTHER_MASK)
    candidate = ("regress", "--bundle", "changed", "--against", "now")

    found = terminal(*candidate)

    assert found.code == 1
    assert found.out.startswith("Config bundle changed: 2 groups of differences on 1 of 1 fixture.\n")
    assert "Compared with config bundle now" in found.out
    rows = {row.split(maxsplit=3)[3]: row.split()[:3] for row in found.out.splitlines() if " cards " in row}
    assert {what: counts[1:] for what, counts in rows.items()} == {
        "changes /card in quotes_out": ["3", "cards"],
        "no longer outputs records to quotes_out (schema)": ["1", "cards"],
    }
    assert "1234****90" not in found.out
    shown = terminal(*candidate, "--payloads").out
    assert '  before  {"id":1,"card":"12******90"}\n  after   {"id":1,"card":"1234****90"}\n' in shown

    groups = [ids[0] for ids in rows.values()]
    unknown = terminal(*candidate, "--accept", "ffffffffffff", "--reason", "Wanted")
    assert (unknown.code, AcceptedDifference.objects.count()) == (1, 0)
    one = terminal(*candidate, "--accept", groups[0], "--reason", "Wanted")
    assert (one.code, one.err.split("\n")[0]) == (1, "Accepted 1 group of differences.")
    both = terminal(*candidate, "--accept", groups[0], "--accept", groups[1], "--reason", "Wanted")
    assert both.code == 0
    assert {each[: len(groups[0])] for each in AcceptedDifference.objects.values_list("group", flat=True)} == set(
        groups
    )


@pytest.mark.usefixtures("jobs")
def test_markdown_links_to_console_and_has_no_records_by_default(
    terminal: Terminal, world: World, now: ConfigBundle
) -> None:
    bundle(world, "changed", STRICT, OTHER_MASK)
    arguments = ("regress", "--bundle", "changed", "--against", now.config_hash, "--markdown")

    found = terminal(*arguments)

    row = Regression.objects.get()
    assert found.code == 1
    assert found.out.startswith(row.summary)
    assert "- changes `/card` in `quotes_out`: record 1 of `quotes_in`, stage `redact`" in found.out
    assert f"]({terminal.url}{reverse('admin:releases_regression_change', args=[row.pk])})" in found.out
    assert "1234****90" not in found.out
    assert (
        '  - {"id":1,"card":"12******90"}\n  + {"id":1,"card":"1234****90"}' in terminal(*arguments, "--payloads").out
    )


@pytest.mark.usefixtures("jobs")
def test_version_and_draft_without_differences_pass(terminal: Terminal, world: World, now: ConfigBundle) -> None:
    found = terminal("regress", "--version", "quotes", "--against", "now")
    assert found.code == 0
    assert found.out.startswith("Version quotes:1: no differences on 1 fixture.\n")

    draft = terminal("drafts", "list", "--json", "name").json[0]["name"]
    tested = terminal("regress", "--draft", draft, "--against", "now", "--json", "status,fixtures")
    assert (tested.code, tested.json) == (0, {"status": "passed", "fixtures": 1})


def test_regression_is_pending_after_timeout_and_can_be_resumed(
    terminal: Terminal, now: ConfigBundle, run_jobs: Callable[..., int]
) -> None:
    found = terminal("regress", "--bundle", "now", "--against", "now", "--timeout", "0", "--json", "id,status")
    assert (found.code, found.json["status"]) == (8, "queued")
    assert f"`byteor regress --resume {found.json['id']}`" in found.err

    run_jobs()

    assert terminal("regress", "--resume", found.json["id"]).code == 0
    assert Regression.objects.count() == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--draft", "quotes", "--bundle", "now"],
        ["--bundle", "now", "--accept", "abcdef"],
        ["--draft", "quotes", "--accept", "abcdef", "--reason", "Wanted"],
        ["--bundle", "now", "--accept", "ab", "--reason", "Wanted"],
    ],
)
def test_invalid_arguments_request_no_regression(terminal: Terminal, arguments: list[str]) -> None:
    assert terminal("regress", *arguments).code == 2
    assert Regression.objects.count() == 0


@pytest.mark.usefixtures("jobs")
def test_regression_without_fixtures_says_that_nothing_was_tested(terminal: Terminal, world: World) -> None:
    bundle_without_fixtures = world.bundle(name="alone")

    found = terminal("regress", "--bundle", bundle_without_fixtures.name)

    assert found.code == 0
    assert "Nothing was tested" in found.out
