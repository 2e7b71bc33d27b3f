"""The imports of the product's modules have no cycles. The contracts in pyproject.toml check the order of packages."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

PACKAGES = ("byteor", "byteor_cloud", "apps")


def sort(imports: dict[str, set[str]]) -> list[str]:
    """Return the modules so that each follows the modules that it imports. Raises CycleError for a cycle."""
    return list(TopologicalSorter(imports).static_order())


def test_modules_have_no_import_cycles() -> None:
    graph = grimp.build_graph(*PACKAGES)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}

    assert len(sort(imports)) == len(graph.modules) > 500

    top, bottom = "apps.console.pages.home.page", "byteor.engine.strict_json"
    with pytest.raises(CycleError):
        sort(imports | {bottom: {top}})
