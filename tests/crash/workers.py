"""Worker processes that die at chosen moments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from tests.patience import PATIENCE_S
from tests.system.conftest import ROOT, Installation


class Worker:
    """A process of ``doomed_worker.py`` or a similar module, whose workers die at chosen moments."""

    def __init__(self, installation: Installation, module: str = "doomed_worker", **settings: str) -> None:
        self.output = installation.data_dir / "worker.out"
        with self.output.open("wb") as output, (installation.data_dir / "worker.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"tests.crash.{module}"],
                env=installation.environment(**settings), cwd=ROOT, stdin=subprocess.PIPE, stdout=output, stderr=log,
            )  # fmt: skip

    def restart_and_die_at(self, moments: Sequence[str]) -> None:
        """Restart the worker. It dies at the first of these moments, the worker after it at the second, and so on."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(list(moments)).encode() + b"\n")
        self.process.stdin.flush()

    def printed_lines(self) -> list[str]:
        """Return the lines that have been printed: passed moments and deaths."""
        return self.output.read_text().splitlines()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
