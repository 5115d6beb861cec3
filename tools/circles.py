"""Find import circles: modules that import each other, directly or through others, wherever the import stands."""

from collections.abc import Iterator, Sequence

import grimp

from tools.source import PACKAGES


def import_circles(packages: Sequence[str] = PACKAGES) -> Iterator[list[str]]:
    """The shortest circle through each group of modules that import each other: a, b, …, a.

    Imports inside functions and below `if TYPE_CHECKING` count. The packages must be importable.
    """
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=False, cache_dir=None)
    upstream = {module: graph.find_upstream_modules(module) for module in graph.modules}
    seen: set[str] = set()
    for module in sorted(graph.modules):
        group = {module} | {other for other in upstream[module] if module in upstream[other]}
        if len(group) == 1 or module in seen:
            continue
        seen |= group
        yield min(_circles_within(graph, group), key=lambda circle: (len(circle), circle))


def _circles_within(graph: grimp.ImportGraph, group: set[str]) -> Iterator[list[str]]:
    for importer in group:
        for imported in graph.find_modules_directly_imported_by(importer) & group:
            back = graph.find_shortest_chain(importer=imported, imported=importer)
            if back is not None:
                yield [importer, *back]
