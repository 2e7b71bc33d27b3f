"""Live pages: except in ``still_template``, every number on the page is in a part that updates itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from django.utils.html import strip_tags

from apps.artifacts.models import Artifact
from apps.artifacts.services import bisects, replays
from apps.console.frame import LiveAdmin, site
from apps.releases.services import regressions
from tests.artifacts.incidents import incident, ingested, upload
from tests.browser.filled import row_page, signed_in
from tests.browser.waiting import approval_of, live, waiting
from tests.releases.stories import fleet, offered
from tests.worlds import World, plan, report, run_jobs

pytestmark = pytest.mark.django_db


def changing(world: World) -> Iterator[Any]:
    """Yield a row of each table with live pages, in a state that still changes."""
    [deployment] = waiting(world)
    yield deployment
    yield approval_of(deployment)
    yield deployment.environment
    yield world.agent()[0]
    world.version()
    artifact = ingested(world, incident(world.version(content=plan(stages=[{"id": "x", "op": "identity"}])).spec_kv))
    yield replays.request(artifact, environment=world.dev, actor=world.operator.actor)
    yield bisects.request(artifact, environment=world.dev, predicate="fails", actor=world.operator.actor)
    yield regressions.request(environment=world.dev, version=artifact.version, actor=world.operator.actor)
    yield artifact


def main_lines(client: Client, row: Any) -> set[str]:
    """Return the lines of the row page below its title, without the part of ``still_template``."""
    html = client.get(row_page(row)).content.decode().partition('id="content-main"')[2].partition("</main>")[0]
    changes, _, after = html.partition('<div class="still">')
    own, _, rest = after.partition(f'id="{row._meta.model_name}_form"')
    return text_lines(changes + own.partition('<div class="rest">')[2] + rest)


def text_lines(html: str) -> set[str]:
    return {line.strip() for line in strip_tags(html).splitlines()}


def related(client: Client, url: str) -> dict[str, str]:
    found = re.findall(r"<span>([^<]*)</span><b>([^<]*)</b>", client.get(url).content.decode())
    assert found
    return dict(found)


def test_live_update_contains_all_numbers_outside_static_part_of_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, shown = signed_in(world.operator.user), set()

    for row in changing(world):
        now = timezone.now()
        with monkeypatch.context() as frozen:
            frozen.setattr(timezone, "now", lambda now=now: now)
            still = main_lines(client, row) - text_lines(client.get(live(row)).content.decode())
        assert [line for line in still if re.search(r"\d", line)] == []
        shown.add(type(row))

    assert shown == {model for model, table in site._registry.items() if isinstance(table, LiveAdmin)}


def test_live_update_includes_counts_of_related_rows(world: World) -> None:
    [(agent, api)] = fleet(world, 1)
    deployment = offered(world, world.bundle())
    client = signed_in(world.viewer.user)
    before = related(client, row_page(deployment))
    assert report(api, agent, "downloading").status_code == 200

    after = related(client, live(deployment))

    assert after == related(client, row_page(deployment))
    assert after != before


def test_live_update_shows_journal_after_artifact_is_verified(world: World) -> None:
    agent, api = world.agent()
    content = incident(world.version().spec_kv)
    artifact = Artifact.objects.get(pk=upload(api, agent, content, kind="incident_bundle").json()["id"])
    client = signed_in(world.operator.user)
    while_received = client.get(live(artifact)).content.decode()
    run_jobs()

    at_last = client.get(live(artifact)).content.decode()

    assert ('class="still"' in while_received, "Journal of quotes_in" in at_last) == (False, True)
