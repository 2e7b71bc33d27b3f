#!/usr/bin/env python
"""Django's command line. The embedded database, if it is used, runs while a command needs it."""

import sys

# This file must parse on old Pythons, so that they print this message instead of a SyntaxError.
HINT = "byteor-cloud needs Python 3.12 or newer with Django: run .venv/bin/python manage.py (make setup creates .venv)"


def main():
    # type: () -> int
    """Run one command and return its exit code, or print how to call this script."""
    if sys.version_info < (3, 12):  # noqa: UP036 - people may start this script with any Python
        print(HINT, file=sys.stderr)
        return 2
    try:
        import django  # noqa: F401
    except ImportError:
        print(HINT, file=sys.stderr)
        return 2
    from byteor_cloud.command_line import run

    return run(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
