"""Tests that leftovers of killed processes are removed from the data folders, but not files in use."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.storage import data_folders
from byteor_cloud.storage.data_folders import PARTIAL
from tests.artifacts.incidents import archive

# This program receives an upload, unpacks a bundle, and stops in the middle of the bundle's second file.
HALF_WAY = """
import io, shutil, sys, django
django.setup()
from byteor_cloud.storage import blobs
from byteor_cloud.storage import data_folders
from byteor.engine.replay import extract_incident
written, copy = [], shutil.copyfileobj

def stop(source, target):
    written.append(target)
    if len(written) > 1:
        target.write(source.read(10))
        target.flush()
        print("unpacking", flush=True)
        sys.stdin.read()
    copy(source, target)

shutil.copyfileobj = stop
with blobs.receive("f") as upload, data_folders.scratch_folder() as folder:
    upload.append(b"a part")
    extract_incident(io.BytesIO(open(sys.argv[1], "rb").read()), folder)
"""


@pytest.fixture
def data(settings: Any, tmp_path: Path) -> Path:
    settings.CONFIG = dataclasses.replace(settings.CONFIG, data_dir=tmp_path)
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "uploads")
    return tmp_path


@contextmanager
def unpacking(data: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has received a part of an upload and unpacked a part of a bundle."""
    bundle = data / "bundle"
    bundle.write_bytes(archive({"one": b"1" * 100, "two": b"2" * 100}))
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "byteor_cloud.settings", "BYTEOR_CLOUD_DATA_DIR": str(data)}
    with subprocess.Popen(
        [sys.executable, "-c", HALF_WAY, str(bundle)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "unpacking\n"
        try:
            yield process
        finally:
            process.kill()


def temporary(data: Path) -> list[Path]:
    return [*(data / "scratch").iterdir(), *(data / "uploads").glob("*"), *(data / "artifacts").glob(f"{PARTIAL}*")]


def test_leftovers_of_killed_process_are_removed_and_used_files_are_kept(data: Path) -> None:
    with unpacking(data) as process:
        used = temporary(data)
        assert len(used) == 2
        for path in used:
            os.utime(path, (1, 1))  # as if the process had worked for longer than ``LEFTOVER_S``
        data_folders.remove_leftovers()
        assert temporary(data) == used
        assert [path.stat().st_size for path in used[0].iterdir()] == [100, 10]

        process.send_signal(signal.SIGKILL)
        process.wait()
        data_folders.remove_leftovers()

    assert temporary(data) == []


def test_leftover_folders_links_pipes_and_files_are_removed_only_when_old(data: Path) -> None:
    outside = data / "outside"
    outside.write_text("kept")
    scratch, uploads = data_folders.scratch(), data_folders.uploads()
    (data / "artifacts/sha256").mkdir(parents=True)
    (scratch / "folder/deep").mkdir(parents=True)
    (scratch / "link").symlink_to(outside)
    (scratch / "loop").symlink_to("loop")
    os.mkfifo(uploads / "pipe")
    (uploads / "file").write_text("x")
    (data / "artifacts" / f"{PARTIAL}x").write_text("x")
    leftovers = [*temporary(data)]
    assert len(leftovers) == 6

    data_folders.remove_leftovers()
    assert temporary(data) == leftovers  # new files may belong to a process that has not locked them yet

    for path in leftovers:
        os.utime(path, (1, 1), follow_symlinks=False)
    data_folders.remove_leftovers()
    assert temporary(data) == []
    assert (outside.read_text(), (data / "artifacts/sha256").is_dir()) == ("kept", True)
