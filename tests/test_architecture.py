"""Tests that links, files and functions named in docs/architecture.md exist, and that walkthroughs name functions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text()
WALKS = ("A heartbeat", "A deployment", "An artifact", "A plan", "An approval")


def defined_names(path: str) -> set[str]:
    """Return the functions and classes of a module, and its methods as ``Class.method``."""
    names: set[str] = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names


def test_pages_and_files_named_in_architecture_page_exist() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    files = re.findall(r"`((?:apps|byteor|byteor_cloud|tests|docs)/[\w/.]*)", PAGE)

    assert links
    assert files
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_functions_named_in_architecture_page_are_defined_in_their_files() -> None:
    functions = re.findall(r"`([\w/]+\.py): ([\w.]+)`", PAGE)

    assert [f"{path}: {name}" for path, name in functions if name not in defined_names(path)] == []


def test_each_walkthrough_names_functions_in_at_least_five_steps() -> None:
    for walk in WALKS:
        section = PAGE.split(f"### {walk}\n")[1].split("\n#")[0]

        assert len(re.findall(r"^\d+\. `[\w/]+\.py: [\w.]+`", section, re.MULTILINE)) >= 5, walk
