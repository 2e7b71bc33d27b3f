"""What is written of a job when it ends, or when its worker is gone."""

from __future__ import annotations

import structlog
from django.db import connection, transaction

from byteor_cloud import jobs
from byteor_cloud.jobs import KINDS, GivenUp, Kind, Lost
from byteor_cloud.worker.claims import MINE, Run, told

LONGEST_WAIT_S = 60
LONGEST_WAIT_AFTER_A_KILL_S = 15
_ORPHANS = """
SELECT id, queue_name, task_name, lock, args, attempts, byteor_errors, byteor_kills, byteor_outages
FROM procrastinate_jobs WHERE status = 'doing' AND worker_id IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
logger = structlog.get_logger(__name__)


def note_end(run: Run, error: BaseException | None) -> None:
    """Say in the current transaction how the job ended. Raises Lost."""
    kind = KINDS.get(run.task)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM procrastinate_jobs WHERE {MINE} FOR UPDATE", run.key)
        if cursor.rowcount == 0:
            raise Lost
    if error is None:
        _remove(run)
        _remove_dead(run)  # it has healed
    elif jobs.is_trouble(error):
        if kind is not None and kind.comes_soon:
            _remove(run)
        else:
            wait = min(LONGEST_WAIT_S, 2**run.outages)
            _again(run, told(error), wait, outages=run.outages + 1, attempts=run.attempts - 1)
    elif run.errors + 1 >= jobs.ATTEMPTS or (kind is not None and kind.comes_soon):
        _give_up(run, kind, GivenUp(killed=False, error=told(error)), errors=run.errors + 1)
    else:
        _again(run, told(error), 3 ** (run.errors + 1), errors=run.errors + 1)


def take_over() -> bool:
    """Put one job of a worker that is gone back into the queue, or among the dead letters; False without any."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_ORPHANS)
            if (row := cursor.fetchone()) is None:
                return False
        run = Run(row, None)
        kills = run.kills + 1
        logger.warning("job_taken_over", job=run.task, id=run.id, kills=kills)
        why = f"The process that ran it was killed {kills} times."
        if kills >= jobs.KILLS:
            _give_up(run, KINDS.get(run.task), GivenUp(killed=True, error=why), kills=kills)
        else:
            # At once after the first time: most jobs were only there by chance.
            wait = 0 if kills == 1 else min(LONGEST_WAIT_AFTER_A_KILL_S, 2 ** (kills - 2))
            _again(run, why, wait, kills=kills)
    return True


def _again(
    run: Run,
    error: str,
    wait_s: float,
    *,
    errors: int | None = None,
    kills: int | None = None,
    outages: int | None = None,
    attempts: int | None = None,
) -> None:
    """Back into the queue. It gives its ``once`` key up: another of that key may wait there, and two cannot."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL, queueing_lock = NULL,"
            " abort_requested = false, attempts = %s, scheduled_at = now() + make_interval(secs => %s),"
            " byteor_errors = %s, byteor_kills = %s, byteor_outages = %s, byteor_error = %s WHERE id = %s",
            [
                run.attempts if attempts is None else attempts,
                wait_s,
                run.errors if errors is None else errors,
                run.kills if kills is None else kills,
                run.outages if outages is None else outages,
                error,
                run.id,
            ],
        )


def _give_up(run: Run, kind: Kind | None, why: GivenUp, *, errors: int | None = None, kills: int | None = None) -> None:
    """Leave the job as a dead letter, the only one of its work, with what follows from that."""
    _remove_dead(run)
    with connection.cursor() as cursor:
        if why.killed:  # what waits behind it would only do the same
            cursor.execute(
                "DELETE FROM procrastinate_jobs WHERE status = 'todo' AND lock = %s AND task_name = %s",
                [run.serial, run.task],
            )
        cursor.execute(
            "UPDATE procrastinate_jobs SET status = 'failed', worker_id = NULL, abort_requested = false,"
            " byteor_errors = %s, byteor_kills = %s, byteor_error = %s WHERE id = %s",
            [run.errors if errors is None else errors, run.kills if kills is None else kills, why.error, run.id],
        )
    logger.error("job_given_up", job=run.task, id=run.id, killed=why.killed, error=why.error)
    if kind is None or kind.gave_up is None:
        return
    try:
        with transaction.atomic():
            kind.gave_up(why, **run.arguments)
    except Exception as error:
        if jobs.is_trouble(error):
            raise  # all of it is done again
        logger.exception("giving_up_failed", job=run.task, id=run.id)


def _remove(run: Run) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM procrastinate_jobs WHERE id = %s", [run.id])


def _remove_dead(run: Run) -> None:
    """Remove the dead letters of the same work."""
    if run.serial is not None:
        with connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM procrastinate_jobs WHERE status = 'failed' AND lock = %s AND task_name = %s",
                [run.serial, run.task],
            )
