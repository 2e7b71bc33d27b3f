"""One module writes all audit events. Events that machines can repeat without limit are only counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from apps.tenancy.credentials import Family
from apps.tenancy.models import AuditEvent
from tests.laws.calls import operations, send_valid
from tests.laws.tenants import Tenants

ROOT = Path(__file__).parents[2]
# The only module that may create audit events, because it shortens their changes and counts repetitions.
OWNER = "apps/tenancy/services/audit.py"
WRITES = re.compile(r"\bAuditEvent\(|\bAuditEvent\.objects\.\w*create|INSERT\s+INTO\s+\"?tenancy_auditevent", re.I)
# The events that are recorded when agents and enrollment tokens call each of their writing operations once, and what
# limits the number of these events.
LIMITED = {
    "agent.enroll": "the uses of the token",
    "agent_key.create": "the uses of the token, or the rotations in an hour",
    "artifact.receive": "the artifacts, which are stored",
}


def test_audit_events_are_written_in_one_module() -> None:
    files = [*(ROOT / "apps").rglob("*.py"), *(ROOT / "byteor_cloud").rglob("*.py")]
    sources = {str(file.relative_to(ROOT)): file.read_text() for file in files}
    writing = {name for name, text in sources.items() if WRITES.search(text.replace("class AuditEvent(", ""))}

    assert {name for name in writing if "/migrations/" not in name} == {OWNER}


@pytest.mark.django_db
def test_agents_and_enrollment_tokens_record_only_events_whose_number_is_limited(tenants: Tenants) -> None:
    newest = AuditEvent.objects.latest("id").pk
    families = {Family.AGENT, Family.ENROLLMENT}

    for each in [each for each in operations() if each.method != "GET" and set(each.families) & families]:
        assert send_valid(each, tenants).status_code < 300, each

    found = AuditEvent.objects.filter(pk__gt=newest, actor_kind__in=["agent", "enrollment_token"])
    assert set(found.values_list("action", flat=True)) == LIMITED.keys()
