"""A finished regression with many groups of differences. It is stored without replays, which would take minutes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from apps.artifacts.models import Fixture, RegressionResult, Verdict, VerdictExample
from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regression_queue
from byteor.engine.canonical import canonical
from byteor.engine.regression import MergedGroups, summarize
from byteor.engine.replay import FixtureOutcome
from byteor.engine.replay.json_difference import Kind
from byteor.engine.replay.shown_payload import show_payload

_RECORD = {"id": 1, "user": "us****-1", "bid": 19.99, "qty": 7, "venue": "XNAS", "tags": ["a", "b"], "note": "x" * 40}


def store_regression(
    candidate: ConfigBundle,
    baselines: list[ConfigBundle],
    fixtures: list[Fixture],
    *,
    groups: int,
    per_fixture: int = 1,
    outcomes: Mapping[int, tuple[FixtureOutcome, str | None]] | None = None,
    special: list[dict[str, Any]] | None = None,
) -> Regression:
    """Store a regression in which each fixture shows ``groups`` groups of differences, each ``per_fixture`` times.

    ``special`` are further groups, with their own counts. Fixtures have the outcome ``different`` unless ``outcomes``
    has another outcome for their position, with an error or None. Such fixtures show no groups. If the outcome is
    ``unstable``, the id of the unstable stage replaces the error.
    """
    environment = candidate.environment
    shown = [_group(number, per_fixture) for number in range(groups)] + (special or [])
    stored = [{name: each[name] for name in each if name != "example"} for each in shown]
    row = Regression.objects.create(
        environment=environment, pipeline=candidate.version.name, config_bundle=candidate,
        spec_kv=candidate.version.spec_kv, config_hash=candidate.config_hash, requested_by="test",
        baselines=[
            {"config_hash": each.config_hash, "config_bundle_id": str(each.pk), "version_id": str(each.version_id),
             "agents": 12 - number, "share": round((12 - number) / 30, 4)} for number, each in enumerate(baselines)
        ],
        not_tested=[{"config_hash": f"sha256:{number:064}", "agents": 1} for number in range(3)],
    )  # fmt: skip
    verdicts, results, merged = list[Verdict](), list[RegressionResult](), MergedGroups()
    tested: list[tuple[int, str, str, list[str]]] = []
    for baseline in baselines:
        for number, fixture in enumerate(fixtures):
            outcome, detail = (outcomes or {}).get(number, (FixtureOutcome.DIFFERENT, None))
            is_different, is_unstable = (
                outcome is each for each in (FixtureOutcome.DIFFERENT, FixtureOutcome.UNSTABLE)
            )
            verdict = Verdict(
                organization=environment.project.organization, key=f"{row.pk} {len(verdicts)}", outcome=outcome,
                groups=stored if is_different else [], error=None if is_unstable else detail,
                stage=detail if is_unstable else None,
            )  # fmt: skip
            verdicts.append(verdict)
            results.append(
                RegressionResult(
                    regression=row,
                    fixture_id=fixture.pk,
                    fixture_name=fixture.name,
                    baseline=baseline.config_hash,
                    outcome=outcome,
                    verdict=verdict,
                )
            )
            ids, _ = merged.add(
                str(verdict.pk), verdict.groups, 0, fixture=(str(fixture.pk), fixture.name),
                baseline=baseline.config_hash,
            )  # fmt: skip
            tested.append((number, baseline.config_hash, str(outcome), ids))
    Verdict.objects.bulk_create(verdicts, batch_size=50)
    RegressionResult.objects.bulk_create(results, batch_size=500)
    first = next(each for each in verdicts if each.groups)
    artifact = fixtures[0].artifact
    VerdictExample.objects.bulk_create(
        VerdictExample(verdict=first, group=each["id"], artifact=artifact, example=each["example"]) for each in shown
    )
    counts = {each: sum(result.outcome == each for result in results) for each in FixtureOutcome}
    found = merged.as_json()
    places = {each["id"]: number for number, each in enumerate(found)}
    tests = {
        "fixtures": [{"fixture_id": str(each.pk), "name": each.name} for each in fixtures],
        "results": [[number, *shown, [places[each] for each in ids], 0] for number, *shown, ids in tested],
    }
    Regression.objects.filter(pk=row.pk).update(
        status="failed" if outcomes else "differs", groups=found, tests=tests, fixtures=len(fixtures),
        computed=len(results), progress_done=len(results), progress_total=len(results), work_candidate=1_100_000,
        work_baseline=1_000_000,
        started_at=timezone.now(), finished_at=timezone.now(), outcomes={each: n for each, n in counts.items() if n},
        engine=regression_queue.engine_of(row),
        summary=summarize(
            candidate=str(candidate), status="differs", outcomes=counts, reasons={}, baselines=row.baselines,
            not_tested=row.not_tested, groups=found, more=0, work=(1_100_000, 1_000_000), error=None,
        ),
    )  # fmt: skip
    row.refresh_from_db()
    return row


def _group(number: int, count: int) -> dict[str, Any]:
    before, after = ({**_RECORD, "id": number, f"member_{number}": value} for value in (number, number + 1))
    return make_group(
        Kind.CHANGED, (f"/member_{number}",), count=count, before=json.dumps(before).encode(),
        after=json.dumps(after).encode(),
    )  # fmt: skip


def make_group(
    kind: Kind,
    pointers: tuple[str, ...] = (),
    *,
    egress: str | None = "out",
    code: str | None = None,
    count: int = 1,
    before: bytes | None = None,
    after: bytes | None = None,
) -> dict[str, Any]:
    """Return a group of differences with an example."""
    sides = {
        name: None if payload is None else show_payload(payload[: 16 * 1024], len(payload), has_bytes=False)
        for name, payload in (("before", before), ("after", after))
    }
    key = canonical([egress, kind, list(pointers), code])
    return {
        "id": hashlib.sha256(key).hexdigest(), "egress": egress, "kind": str(kind), "pointers": list(pointers),
        "code": code, "count": count,
        "example": {"ingress": "in", "sequence": 17, "stage": "redact", **sides},
    }  # fmt: skip
