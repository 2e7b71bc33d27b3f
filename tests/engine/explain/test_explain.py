"""Why an agent runs what it runs, and what happens next: one case a line of the table, exact codes and times."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from byteor_cloud.engine.explain import explain
from byteor_cloud.engine.explain.findings import Because as B
from byteor_cloud.engine.explain.findings import Next as N
from tests.engine.explain.cases_coming import COMING
from tests.engine.explain.cases_ended import ENDED
from tests.engine.explain.cases_reached import REACHED
from tests.engine.explain.facts import (
    APPROVAL,
    CONSENT,
    NEW,
    NOW,
    OLD,
    SETTLED,
    Case,
    P,
    S,
    ago,
    facts,
    new,
    offer,
    old,
    part,
    runs,
)

CASES = [*REACHED, *COMING, *ENDED]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_explained(case: Case) -> None:
    told = explain(case.facts)

    assert told.summary == case.summary
    assert tuple(finding.code for finding in told.because) == case.because
    assert tuple((event.code, event.at and (event.at - NOW).total_seconds()) for event in told.next) == case.next


def test_the_table_has_every_code() -> None:
    """A code that no case yields is one that nobody has seen."""
    assert {code for case in CASES for code in case.because} == set(B)
    assert {code for case in CASES for code, _ in case.next} == set(N)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_sentence_is_one(case: Case) -> None:
    told = explain(case.facts)

    for sentence in (told.summary, *(each.detail for each in told.because), *(each.detail for each in told.next)):
        assert sentence == sentence.strip()
        assert sentence.endswith(".")
        assert not sentence.endswith("..")
        assert "None" not in sentence
        assert "_" not in sentence
    times = [event.at for event in told.next if event.at is not None]
    assert times == sorted(times)
    assert [event.at for event in told.next[len(times) :]] == [None] * (len(told.next) - len(times))


def test_findings_name_what_they_are_about() -> None:
    waiting = explain(facts(new(S.PENDING_APPROVAL, consent=CONSENT), old(), **SETTLED)).because[0]
    bad = explain(facts(old(part=None, known_bad="it failed", config_hash="sha256:1"))).because[1]
    by_itself = explain(facts(new(part=part(P.FAILED)), old(), offer=offer(NEW, P.FAILED), **runs(OLD))).because[1]

    assert (waiting.deployment_id, waiting.approval_id) == (NEW, APPROVAL)
    assert (bad.deployment_id, bad.config_hash) == (OLD, "sha256:1")
    assert (by_itself.code, by_itself.deployment_id) == (B.LOCAL_ROLLBACK, OLD)


@pytest.mark.parametrize(("silent_s", "word"), [(29, "due"), (30, "due"), (31, "overdue")])
def test_a_heartbeat_is_due_or_overdue(silent_s: int, word: str) -> None:
    told = explain(facts(old(), **SETTLED, last_seen_at=ago(silent_s)))

    assert (told.next[0].code, told.next[0].detail) == (N.HEARTBEAT, f"Its next heartbeat is {word}.")


def test_an_older_deployment_that_ended_says_nothing() -> None:
    """Only what came after the offer that holds."""
    ended = replace(new(S.FAILED, part=part(P.PENDING, 1), reason="aborted"), id=UUID(int=1))

    codes = [finding.code for finding in explain(facts(old(), ended, **SETTLED)).because]

    assert codes == [B.RUNS_DESIRED, B.TARGET_ALL]


def test_a_restored_deployment_that_never_had_the_agent_is_not_offered_to_it_again() -> None:
    told = explain(
        facts(
            new(S.ROLLED_BACK, part=part(P.ROLLED_BACK)),
            old(part=None),
            offer=offer(NEW, P.ROLLED_BACK, source=OLD),
            **runs(OLD),
        )
    )

    assert [finding.code for finding in told.because] == [B.ROLLED_BACK, B.RUNS_DESIRED, B.TARGET_ALL]
