"""The SQL statements with which a worker finds the lanes that have due jobs and claims a job in a lane."""

# Finds the lanes with due jobs. One query about all lanes takes far less time than a fetch from each empty lane.
DUE_LANES = """
SELECT lane FROM unnest(%(lanes)s::text[]) AS lane WHERE EXISTS (
    SELECT FROM procrastinate_jobs job
    WHERE job.status = 'todo' AND (job.scheduled_at IS NULL OR job.scheduled_at <= now())
      AND job.queue_name COLLATE "C" > lane || ':' AND job.queue_name COLLATE "C" < lane || ';'
)
"""
# Claims a due job in a lane. The recursive part finds the batches of waiting jobs with the same queue, person and task
# one by one in the index (the person '' means none). Each batch offers its oldest due job. The job whose queue and
# person were both served longest ago wins, and of several such jobs the oldest one. While a worker runs a job whose
# process was killed before, it claims other such jobs only a minute after they are due. This identifies the job that
# kills the process, while jobs that only ran in the same process can complete.
#
# During an upgrade, processes of the newer release enqueue tasks that this worker may not know. It skips the batches of
# these tasks without reading their jobs, which wait for a worker of the newer release.
FETCH = """
WITH RECURSIVE batch(queue, person, task) AS (
    (SELECT queue_name COLLATE "C", byteor_person, task_name FROM procrastinate_jobs
     WHERE status = 'todo' AND queue_name COLLATE "C" > %(lane)s || ':' AND queue_name COLLATE "C" < %(lane)s || ';'
     ORDER BY queue_name COLLATE "C", byteor_person, task_name LIMIT 1)
    UNION ALL
    SELECT next.queue, next.person, next.task FROM batch CROSS JOIN LATERAL (
        SELECT queue_name COLLATE "C" AS queue, byteor_person AS person, task_name AS task FROM procrastinate_jobs
        WHERE status = 'todo'
          AND (queue_name COLLATE "C", byteor_person, task_name) > (batch.queue, batch.person, batch.task)
          AND queue_name COLLATE "C" < %(lane)s || ';'
        ORDER BY queue_name COLLATE "C", byteor_person, task_name LIMIT 1
    ) AS next
), served AS MATERIALIZED (
    SELECT name COLLATE "C" AS name, turn FROM unnest(%(names)s::text[], %(turns)s::bigint[]) AS each(name, turn)
), chosen AS (
    SELECT found.id FROM batch
    CROSS JOIN LATERAL (
        SELECT job.id FROM procrastinate_jobs job
        WHERE job.status = 'todo'
          -- Two comparisons instead of =, with which PostgreSQL would sort by id alone and read other jobs' rows.
          AND (job.queue_name COLLATE "C", job.byteor_person, job.task_name) >= (batch.queue, batch.person, batch.task)
          AND (job.queue_name COLLATE "C", job.byteor_person, job.task_name) <= (batch.queue, batch.person, batch.task)
          AND (job.scheduled_at IS NULL OR job.scheduled_at <= now())
          AND (job.byteor_kills = 0 OR NOT %(has_suspect)s
               OR job.scheduled_at <= now() - make_interval(secs => %(suspect_waits)s))
          AND NOT EXISTS (
              SELECT FROM procrastinate_jobs other
              WHERE other.lock = job.lock
                AND (other.status = 'doing' OR other.status = 'todo' AND other.id < job.id))
        ORDER BY job.queue_name COLLATE "C", job.byteor_person, job.task_name, job.id LIMIT 1  -- the order of the index
    ) AS found
    LEFT JOIN served AS organization ON organization.name = batch.queue
    LEFT JOIN served AS person ON person.name = %(lane)s || ':' || batch.person
    WHERE batch.task = ANY (%(tasks)s::text[])
      AND batch.queue <> ALL (%(full)s::text[]) AND %(lane)s || ':' || batch.person <> ALL (%(full)s::text[])
    ORDER BY greatest(organization.turn, person.turn, 0), coalesce(organization.turn, 0), found.id LIMIT 1
), taken AS (
UPDATE procrastinate_jobs job SET status = 'doing', worker_id = %(worker)s, attempts = attempts + 1
FROM chosen WHERE job.id = chosen.id AND job.status = 'todo'
RETURNING job.id, job.queue_name, job.task_name, job.lock, job.args, job.attempts,
          job.byteor_errors, job.byteor_kills, job.byteor_outages, job.byteor_person
)
SELECT taken.* FROM chosen LEFT JOIN taken ON true
"""
