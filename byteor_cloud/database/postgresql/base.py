"""Django's PostgreSQL engine, but a request waits for a pooled connection only until its deadline."""

from __future__ import annotations

from typing import Any, override

from django.db.backends.postgresql import base
from psycopg_pool import PoolTimeout

from byteor_cloud.concurrency import deadline
from byteor_cloud.database.connections import Unresponsive


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's database wrapper, which counts the wait for a pooled connection against the request's deadline."""

    @override
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Take a connection from the pool, or open one if there is no pool.

        Raises PoolTimeout or Unresponsive if no pooled connection becomes free in time.
        """
        pool = self.pool
        if pool is None or not deadline.is_limited():
            return super().get_new_connection(conn_params)
        pool.open()
        try:
            with deadline.waiting() as left_s:
                return pool.getconn(min(left_s or 0.0, pool.timeout))
        except PoolTimeout as error:
            if deadline.is_over():
                raise Unresponsive from error
            raise
