"""Explanations of agents, case by case, with the exact codes and times."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from byteor.engine.explain import explain
from byteor.engine.explain.facts import ActionFacts, Facts, RunningFacts
from byteor.engine.explain.findings import BecauseCode as B
from byteor.engine.explain.findings import NextCode as N
from tests.engine.explain.cases_ended import ENDED
from tests.engine.explain.cases_pending import HELD, PENDING
from tests.engine.explain.cases_reached import REACHED
from tests.engine.explain.facts import (
    APPROVAL,
    APPROVAL_ID,
    NEW,
    NOW,
    OLD,
    SETTLED,
    Case,
    P,
    S,
    ago,
    enlistment,
    facts,
    new,
    offer,
    old,
    runs,
)

CASES = [*REACHED, *PENDING, *ENDED]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_explain_returns_expected_summary_reasons_and_events(case: Case) -> None:
    explanation = explain(case.facts)

    assert explanation.summary == case.summary
    assert tuple(finding.code for finding in explanation.because) == case.because
    assert tuple((event.code, event.at and (event.at - NOW).total_seconds()) for event in explanation.next) == case.next


UNKNOWN = RunningFacts(None, "sha256:" + "f" * 64)
SUPERSEDED = new(S.ACTIVE, enlistment=enlistment(P.FAILED))


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        (facts(old(), **SETTLED), "It keeps running its current bundle."),
        (facts(SUPERSEDED, offer=offer(NEW, P.FAILED), **runs(NEW)), "It keeps running its current bundle."),
        (facts(), "It runs nothing."),
        (facts(SUPERSEDED, offer=offer(NEW, P.FAILED)), "It runs nothing."),
        (
            facts(SUPERSEDED, old(), offer=offer(NEW, P.FAILED), **runs(OLD)),
            "It runs quotes/one, although it should run quotes/two.",
        ),
        (facts(running=UNKNOWN), "It runs an unknown bundle (sha256:ffffffffff…), although nothing is offered to it."),
        (
            facts(
                new(S.ROLLING_BACK, is_current=True, enlistment=enlistment(P.FAILED)),
                old(is_current=False),
                offer=offer(NEW, P.FAILED, source=OLD),
                **runs(NEW),
            ),
            "It runs quotes/two, although it should run quotes/one.",
        ),
    ],
)
def test_explanation_without_planned_changes_states_what_agent_runs(known: Facts, sentence: str) -> None:
    events = {event.code: event.detail for event in explain(known).next}

    assert events[N.NOTHING] == f"No change is planned. {sentence}"


@pytest.mark.parametrize("current", [True, False])
def test_retry_in_active_deployment_is_announced_only_while_deployment_is_current(current: bool) -> None:
    owner = new(S.ACTIVE, is_current=current, enlistment=enlistment(P.FAILED))

    events = {event.code: event.detail for event in explain(facts(owner, offer=offer(NEW, P.FAILED))).next}

    retry = "It tries again only when somebody retries the deployment of quotes/two."
    assert events.get(N.RETRY) == (retry if current else None)
    assert (N.NOTHING in events) is not current


@pytest.mark.parametrize("failed_before", [True, False])
def test_offer_after_activation_is_explained_as_retry_only_if_agent_failed_before(failed_before: bool) -> None:
    owner = old(
        enlistment=enlistment(P.OFFERED, counted=False, offered=60, failed_before=failed_before),
        actions={"retry": ActionFacts("bob", ago(90), "disk replaced")},
    )

    codes = {each.code for each in explain(facts(owner, offer=offer(OLD, P.OFFERED))).because}

    assert (B.RETRIED in codes) is failed_before


def test_explanation_test_cases_cover_every_reason_and_event_code() -> None:
    """Check that no code is left untested."""
    assert {code for case in CASES for code in case.because} == set(B)
    assert {code for case in CASES for code, _ in case.next} == set(N)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_explanation_sentences_end_with_one_period_and_events_are_sorted_by_time(case: Case) -> None:
    explanation = explain(case.facts)

    for sentence in (
        explanation.summary,
        *(each.detail for each in explanation.because),
        *(each.detail for each in explanation.next),
    ):
        assert sentence == sentence.strip()
        assert sentence.endswith(".")
        assert not sentence.endswith("..")
        assert "None" not in sentence
        assert "_" not in sentence
    times = [event.at for event in explanation.next if event.at is not None]
    assert times == sorted(times)
    assert [event.at for event in explanation.next[len(times) :]] == [None] * (len(explanation.next) - len(times))


def test_findings_refer_to_their_deployment_approval_and_config_hash() -> None:
    waiting = explain(facts(new(S.PENDING_APPROVAL, approval=APPROVAL), old(), **SETTLED)).because[1]
    bad = explain(facts(old(enlistment=None, known_bad="it failed", config_hash="sha256:1"))).because[1]
    local_rollback = explain(
        facts(new(enlistment=enlistment(P.FAILED)), old(), offer=offer(NEW, P.FAILED), **runs(OLD))
    ).because[1]

    held = explain(facts(new(**HELD), old(), **SETTLED))

    assert (held.because[2].code, held.because[2].approval_id) == (B.WAITS_FOR_HOLD, APPROVAL_ID)
    assert held.next[-1].detail == "When the hold ends, wave 3 of quotes/two can start."
    assert (waiting.deployment_id, waiting.approval_id) == (NEW, APPROVAL_ID)
    assert (bad.deployment_id, bad.config_hash) == (OLD, "sha256:1")
    assert (local_rollback.code, local_rollback.deployment_id) == (B.LOCAL_ROLLBACK, OLD)


@pytest.mark.parametrize(("silent_s", "word"), [(29, "due"), (31, "due"), (60, "due"), (61, "overdue")])
def test_heartbeat_is_overdue_after_two_intervals(silent_s: int, word: str) -> None:
    explanation = explain(facts(old(), **SETTLED, last_seen_at=ago(silent_s)))

    assert (explanation.next[0].code, explanation.next[0].detail) == (N.HEARTBEAT, f"Its next heartbeat is {word}.")


def test_stopped_deployment_older_than_current_offer_is_not_mentioned() -> None:
    ended = replace(new(S.FAILED, enlistment=enlistment(P.PENDING, 1), reason="aborted"), id=UUID(int=1))

    codes = [finding.code for finding in explain(facts(old(), ended, **SETTLED)).because]

    assert codes == [B.RUNS_DESIRED, B.TARGET_ALL]


def test_rolled_back_agent_is_not_promised_offer_of_restored_deployment() -> None:
    explanation = explain(
        facts(
            new(S.ROLLED_BACK, enlistment=enlistment(P.ROLLED_BACK)),
            old(enlistment=None),
            offer=offer(NEW, P.ROLLED_BACK, source=OLD),
            **runs(OLD),
        )
    )

    assert [finding.code for finding in explanation.because] == [B.ROLLED_BACK, B.RUNS_DESIRED, B.TARGET_ALL]
