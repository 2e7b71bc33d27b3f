"""The benchmark of ``verify_ledger``: audit events per CPU second, including the database's work."""

from __future__ import annotations

import io
import os
import resource
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection

EVENTS, ROUNDS = 100_000, 5
CHANGES = [
    {},
    {"status": ["approved", "building"]},
    {"name": [None, "quotes"], "posture": [None, "prod"], "settings": [None, {"approvals_required": True}]},
    {"comment": "Zeit für ein Größeres, \"ja\""},
]  # fmt: skip


def store_events(world: Any) -> None:
    """Create and seal audit events of the world's organization."""
    from apps.tenancy.models import AuditEvent
    from apps.tenancy.services import ledger
    from byteor_cloud.ids import uuid7

    began = datetime.now(UTC)
    for start in range(0, EVENTS, 10_000):
        AuditEvent.objects.bulk_create(
            AuditEvent(
                timestamp=began + timedelta(milliseconds=number, microseconds=number % 7),
                organization=world.organization,
                project_id=world.project.pk,
                environment_id=world.prod.pk,
                resource_kind="deployment",
                resource_id=str(uuid7()),
                action="deployment.build",
                outcome="success",
                actor_kind="user",
                actor_id=str(world.operator.user.pk),
                actor_display="operator@bench.example",
                request_id=str(uuid7()),
                ip="192.0.2.7",
                changes=CHANGES[number % len(CHANGES)],
            )
            for number in range(start, start + 10_000)
        )
    while ledger.seal_chain(world.organization.pk):
        pass


def _database_seconds() -> float:
    """Return the CPU seconds of the connection's server process, which depend little on the machine's load."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run() -> None:
    """Print the rate of each round, the median, and the growth of this process's memory."""
    from tests.worlds import World

    store_events(World("bench"))
    call_command("verify_ledger", stdout=io.StringIO())  # warm up
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rates = []
    for number in range(1, ROUNDS + 1):
        began, cpu_before = time.perf_counter(), time.process_time() + _database_seconds()
        call_command("verify_ledger", stdout=io.StringIO())
        elapsed_s, cpu_s = time.perf_counter() - began, time.process_time() + _database_seconds() - cpu_before
        rates.append(EVENTS / cpu_s)
        print(
            f"  ledger     round {number}  {rates[-1]:7.0f} events per CPU second"
            f"  {EVENTS / elapsed_s:7.0f} per elapsed second"
        )
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(
        f"  ledger     {statistics.median(rates):.0f} events per CPU second  (goal: at least 50,000),"
        f" memory growth {growth} MiB"
    )
