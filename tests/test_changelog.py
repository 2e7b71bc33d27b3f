"""CHANGELOG.md has the form that ``make release`` and the test of upgrades read."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tests.release.changelog import ChangelogRelease, find_release, read_releases

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CHANGELOG.md").read_text()
ID = "5ab4b6b4" * 5
EXAMPLE = f"""# Changelog

## [Unreleased]

- Commit: `nothing` in a list is text.

## [0.2.0] - 2027-02-28

## [0.1.0] - 2026-11-29

Commit: `{ID}`

### Agents
"""


def test_releases_are_read_with_version_date_and_optional_commit() -> None:
    assert read_releases(EXAMPLE) == [
        ChangelogRelease("0.2.0", date(2027, 2, 28), None),
        ChangelogRelease("0.1.0", date(2026, 11, 29), ID),
    ]
    assert find_release(EXAMPLE, "0.1.0") == ChangelogRelease("0.1.0", date(2026, 11, 29), ID)
    assert find_release(EXAMPLE, "0.1") is None


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("- 2026-11-29", "", r'"## \[0.1.0\] " must be'),
        ("2026-11-29", "2026-11-31", "day"),
        ("## [Unreleased]", "## Unreleased", '"## Unreleased" must be'),
        (ID, ID[:-1], "0.1.0 must have at most one line Commit"),
        (f"`{ID}`", ID, "0.1.0 must have at most one line Commit"),
        (f"Commit: `{ID}`", f"Commit: `{ID}`\nCommit: `{ID}`", "0.1.0 must have at most one line Commit"),
    ],
)
def test_malformed_changelog_is_refused(old: str, new: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_releases(EXAMPLE.replace(old, new))


def test_changelog_has_section_for_unreleased_changes_and_lists_newest_release_first() -> None:
    releases = read_releases(PAGE)
    versions = [tuple(map(int, release.version.split("."))) for release in releases]

    assert PAGE.index("\n## [Unreleased]\n") < PAGE.index("\n## [0.1.0] - ")
    assert versions == sorted(set(versions), reverse=True)
    assert [release.released_on for release in releases] == sorted(
        (release.released_on for release in releases), reverse=True
    )
