"""The rules of the replay gate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from byteor.engine.machines import RegressionStatus as S
from byteor.engine.replay_gate import GateFacts, find_gate_blockers

PASSED = GateFacts(S.PASSED, verdicts=2, work=(100, 100))
DIFFERS = replace(PASSED, status=S.DIFFERS)
AGAIN = "Request another one for the config bundle."


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (PASSED, {}),
        (replace(DIFFERS, unaccepted=0), {}),
        (GateFacts(S.QUEUED), {"running": "The regression has not finished. It has not started."}),
        (
            GateFacts(S.RUNNING, progress=(12, 4000), min_verdicts=3),
            {"running": "The regression has not finished. 12 of 4,000 results are known."},
        ),
        (replace(DIFFERS, unaccepted=1), {"differs": "1 group of differences is not accepted."}),
        (
            replace(DIFFERS, unaccepted=2, more=1),
            {
                "differs": "2 groups of differences are not accepted. "
                "1 further difference is in no group and cannot be accepted."
            },
        ),
        (
            replace(DIFFERS, status=S.FAILED, failed=1, unaccepted=1),
            {
                "failed": '1 verdict is "failed" or "unstable".',
                "differs": "1 group of differences is not accepted.",
            },
        ),
        (
            GateFacts(None),
            {
                "failed": "The regression was deleted, or was completed by a worker of an older release. Another one "
                "is requested automatically."
            },
        ),
        (GateFacts(S.CANCELLED, error="canceled", min_verdicts=1), {"failed": f"The regression was canceled. {AGAIN}"}),
        (GateFacts(S.FAILED, error="it died"), {"failed": f"The regression could not be completed. {AGAIN}"}),
        (replace(PASSED, work=(110, 100), max_work_increase_percent=10), {}),
        (replace(PASSED, work=(111, 100)), {}),
        (replace(PASSED, work=(111, 0), max_work_increase_percent=10), {}),
        (
            replace(PASSED, work=(111, 100), max_work_increase_percent=10),
            {"failed": "The candidate needs 11.0% more work than the baselines. At most 10% more is permitted."},
        ),
        (replace(PASSED, min_verdicts=2), {}),
        (
            replace(PASSED, verdicts=1, min_verdicts=2),
            {"too_few_fixtures": 'The regression has 1 verdict other than "not tested", and at least 2 are required.'},
        ),
    ],
)
def test_gate_reports_all_reasons_for_blocking_deployment(facts: GateFacts, found: dict[str, str]) -> None:
    assert {each.code.removeprefix("replay_gate."): each.detail for each in find_gate_blockers(facts)} == found
