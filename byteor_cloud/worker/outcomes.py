"""Records of the outcomes of jobs, and the takeover of jobs whose worker has died."""

from __future__ import annotations

import structlog
from django.db import connection, transaction

from byteor_cloud.worker import jobs
from byteor_cloud.worker.claims import OWN_JOB, FetchedJob, describe_error
from byteor_cloud.worker.jobs import KINDS, ClaimLost, GivenUp, JobLane, Kind, Requeued

LONGEST_WAIT_S = 60
LONGEST_WAIT_AFTER_A_KILL_S = 15
# A job that only a newer release knows is left to a worker of that release.
_ORPHANS = """
SELECT id, queue_name, task_name, lock, args, attempts, byteor_errors, byteor_kills, byteor_outages, byteor_person
FROM procrastinate_jobs WHERE status = 'doing' AND worker_id IS NULL AND task_name = ANY (%s)
ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_MOVE = f"UPDATE procrastinate_jobs SET queue_name = %(queue)s WHERE {OWN_JOB}"  # noqa: S608  a constant
logger = structlog.get_logger(__name__)


def record_outcome(run: FetchedJob, error: BaseException | None) -> None:
    """Record the job's success or error in the current transaction. Raises ClaimLost."""
    kind = KINDS[run.task]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM procrastinate_jobs WHERE {OWN_JOB} FOR UPDATE", run.key)
        if cursor.rowcount == 0:
            raise ClaimLost
    if error is None:
        _remove(run)
        _remove_dead(run)  # an earlier failure of the same work is resolved
    elif isinstance(error, Requeued):
        run.queue = change_lane(run.queue, error.lane)
        _requeue(run, "", 0, outages=0, attempts=run.attempts - 1)
    elif jobs.is_outage(error):
        if kind.recurs_soon:
            _remove(run)
        else:
            wait = min(LONGEST_WAIT_S, 2**run.outages)
            _requeue(run, describe_error(error), wait, outages=run.outages + 1, attempts=run.attempts - 1)
    elif run.errors + 1 >= jobs.ATTEMPTS or kind.recurs_soon:
        why = GivenUp(killed=False, error=describe_error(error), cause=error)
        _give_up(run, kind, why, errors=run.errors + 1)
    else:
        _requeue(run, describe_error(error), 3 ** (run.errors + 1), errors=run.errors + 1, outages=0)


def move_job(run: FetchedJob, lane: JobLane) -> None:
    """Record that a running job continues in another lane. Raises ClaimLost."""
    queue = change_lane(run.queue, lane)
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, run.key | {"queue": queue})
        if cursor.rowcount == 0:
            raise ClaimLost
    run.queue = queue


def change_lane(queue: str, lane: JobLane) -> str:
    """Return the name of the same organization's queue in another lane."""
    return f"{lane}:{queue.partition(':')[2]}"


def take_over_job() -> bool:
    """Requeue one job of a dead worker, or make it a dead letter. Returns False if there is none of a known kind."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_ORPHANS, [list(KINDS)])
            if (row := cursor.fetchone()) is None:
                return False
        run = FetchedJob(row, None)
        kills = run.kills + 1
        logger.warning("job_taken_over", job=run.task, id=run.id, kills=kills)
        times = "once" if kills == 1 else f"{kills} times"
        why = f"The process that ran the job was killed {times}."
        if kills >= jobs.KILLS:
            _give_up(run, KINDS[run.task], GivenUp(killed=True, error=why), kills=kills)
        else:
            # The first time, requeue it without a wait, since most jobs did not cause the death of their process.
            wait = 0 if kills == 1 else min(LONGEST_WAIT_AFTER_A_KILL_S, 2 ** (kills - 2))
            _requeue(run, why, wait, kills=kills)
    return True


def _requeue(
    run: FetchedJob,
    error: str,
    wait_s: float,
    *,
    errors: int | None = None,
    kills: int | None = None,
    outages: int | None = None,
    attempts: int | None = None,
) -> None:
    """Requeue the job. It loses its ``once`` key, since a job with the same key may already be in the queue."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL, queueing_lock = NULL, queue_name = %s,"
            " abort_requested = false, attempts = %s, scheduled_at = now() + make_interval(secs => %s),"
            " byteor_errors = %s, byteor_kills = %s, byteor_outages = %s, byteor_error = %s WHERE id = %s",
            [
                run.queue,
                run.attempts if attempts is None else attempts,
                wait_s,
                run.errors if errors is None else errors,
                run.kills if kills is None else kills,
                run.outages if outages is None else outages,
                error,
                run.id,
            ],
        )


def _give_up(run: FetchedJob, kind: Kind, why: GivenUp, *, errors: int | None = None, kills: int | None = None) -> None:
    """Make the job the only dead letter for the same work, and call its kind's ``gave_up`` function."""
    _remove_dead(run)
    with connection.cursor() as cursor:
        if why.killed:  # waiting jobs for the same work would probably do the same
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
    if kind.gave_up is None:
        return
    try:
        with transaction.atomic():
            kind.gave_up(why, **run.arguments)
    except Exception as error:
        if jobs.is_outage(error):
            raise  # the caller retries the whole transaction
        logger.exception("job_gave_up_failed", job=run.task, id=run.id)


def _remove(run: FetchedJob) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM procrastinate_jobs WHERE id = %s", [run.id])


def _remove_dead(run: FetchedJob) -> None:
    """Delete the dead letters of the same kind with the same ``serial`` key. Without a key, do nothing."""
    if run.serial is not None:
        with connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM procrastinate_jobs WHERE status = 'failed' AND lock = %s AND task_name = %s",
                [run.serial, run.task],
            )
