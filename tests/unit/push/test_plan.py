"""What has to be posted, and in which order: claims that hold for every graph."""

from collections.abc import Iterable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StorePath
from narpost.push.plan import Plan, plan
from support.fake_store import closure, graph_of, graphs, path_info, store_path

Graph = Mapping[StorePath, PathInfo]


@st.composite
def caches(draw: st.DrawFn) -> tuple[Graph, frozenset[StorePath]]:
    """A closure, and what a cache has of it: any part, as though others had broken promises."""
    graph = draw(graphs())
    return graph, draw(st.frozensets(st.sampled_from(sorted(graph))))


def paths_of(decided: Plan) -> list[StorePath]:
    """The paths of the steps, in order."""
    return [step.info.path for step in decided.steps]


def waited_for(decided: Plan, paths: Iterable[StorePath]) -> set[StorePath]:
    """*paths*, and all that those of them that are steps wait for."""
    after = {step.info.path: step.after for step in decided.steps}
    found: set[StorePath] = set()
    asked = list(paths)
    while asked:
        path = asked.pop()
        if path not in found:
            found.add(path)
            asked.extend(after[path])
    return found


def missing_of(
    graph: Graph, present: frozenset[StorePath], roots: Iterable[StorePath]
) -> set[StorePath]:
    """What the cache lacks of the closure of *roots*."""
    return closure(graph, roots).keys() - present


@given(caches())
def test_each_missing_path_is_one_step(cache: tuple[Graph, frozenset[StorePath]]) -> None:
    """What is missing is posted once, and what is present is not."""
    graph, present = cache

    paths = paths_of(plan(graph, present))

    assert len(paths) == len(set(paths))
    assert set(paths) == graph.keys() - present


@given(caches())
def test_references_come_before_referrers(cache: tuple[Graph, frozenset[StorePath]]) -> None:
    """A path's whole closure, as far as it is missing, comes before the path."""
    graph, present = cache

    paths = paths_of(plan(graph, present))

    for position, path in enumerate(paths):
        below = missing_of(graph, present, [path]) - {path}
        assert below <= set(paths[:position])


@given(caches())
def test_a_step_waits_for_all_that_is_missing_below_it(
    cache: tuple[Graph, frozenset[StorePath]],
) -> None:
    """By itself or by what it waits for; also below paths that are present."""
    graph, present = cache

    decided = plan(graph, present)

    for step in decided.steps:
        path = step.info.path
        assert path not in step.after
        assert waited_for(decided, step.after) == missing_of(graph, present, [path]) - {path}


@given(caches())
def test_a_path_awaits_all_that_is_missing_of_its_closure(
    cache: tuple[Graph, frozenset[StorePath]],
) -> None:
    """So an entry whose path is there is not confirmed over a hole below it."""
    graph, present = cache

    decided = plan(graph, present)

    assert decided.awaits.keys() == graph.keys()
    for path, awaited in decided.awaits.items():
        assert waited_for(decided, awaited) == missing_of(graph, present, [path])


@given(graphs())
def test_nothing_is_left_to_do_where_all_is_present(graph: Graph) -> None:
    """No step, and nobody waits."""
    decided = plan(graph, graph.keys())

    assert decided.steps == ()
    assert set(decided.awaits.values()) == {frozenset()}


@given(caches())
def test_what_the_cache_has_beside_it_does_not_matter(
    cache: tuple[Graph, frozenset[StorePath]],
) -> None:
    """Paths that nobody asked about change no plan."""
    graph, present = cache

    assert plan(graph, present | {store_path("elsewhere")}) == plan(graph, present)


def test_a_path_that_refers_to_itself_does_not_wait_for_itself() -> None:
    """Nix's only rings are no rings."""
    itself = path_info("itself", store_path("itself"))

    decided = plan(graph_of(itself), ())

    assert [(step.info, step.after) for step in decided.steps] == [(itself, frozenset())]


def test_a_hole_below_a_path_that_is_present_is_mended() -> None:
    """Somebody deleted the library; the program that is there waits for it, and so do others."""
    library = path_info("library")
    program = path_info("program", library.path)
    bundle = path_info("bundle", program.path)

    decided = plan(graph_of(bundle, program, library), {program.path})

    assert paths_of(decided) == [library.path, bundle.path]
    assert decided.awaits[program.path] == {library.path}
    assert decided.steps[1].after == {library.path}
