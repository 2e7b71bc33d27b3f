"""The worker process: it runs the jobs of each lane, renews its heartbeat and takes over the jobs of dead workers.

Each worker has a database row with a heartbeat. Workers delete a row if its heartbeat is too old. Other workers on the
same host also delete it if the worker's lock file is unlocked, because the kernel unlocks the file when the worker's
process dies. Other workers can then take over the dead worker's jobs. A worker that only loses its database sessions
continues, and renews its heartbeat on a new session.

A worker that could not renew its heartbeat in time may have lost its jobs to another worker. It therefore waits before
it does anything that cannot be repeated (``Claim.ensure``), and it checks its claim in the transaction that stores a
job's result (``Claim.confirm``).
"""
