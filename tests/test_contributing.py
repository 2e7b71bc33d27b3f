"""Tests that links, files and commands in CONTRIBUTING.md exist, and tests of its recipes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
ROOMS = ("apps", "byteor", "byteor_cloud", "tests", "docs", "templates")
# In recipes, APP stands for an app. The app pipelines has every file in the recipes except for jobs.py and tasks.py,
# which the app fleet has.
EXAMPLE_APPS = ("pipelines", "fleet")


def exists(path: str) -> bool:
    if path.endswith(".md") and "/" not in path:
        return (ROOT / path).exists()
    return any((ROOT / path.replace("APP", app)).exists() for app in EXAMPLE_APPS)


def recipes() -> list[tuple[str, str]]:
    """Return the title and the text of each recipe."""
    section = PAGE.split("\n## Recipes\n")[1].split("\n## ")[0]
    return [(part.split("\n")[0], part) for part in section.split("\n### ")[1:]]


def test_pages_and_files_named_in_contributing_page_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in link]
    files = re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w/.]*)`", PAGE)

    assert links
    assert files
    assert [path for path in [*links, *files] if not exists(path)] == []


def test_make_targets_and_test_paths_named_in_contributing_page_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    commands = re.findall(r"(?:[`$] ?|and )make ([a-z-]+)", PAGE)
    arguments = re.findall(r"make test ARGS='([^']+)'", PAGE)
    tests = [path for argument in arguments for path in re.findall(r"tests/\S+", argument)]

    assert commands
    assert set(commands) <= targets
    assert tests
    assert [path for path in tests if not exists(path)] == []


def test_identifiers_in_recipe_step_occur_in_its_file() -> None:
    """In a step ``N. `file.py`: …``, names in backticks that start with ``_`` or a capital letter occur in the file.

    Files in APP are not checked.
    """
    missing = []
    for title, text in recipes():
        for path, rest in re.findall(r"^\d+\. `([\w/.]+\.py)`: ((?:.|\n   )*)", text, re.MULTILINE):
            if "APP" in path:
                continue
            source = (ROOT / path).read_text()
            names = re.findall(r"`(_\w+|[A-Z][A-Za-z_]+)`", rest)
            missing += [f"{title}: {name} in {path}" for name in names if not re.search(rf"\b{name}\b", source)]

    assert missing == []


def test_recipes_state_their_test_command_and_number_of_files() -> None:
    titles = [title for title, _ in recipes()]

    assert len(titles) == 12
    for title, text in recipes():
        stated = re.search(r"\((\d+) files?(?:, \d+ [a-z ]+)?\)$", title)
        steps = re.findall(r"^\d+\. (?!Only if)", text, re.MULTILINE)
        assert stated is not None, title
        assert int(stated[1]) == len(steps), title
        assert int(stated[1]) <= 10, title
        assert re.search(r"Run: `make \w+ ARGS='", text), title
