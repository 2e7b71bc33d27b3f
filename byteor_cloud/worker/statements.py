"""The SQL with which a worker finds the lanes that have due jobs, and takes a job of one lane."""

# Finds the lanes with due jobs. One question about all lanes takes far less time than a fetch from each empty lane.
DUE_LANES = """
SELECT lane FROM unnest(%(lanes)s::text[]) AS lane WHERE EXISTS (
    SELECT FROM procrastinate_jobs job
    WHERE job.status = 'todo' AND (job.scheduled_at IS NULL OR job.scheduled_at <= now())
      AND job.queue_name COLLATE "C" > lane || ':' AND job.queue_name COLLATE "C" < lane || ';'
)
"""
# Takes a due job of one lane. Its recursive part finds the lane's queues with waiting jobs one by one in the index.
# Each queue offers its oldest due job, and the queue that was served longest ago wins. A job whose process was killed
# does not run beside another such job for a minute: so the job that kills the process is identified, and the others,
# which were only present, end.
FETCH = """
WITH RECURSIVE queues(name) AS (
    (SELECT queue_name COLLATE "C" FROM procrastinate_jobs
     WHERE status = 'todo' AND queue_name COLLATE "C" > %(lane)s || ':' AND queue_name COLLATE "C" < %(lane)s || ';'
     ORDER BY queue_name COLLATE "C" LIMIT 1)
    UNION ALL
    SELECT (SELECT queue_name COLLATE "C" FROM procrastinate_jobs
            WHERE status = 'todo' AND queue_name COLLATE "C" > queues.name
              AND queue_name COLLATE "C" < %(lane)s || ';'
            ORDER BY queue_name COLLATE "C" LIMIT 1)
    FROM queues WHERE queues.name IS NOT NULL
), chosen AS (
    SELECT found.id FROM queues
    CROSS JOIN LATERAL (
        SELECT job.id FROM procrastinate_jobs job
        WHERE job.queue_name COLLATE "C" = queues.name AND job.status = 'todo'
          AND (job.scheduled_at IS NULL OR job.scheduled_at <= now())
          AND (job.byteor_kills = 0 OR NOT %(has_suspect)s
               OR job.scheduled_at <= now() - make_interval(secs => %(suspect_waits)s))
          AND NOT EXISTS (
              SELECT FROM procrastinate_jobs other
              WHERE other.lock = job.lock
                AND (other.status = 'doing' OR other.status = 'todo' AND other.id < job.id))
        ORDER BY job.queue_name COLLATE "C", job.id LIMIT 1  -- the order of the index
    ) AS found
    LEFT JOIN unnest(%(names)s::text[], %(turns)s::bigint[]) AS served(name, turn)
           ON served.name COLLATE "C" = queues.name
    WHERE queues.name IS NOT NULL AND queues.name <> ALL (%(full)s::text[])
    ORDER BY coalesce(served.turn, 0), found.id LIMIT 1
), taken AS (
UPDATE procrastinate_jobs job SET status = 'doing', worker_id = %(worker)s, attempts = attempts + 1
FROM chosen WHERE job.id = chosen.id AND job.status = 'todo'
RETURNING job.id, job.queue_name, job.task_name, job.lock, job.args, job.attempts,
          job.byteor_errors, job.byteor_kills, job.byteor_outages
)
SELECT taken.* FROM chosen LEFT JOIN taken ON true
"""
