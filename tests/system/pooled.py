"""An installation that uses its database through pgbouncer."""

from __future__ import annotations

from typing import Any

import psycopg

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.pooler import Pooler
from tests.ports import free_port
from tests.system.conftest import Installation
from tests.system.fleet import Fleet

POOL_SIZE = 5  # database connections, fewer than the server opens to the pooler


class Pooled:
    """An installation whose server reaches an embedded database through pgbouncer."""

    def __init__(self) -> None:
        self.installation = Installation()
        self.embedded = EmbeddedPostgres(self.installation.data_dir)
        self.pooler: Pooler | None = None
        try:
            self.direct_url = f"{self.embedded.acquire()}&application_name=direct"
            self.pooler = Pooler(self.installation.data_dir, free_port(), self.direct_url, size=POOL_SIZE)
            self.pooler.start()
            self.settings = {
                "DATABASE_URL": self.pooler.url,
                "DATABASE_DIRECT_URL": self.direct_url,
                "MASTER_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
                "SECRET_KEY": "x" * 60,
            }
            self.installation.serve(**self.settings)
            self.fleet = Fleet(self.installation, **self.settings)
        except BaseException:
            self.remove()
            raise

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query without the pooler."""
        with psycopg.connect(self.direct_url, autocommit=True, application_name="test") as session:
            return session.execute(query.encode()).fetchall()

    def remove(self) -> None:
        for server in list(self.installation.servers):
            self.installation.stop(server)
        if self.pooler is not None:
            self.pooler.kill()
        self.embedded.release()
        self.installation.remove()
