"""What the rest of narpost needs of a Nix store."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StoreDir, StorePath


class Store(Protocol):
    """A store that can be asked and read, by any number of threads.

    Every call may be repeated. A store that does not answer is `StoreUnreachable`, one that
    answers with an error `StoreRefused`.
    """

    store_dir: StoreDir

    def closure(self, paths: Iterable[StorePath]) -> dict[StorePath, PathInfo]:
        """Every valid path that *paths* lead to by references, themselves included.

        What is not valid is left out, so a caller that needs a path looks whether it is there.
        """

    def valid_paths(self, paths: Iterable[StorePath]) -> set[StorePath]:
        """Those of *paths* that are in the store."""

    def built_paths(self) -> set[StorePath]:
        """Those that were built here, and neither copied nor substituted."""

    def outputs(self, derivation: StorePath) -> list[StorePath]:
        """The outputs of *derivation* that are known, valid or not."""

    def nar(self, info: PathInfo) -> AbstractContextManager[Iterator[bytes]]:
        """The path's NAR in large chunks, cut at its registered size.

        Whoever reads it compares the hash. An error raised inside of the context tells the
        store that these were not the bytes that it had promised.
        """

    def nars(self, infos: Sequence[PathInfo]) -> Generator[bytes]:
        """The NARs of small paths, each whole, cut at its registered size.

        Whoever reads them compares the hash. After a wrong one, or an error, the rest is not to
        be read: begin anew with those that follow.
        """
