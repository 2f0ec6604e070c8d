"""A store in memory that keeps the promise of `Store`, and graphs of paths to put into it."""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from hypothesis import strategies as st

from narpost.nix import base32
from narpost.nix.hashes import Hash
from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StoreDir, StorePath

STORE_DIR = StoreDir("/nix/store")
CHUNK_BYTES = 7

Graph = Mapping[StorePath, PathInfo]


class FakeStore:
    """Has the paths of *graph*, whose NARs are `nar_of` them, however little of a NAR that is."""

    def __init__(self, graph: Graph) -> None:
        self.store_dir = STORE_DIR
        self._infos = dict(graph)
        self._on_disk = {path: nar_of(path) for path in graph}

    def spoil(self, path: StorePath) -> None:
        """From now on, the bytes on disk are not those that were registered."""
        self._on_disk[path] = bytes(len(self._on_disk[path]))

    def lose(self, path: StorePath) -> None:
        """From now on, *path* is not valid, whoever refers to it."""
        del self._infos[path]

    def closure(self, paths: Iterable[StorePath]) -> dict[StorePath, PathInfo]:
        """All that *paths* lead to."""
        return closure(self._infos, paths)

    def valid_paths(self, paths: Iterable[StorePath]) -> set[StorePath]:
        """Those that are there."""
        return set(paths) & self._infos.keys()

    def built_paths(self) -> set[StorePath]:
        """All that are said to be."""
        return {path for path, info in self._infos.items() if info.is_ultimate}

    def outputs(self, derivation: StorePath) -> list[StorePath]:
        """There are no derivations."""
        return []

    @contextmanager
    def nar(self, info: PathInfo) -> Iterator[Iterator[bytes]]:
        """The bytes on disk, in pieces, up to the size that was registered."""
        data = self._on_disk[info.path][: info.nar_bytes]
        yield (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))

    def nars(self, infos: Sequence[PathInfo]) -> Generator[bytes]:
        """Each whole, up to the size that was registered."""
        for info in infos:
            with self.nar(info) as chunks:
                yield b"".join(chunks)


def closure(graph: Graph, paths: Iterable[StorePath]) -> dict[StorePath, PathInfo]:
    """What *graph* has of *paths* and of all that they lead to."""
    found: dict[StorePath, PathInfo] = {}
    asked = list(paths)
    while asked:
        path = asked.pop()
        if path in graph and path not in found:
            found[path] = graph[path]
            asked.extend(graph[path].references)
    return found


def store_path(name: str) -> StorePath:
    """A path by this name."""
    hash_part = base32.encode(hashlib.sha256(name.encode()).digest()[:20])
    return StorePath.parse(f"{hash_part}-{name}")


def nar_of(path: StorePath) -> bytes:
    """The bytes that stand for the NAR of *path*."""
    return f"the NAR of {path}\n".encode() * 3


def path_info(name: str, *references: StorePath) -> PathInfo:
    """What is registered about the path *name*, which refers to these."""
    path = store_path(name)
    data = nar_of(path)
    nar_hash = Hash.sha256(hashlib.sha256(data).digest())
    return PathInfo(path, nar_hash, len(data), tuple(sorted(references)))


def graph_of(*infos: PathInfo) -> dict[StorePath, PathInfo]:
    """These paths as a graph."""
    return {info.path: info for info in infos}


@st.composite
def graphs(draw: st.DrawFn, max_size: int = 8) -> dict[StorePath, PathInfo]:
    """Any graph that Nix could hold: no rings, but for paths that refer to themselves."""
    names = draw(st.permutations([f"path-{number}" for number in range(max_size)]))
    size = draw(st.integers(1, max_size))
    graph: dict[StorePath, PathInfo] = {}
    for name in names[:size]:
        below = draw(st.sets(st.sampled_from(sorted(graph)))) if graph else set()
        itself = {store_path(name)} if draw(st.booleans()) else set()
        graph |= graph_of(path_info(name, *below, *itself))
    return graph


@st.composite
def some_of(draw: st.DrawFn, graph: Graph) -> set[StorePath]:
    """Some of the paths of *graph*, one at least."""
    return draw(st.sets(st.sampled_from(sorted(graph)), min_size=1))
