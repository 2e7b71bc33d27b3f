"""Tests of the collection of static files: when it is repeated, and when it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apps.operations.management import static_files


@pytest.fixture
def source(settings: Any, tmp_path: Path) -> Path:
    """Create the only source folder of static files, with one file. The files are collected into ``STATIC_ROOT``."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "logo.svg").write_text("<svg/>")
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STATICFILES_DIRS = [folder]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    return folder


def collected(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.parent.joinpath("static").glob("*.svg")}


def test_collected_files_are_not_collected_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert static_files.collect() == {}
    assert collected(source).keys() == {"logo.svg"}
    monkeypatch.setattr(static_files, "call_command", pytest.fail)

    assert static_files.collect() == {}


def test_added_static_file_is_collected(source: Path) -> None:
    static_files.collect()
    (source / "icon.svg").write_text("<svg/>")

    static_files.collect()

    assert collected(source).keys() == {"logo.svg", "icon.svg"}


def test_files_are_collected_again_when_target_folder_is_missing(source: Path, settings: Any) -> None:
    static_files.collect()
    (settings.STATIC_ROOT / "logo.svg").unlink()
    settings.STATIC_ROOT.rmdir()

    static_files.collect()

    assert collected(source).keys() == {"logo.svg"}


def test_interrupted_collection_is_repeated(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    static_files.collect()
    (source / "icon.svg").write_text("<svg/>")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(static_files, "call_command", interrupt)
        with pytest.raises(KeyboardInterrupt):
            static_files.collect()

    static_files.collect()

    assert collected(source).keys() == {"logo.svg", "icon.svg"}
