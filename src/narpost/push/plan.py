"""What has to be posted, and in which order: a pure decision."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter

from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StorePath


@dataclass(frozen=True, slots=True)
class Step:
    """A missing path, and the missing paths that must be visible before it."""

    info: PathInfo
    after: frozenset[StorePath]


@dataclass(frozen=True, slots=True)
class Plan:
    """*steps* have references before referrers.

    *awaits* says for each path of the closure which steps it waits for: itself when it is
    missing, else what is missing below it (in a cache whose promises were broken by another).
    *lacking* says of each path that cannot be posted which path below it, or itself, is not in
    the store.
    """

    steps: tuple[Step, ...]
    awaits: Mapping[StorePath, frozenset[StorePath]]
    lacking: Mapping[StorePath, StorePath]


def plan(closure: Mapping[StorePath, PathInfo], present: Collection[StorePath]) -> Plan:
    """Order what *closure* has and *present* has not."""
    graph = {path: set(info.references) - {path} for path, info in closure.items()}
    steps: list[Step] = []
    awaits: dict[StorePath, frozenset[StorePath]] = {}
    lacking: dict[StorePath, StorePath] = {}
    for path in TopologicalSorter(graph).static_order():
        references = graph.get(path, ())
        below = frozenset[StorePath]().union(*(awaits[each] for each in references))
        awaits[path] = below
        lost = path if path not in closure else _first_lost(references, lacking)
        if lost is not None:
            lacking[path] = lost
        elif path not in present:
            steps.append(Step(closure[path], below))
            awaits[path] = frozenset((path,))
    return Plan(tuple(steps), awaits, lacking)


def _first_lost(
    references: Collection[StorePath], lacking: Mapping[StorePath, StorePath]
) -> StorePath | None:
    return next((lacking[each] for each in sorted(references) if each in lacking), None)
