"""Tests of the decisions of simulated agents, without sockets or waiting."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from byteor_cloud.simulator.planner import ActionKind, Machine, Planner, ServerResponse
from byteor_cloud.simulator.scenarios import HERD_WITHIN_S, Scenario, Setup, choose_traits, first_beat_s

HASH, SPEC = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
OFFER: dict[str, Any] = {
    "deployment_id": "d-1",
    "action": "activate",
    "bundle_hash": HASH,
    "offered_at": "2026-11-24T10:00:00Z",
    "bundle_url": "/api/v1/agents/a/deployment/bundle?hash=x",
}
MANIFEST = {"predicate": {"deployment_id": "d-1", "spec_hash": SPEC}}
ENVELOPE = {"payload": base64.b64encode(json.dumps(MANIFEST).encode()).decode()}
OK = ServerResponse(200, {"accepted": True})


def setup(scenario: Scenario = Scenario.STEADY, **changes: Any) -> Setup:
    given: dict[str, Any] = {"seed": 7, "agents": 200, "seconds": 100.0, "interval_s": 10.0, **changes}
    return Setup(scenario, **given)


def beat(desired: dict[str, Any] | None = None, next_s: float = 10.0) -> ServerResponse:
    return ServerResponse(200, {"next_heartbeat_s": next_s, "desired": desired})


def play(planner: Planner, machine: Machine, responses: list[ServerResponse], now: float = 0.0) -> float | None:
    """Feed the machine these responses in order. Return the time of its next action, if any."""
    at: float | None = now
    for response in responses:
        assert at is not None
        at = planner.after(machine, response, at)
    return at


def history(scenario: Scenario, **changes: Any) -> list[tuple[int, float | None, str]]:
    """Return the heartbeats of a small fleet in 100 simulated seconds if every response is 200."""
    planner = Planner(setup(scenario, agents=20, **changes))
    happened: list[tuple[int, float | None, str]] = []
    due: list[tuple[float, Machine]] = [(planner.first(machine), machine) for machine in planner.machines]
    while due:
        due.sort(key=lambda entry: (entry[0], entry[1].number))
        now, machine = due.pop(0)
        happened.append((machine.number, now, planner.beat_body(machine, now)["status"]))
        at = planner.after(machine, beat(), now)
        if at is not None and at < 100:
            due.append((at, machine))
    return happened


@pytest.mark.parametrize("scenario", [each for each in Scenario if each is not Scenario.POLL])  # its agents also poll
def test_simulations_with_equal_seeds_make_equal_decisions(scenario: Scenario) -> None:
    assert history(scenario) == history(scenario)
    assert history(scenario) != history(scenario, seed=8)


def test_first_heartbeats_are_spread_over_interval_or_herd_period() -> None:
    steady = [first_beat_s(setup(interval_s=40.0, interval_scale=0.5), number) for number in range(200)]
    herd = [first_beat_s(setup(Scenario.HERD, interval_s=300.0), number) for number in range(200)]

    for times, within in ((steady, 20.0), (herd, HERD_WITHIN_S)):
        assert 0 <= min(times) < within * 0.1
        assert within * 0.9 < max(times) < within
        assert sum(time < within / 2 for time in times) == pytest.approx(100, abs=25)


def test_agent_follows_requested_interval_and_is_healthy_at_second_heartbeat() -> None:
    planner = Planner(setup(agents=1))
    (machine,) = planner.machines

    assert planner.beat_body(machine, 0.0)["status"] == "starting"
    assert planner.after(machine, beat(next_s=31.5), 1.0) == 32.5
    assert planner.unhealthy == 1
    assert planner.beat_body(machine, 0.0)["status"] == "healthy"
    assert planner.after(machine, beat(next_s=9.5), 32.5) == 42.0
    assert planner.unhealthy == 0


def test_interval_scale_shortens_heartbeat_interval_but_not_retry_after() -> None:
    planner = Planner(setup(agents=1, interval_scale=0.1))
    (machine,) = planner.machines

    assert planner.after(machine, beat(next_s=30.0), 0.0) == 3.0
    at = planner.after(machine, ServerResponse(503, retry_after_s=20.0), 3.0)
    assert at is not None
    assert 23.0 + 0.5 <= at <= 23.0 + 5.0


def test_maximum_retry_delay_doubles_up_to_60_seconds_and_resets_after_success() -> None:
    planner = Planner(setup(agents=1))
    (machine,) = planner.machines
    play(planner, machine, [beat(), beat()])
    assert planner.unhealthy == 0

    delays = [planner.after(machine, ServerResponse(0), 0.0) for _ in range(10)]
    assert planner.unhealthy == 1
    for number, delay in enumerate(delays):
        longest = min(60, 2**number)
        assert delay is not None
        assert 0.1 * longest <= delay <= longest
    assert planner.after(machine, beat(), 0.0) == 10.0
    assert planner.unhealthy == 0
    again = planner.after(machine, ServerResponse(500), 0.0)
    assert again is not None
    assert again <= 1.0


@pytest.mark.parametrize("status", [401, 403, 404])
def test_agent_stops_after_401_403_or_404(status: int) -> None:
    planner = Planner(setup(agents=1))
    (machine,) = planner.machines
    play(planner, machine, [beat(), beat()])

    assert planner.after(machine, ServerResponse(status), 0.0) is None
    assert (planner.unhealthy, planner.permanently_refused) == (1, 1)


def test_rejected_body_is_not_resent_immediately() -> None:
    planner = Planner(setup(agents=1))

    at = planner.after(planner.machines[0], ServerResponse(400, {"detail": "Unknown field."}), 0.0)

    assert at is not None
    assert at > 0


def accept(planner: Planner, machine: Machine, offer: dict[str, Any]) -> list[tuple[str, str]]:
    """Let a machine handle an offer that is not withdrawn. Return its actions and reports."""
    actions: list[tuple[str, str]] = []
    at = planner.after(machine, beat(offer), 0.0)
    while at is not None and machine.action is not ActionKind.BEAT:
        actions.append((machine.action, (machine.report or "") if machine.action is ActionKind.REPORT else ""))
        is_fetch = machine.action is ActionKind.FETCH
        at = planner.after(
            machine, ServerResponse(200, {"desired": {**offer, "envelope": ENVELOPE}}) if is_fetch else OK, at
        )
    return actions


def test_offer_is_fetched_downloaded_reported_and_shown_in_heartbeats() -> None:
    planner = Planner(setup(agents=1))
    (machine,) = planner.machines

    assert accept(planner, machine, OFFER) == [
        ("offer", ""),
        ("report", "downloading"),
        ("bundle", ""),
        ("report", "activating"),
        ("report", "active"),
    ]
    assert planner.activated == 1
    assert planner.beat_body(machine, 0.0)["active"] == {
        "deployment_id": "d-1",
        "bundle_hash": HASH,
        "spec_hash": SPEC,
    }
    assert planner.after(machine, beat(OFFER), 5.0) == 15.0  # the same offer is not handled again
    assert accept(planner, machine, {**OFFER, "offered_at": "2026-11-24T11:00:00Z"})[-1] == ("report", "active")
    assert accept(planner, machine, {**OFFER, "action": "rollback"})[-1] == ("report", "rolled_back")


def test_agent_chosen_to_fail_fails_only_first_attempt_and_recovers() -> None:
    planner = Planner(setup(Scenario.ROLLOUT, failing_percent=20.0))
    outcomes = [accept(planner, machine, OFFER)[-1][1] for machine in planner.machines]
    failed = [machine for machine, outcome in zip(planner.machines, outcomes, strict=True) if outcome == "failed"]

    assert len(failed) == planner.failed_on_purpose == pytest.approx(40, abs=15)
    first = failed[0]
    assert planner.beat_body(first, 0.0)["status"] == "failed"
    play(planner, first, [beat(OFFER), beat(OFFER), beat(OFFER)])
    assert planner.beat_body(first, 0.0)["status"] == "healthy"
    assert first.is_healthy
    assert accept(planner, first, {**OFFER, "offered_at": "2026-11-24T11:00:00Z"})[-1] == ("report", "active")


def test_failing_percent_is_ignored_outside_rollout_scenario() -> None:
    planner = Planner(setup(failing_percent=100.0))

    assert {accept(planner, machine, OFFER)[-1][1] for machine in planner.machines} == {"active"}


@pytest.mark.parametrize("refused_at", range(5))
def test_withdrawn_offer_is_not_retried(refused_at: int) -> None:
    planner = Planner(setup(agents=1))
    (machine,) = planner.machines
    fetched = ServerResponse(200, {"desired": {**OFFER, "envelope": ENVELOPE}})
    refusal = ServerResponse(409) if refused_at else ServerResponse(200, {"desired": None})

    at = play(planner, machine, [*[beat(OFFER), fetched, OK, OK, OK][: refused_at + 1], refusal])

    assert machine.action is ActionKind.BEAT
    assert planner.withdrawn == 1
    assert at is not None
    assert at <= 3.0
    assert planner.after(machine, beat(OFFER), 20.0) == 30.0


def test_flapping_agents_become_stale_and_recover() -> None:
    planner = Planner(setup(Scenario.FLAPPING, seconds=1000.0))
    chosen = [machine for machine in planner.machines if machine.traits.flaps]
    assert len(chosen) == pytest.approx(40, abs=15)

    longest, now = 0.0, 0.0
    machine = chosen[0]
    while now < 600:
        at = planner.after(machine, beat(), now)
        assert at is not None
        longest = max(longest, at - now)
        now = at
    assert machine.boots > 1
    assert longest > 30  # more than three intervals: stale
    assert now <= 610  # the machine is up again within one interval after the trouble ended
    boots = machine.boots
    play(planner, machine, [beat()] * 10, now)
    assert machine.boots == boots
    assert machine.is_healthy


def test_boot_id_is_sent_only_if_server_accepts_it_and_changes_at_each_start() -> None:
    planner = Planner(setup(Scenario.FLAPPING, agents=1), sends_boot_id=True)
    (machine,) = planner.machines
    first = planner.beat_body(machine, 0.0)["boot_id"]
    play(planner, machine, [beat()] * 4)

    assert machine.boots == 1
    assert planner.beat_body(machine, 0.0)["boot_id"] != first
    assert "boot_id" not in Planner(setup()).beat_body(machine, 0.0)


def test_clones_share_key_but_not_boot_id_and_stop_when_trouble_ends() -> None:
    planner = Planner(setup(Scenario.CLONED), sends_boot_id=True)
    originals, clones = planner.machines[:200], planner.machines[200:]

    assert len(clones) == 10
    assert len({clone.agent for clone in clones}) == 10
    clone = clones[3]
    ids = [planner.beat_body(machine, 0.0)["boot_id"] for machine in (originals[clone.agent], clone)]
    assert ids[0] != ids[1]
    assert planner.after(clone, beat(), 59.0) == 69.0
    assert planner.after(clone, beat(), 60.0) is None
    assert planner.unhealthy == 200  # clones are not counted


def test_skewed_clocks_change_interval_and_uptime_is_never_negative() -> None:
    planner = Planner(setup(Scenario.CLOCK_SKEWED))
    waits = [planner.after(machine, beat(), 0.0) or 0.0 for machine in planner.machines]

    assert 10 / 1.2 <= min(waits) < 9
    assert 11 < max(waits) <= 10 / 0.8
    uptimes = [planner.beat_body(machine, 50.0)["uptime_s"] for machine in planner.machines]
    assert min(uptimes) == 0
    assert max(uptimes) > 40_000


@pytest.mark.parametrize("agents", [1, 2, 3])
@pytest.mark.parametrize("scenario", [Scenario.FLAPPING, Scenario.SLOW, Scenario.CLONED, Scenario.CLOCK_SKEWED])
def test_scenarios_with_special_agents_affect_even_smallest_fleets(scenario: Scenario, agents: int) -> None:
    made = setup(scenario, agents=agents)
    traits = [choose_traits(made, number) for number in range(agents)]

    assert made.clones or any(
        trait.flaps or trait.slow_send_s or trait.clock_offset_s or trait.clock_rate != 1 for trait in traits
    )


def test_agent_polls_until_heartbeat_is_due_and_is_told_of_new_offer_once() -> None:
    planner = Planner(setup(Scenario.POLL, agents=1))
    (machine,) = planner.machines
    nothing = ServerResponse(200, {"desired": None}, etag='"1"')
    offered = ServerResponse(200, {"desired": {**OFFER, "envelope": ENVELOPE}}, etag='"2"')

    assert play(planner, machine, [beat(next_s=20.0), nothing]) == 0.0
    assert (machine.action, machine.wait_s, machine.etag, planner.waiting) == (ActionKind.WAIT, 20, '"1"', 1)
    assert planner.after(machine, ServerResponse(304, retry_after_s=7.0), 5.0) == 12.0
    assert (machine.action, planner.turned_away, planner.waiting) == (ActionKind.WAIT, 1, 0)
    assert planner.after(machine, ServerResponse(304), 18.0) == 18.0
    assert machine.action is ActionKind.BEAT  # the heartbeat is sent two seconds early
    play(planner, machine, [beat(next_s=60.0), offered], 18.0)
    assert (machine.action, machine.etag, planner.told) == (ActionKind.REPORT, '"2"', 1)
    play(planner, machine, [OK, ServerResponse(200), OK, OK, beat(OFFER, next_s=60.0), offered], 19.0)
    assert (machine.action, machine.wait_s, planner.told) == (ActionKind.WAIT, 30, 1)
