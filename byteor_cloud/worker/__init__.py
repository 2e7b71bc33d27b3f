"""The process that runs jobs: it fetches them lane by lane, shows that it lives, and takes over from workers that died.

A worker has a row with a heartbeat. Its jobs are taken over when that row is gone, and the row goes when the
heartbeat is too old, or when the kernel says that the process is dead (its file is no longer locked). Nothing else
counts: a worker whose database sessions were all ended goes on, and renews its heartbeat on a new one.

A worker that could not renew its heartbeat in time does not know whether its jobs are still its own. It does nothing
then that cannot be repeated (``Claim.ensure``), and whatever it writes at the end of a job checks the claim in the
same transaction (``Claim.confirm``).
"""
