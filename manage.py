#!/usr/bin/env python
"""Django's command line; with the embedded database it holds that for as long as the command runs."""

from __future__ import annotations

import os
import sys

# Commands that need no database: they must not start one.
OFFLINE = {"spectacular", "collectstatic", "check", "help", "--help", "version", "--version"}


def main() -> int:
    """Run one command; the exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "byteor_cloud.settings")
    from byteor_cloud import config
    from byteor_cloud.database import PROCESS_KIND_VARIABLE
    from byteor_cloud.embedded import EmbeddedPostgres, EmbeddedPostgresError

    if sys.argv[1:2] == ["worker"]:
        os.environ[PROCESS_KIND_VARIABLE] = "worker"
    held: EmbeddedPostgres | None = None
    try:
        settings = config.load(os.environ)
        if settings.database_url is None and (sys.argv[1:2] or ["help"])[0] not in OFFLINE:
            held = EmbeddedPostgres(settings.data_dir)
            os.environ["BYTEOR_EMBEDDED_DATABASE_URL"] = held.acquire()
        from django.core.management import execute_from_command_line
        from django.db import OperationalError

        try:
            execute_from_command_line(sys.argv)
        except OperationalError as error:
            print(f"byteor-cloud: the database is not usable: {str(error).partition('\n')[0]}", file=sys.stderr)
            return 1
    except (config.ConfigError, EmbeddedPostgresError) as error:
        print(f"byteor-cloud: {error}", file=sys.stderr)
        return 2
    finally:
        if held is not None:
            from django.db import connections

            # The pools' connections would keep the server waiting when it is told to stop.
            connections.close_all()
            held.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
