"""``make run`` and ``make demo``: run the demo, and then keep serving if requested."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from byteor_cloud.demo.main_job import Demo
from byteor_cloud.demo.processes import DemoError


@contextlib.contextmanager
def _data_dir(serve: bool) -> Iterator[Path]:
    if serve:
        yield Path(os.environ.get("BYTEOR_CLOUD_DATA_DIR") or "var").absolute()
        return
    scratch = Path(tempfile.mkdtemp(prefix="byteor-demo-"))
    scratch.chmod(0o711)  # the embedded database may run under another account, which must pass through
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo, and with ``--serve`` keep serving until stopped.

    Returns 1 if no port is free or if a step or the server failed, 130 if the demo was interrupted without ``--serve``,
    and otherwise 0.
    """
    parser = argparse.ArgumentParser(
        prog="byteor_cloud.demo",
        description="Run the demo once, mostly through the public API. Exits with 1 if a step or the server fails.",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="use the data folder instead of a temporary one, and keep serving until stopped",
    )
    serve = parser.parse_args().serve
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    began = time.monotonic()
    with _data_dir(serve) as data_dir:
        try:
            demo = Demo(data_dir, os.environ)
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        try:
            demo.serve()
            demo.run_main_job()
            print(f"\nEvery step succeeded, in {time.monotonic() - began:.1f} s.", flush=True)
            if serve:
                demo.print_addresses()
                print(f"Serving on {demo.base} until you press Ctrl-C.", flush=True)
                demo.processes[0].wait()
                raise DemoError(f"the server exited unexpectedly; see {demo.data_dir}/serve.log")
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0 if serve else 130
        finally:
            demo.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
