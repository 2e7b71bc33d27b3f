"""The benchmark of uploads, compared with a loop that writes, hashes and syncs files of equal size on the same disk."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench import load
from tests.bench.results import Row, ratio
from tests.bench.serving import server, store_fleet

MIB = 1 << 20
SIZES = {"1 MiB": (MIB, 0.5), "32 MiB": (32 * MIB, 0.6)}
YARDSTICK = "write, SHA-256, fsync"
CONNECTIONS, PIECE = 4, 64 * 1024
# Each upload has different bytes, because repeated content would not be stored again.
_SCRIPT = """
differ = true
local filler, number = string.rep("0123456789abcdef", SIZE / 16 - 4), os.time() * 1000000
local head = '--xx\\r\\nContent-Disposition: form-data; name="kind"\\r\\n\\r\\ntelemetry\\r\\n'
  .. '--xx\\r\\nContent-Disposition: form-data; name="captured_at"\\r\\n\\r\\n2026-11-01T10:00:00Z\\r\\n'
  .. '--xx\\r\\nContent-Disposition: form-data; name="file"; filename="f.bin"\\r\\n'
  .. 'Content-Type: application/octet-stream\\r\\n\\r\\n'
send = function(id, key)
  number = number + 1
  return wrk.format("POST", "/api/v1/agents/" .. id .. "/artifacts",
    {["Authorization"] = "Bearer " .. key, ["Content-Type"] = "multipart/form-data; boundary=xx"},
    head .. string.format("%064.0f", number) .. filler .. "\\r\\n--xx--\\r\\n")
end
"""


def run(folder: Path, port: int, *, seconds: float = 4.0, rounds: int = 3) -> list[Row]:
    """Print the uploads per second of each round. Return the ratios of the medians."""
    from tests.worlds import World

    agents = load.agents_file(folder, store_fleet(World("bench").dev, CONNECTIONS))
    rows = []
    with server(port):
        for name, (size, goal) in SIZES.items():
            script = _SCRIPT.replace("SIZE", str(size))
            name_of_work = f"upload of {name}"
            works: dict[str, Callable[[], float]] = {
                name_of_work: partial(_upload_rate, folder, port, script, seconds, agents),
                YARDSTICK: partial(_plain_loop, folder, size, seconds),
            }
            rates: dict[str, list[float]] = {work: [] for work in works}
            for work in works.values():
                work()  # warm up
            for number in range(1, rounds + 1):
                for label, work in works.items():
                    rates[label].append(work())
                shown = "  ".join(f"{label} {found[-1]:.1f}/s" for label, found in rates.items())
                print(f"  upload     round {number}  {shown}", flush=True)
            rows.append(ratio(f"{name_of_work} / {YARDSTICK}", rates, goal=goal))
    return rows


def _upload_rate(folder: Path, port: int, script: str, seconds: float, agents: Path) -> float:
    return load.wrk(folder, port, script, seconds=seconds, connections=CONNECTIONS, agents=agents).rate


def _plain_loop(folder: Path, size: int, seconds: float) -> float:
    """Return the files per second that a loop writes, hashes and syncs."""
    data = os.urandom(size)
    path = folder / "plain-loop"
    began, count = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - began) < seconds:
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, size, PIECE):
                piece = data[start : start + PIECE]
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        count += 1
    path.unlink(missing_ok=True)
    return count / elapsed_s
