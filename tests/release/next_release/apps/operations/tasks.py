"""The jobs of the next release, which use its new column: one that a command enqueues, and a periodic one."""

from __future__ import annotations

from django.db import connection

from byteor_cloud.worker.jobs import Job, JobLane, Periodic, runs, runs_periodically


class FillColumn(Job, name="operations.fill_column", lane=JobLane.RELEASES):
    """Fill the new column of one agent."""

    agent_id: str


@runs(FillColumn)
def fill_column(job: FillColumn) -> None:
    """Fill the new column of one agent."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE fleet_agent SET next_release = 'filled' WHERE id = %s", [job.agent_id])


@runs_periodically(Periodic("operations.count_filled", every_s=3))
def count_filled() -> None:
    """Count the agents whose column is filled."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM fleet_agent WHERE next_release = 'filled'")
