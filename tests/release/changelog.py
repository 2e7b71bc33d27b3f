"""Reads CHANGELOG.md: the dates of the releases, and the commits from which they were made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_RELEASE = re.compile(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)")
_COMMIT = re.compile(r"^Commit:.*$", re.MULTILINE)
_COMMIT_ID = re.compile(r"Commit: `([0-9a-f]{40})`")


@dataclass(frozen=True, slots=True)
class ChangelogRelease:
    """A release in the changelog. ``commit`` is None until a later commit adds its id."""

    version: str
    released_on: date
    commit: str | None


def read_releases(text: str) -> list[ChangelogRelease]:
    """Return the releases of a changelog in the same order. Raises ValueError for a malformed heading, date or commit.

    A commit cannot contain its own id. The line with the id is therefore added by a later commit.
    """
    parts = _HEADING.split(text)[1:]
    releases = []
    for heading, section in zip(parts[::2], parts[1::2], strict=True):
        if heading == "[Unreleased]":
            continue
        match = _RELEASE.fullmatch(heading)
        if match is None:
            raise ValueError(f'"## {heading}" must be "## [Unreleased]" or "## [VERSION] - YYYY-MM-DD"')
        version = match[1]
        lines = _COMMIT.findall(section)
        commits = [found[1] for line in lines if (found := _COMMIT_ID.fullmatch(line))]
        if len(commits) != len(lines) or len(commits) > 1:
            raise ValueError(f"{version} must have at most one line Commit: `ID`, with an id of 40 hexadecimal digits")
        releases.append(ChangelogRelease(version, date.fromisoformat(match[2]), commits[0] if commits else None))
    return releases


def find_release(text: str, version: str) -> ChangelogRelease | None:
    """Return the release with this version, or None. Raises ValueError if the changelog is malformed."""
    return next((release for release in read_releases(text) if release.version == version), None)
