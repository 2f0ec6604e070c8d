"""NARs: the bytes that we read from a store are those of `nix-store --dump`."""

import hashlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from narpost.nix.path_info import PathInfo
from narpost.store.local import LocalStore
from support.opened_store import WAYS, info_of, opened
from support.private_store import PrivateStore, derivation, tree

DUMP_SECONDS = 60
MIB = 1 << 20
FOUR_GIB = 1 << 32

TREES = {
    "each kind of file": tree(),
    "a file": derivation("file", "echo text > $out"),
    "an executable": derivation("executable", "echo '#!/bin/sh' > $out; chmod +x $out"),
    "an empty file": derivation("empty-file", ": > $out"),
    "an empty executable": derivation("empty-executable", ": > $out; chmod +x $out"),
    "an empty folder": derivation("empty-folder", "mkdir $out"),
    "a symlink": derivation("symlink", "ln -s $PWD $out"),
    "a dangling symlink": derivation("dangling", "ln -s nowhere $out"),
    "a symlink to itself": derivation("loop", "ln -s $out $out"),
    "names that are no text": derivation(
        "no-text",
        r"""mkdir $out; cd $out; for byte in 001 033 177 200 303 377
        do : > "$(printf "\\$byte")"; ln -s "$(printf "to \\$byte")" "link $byte"; done""",
    ),
    "each padding": derivation(
        "paddings",
        "mkdir $out; cd $out; for size in $(seq 0 17); do head -c $size /dev/zero > $size; done",
    ),
    "sizes about a chunk": derivation(
        "chunks",
        "mkdir $out; cd $out"
        "; for size in $(seq 1048440 8 1048584); do head -c $size /dev/urandom > $size; done",
    ),
    "many files": derivation(
        "many", "mkdir $out; cd $out; for each in $(seq 2000); do echo $each > $each; done"
    ),
    "deep folders": derivation(
        "deep", "mkdir $out; cd $out; for each in $(seq 100); do mkdir $each; cd $each; done"
    ),
}


@pytest.fixture(params=WAYS)
def store(request: pytest.FixtureRequest, private_store: PrivateStore) -> Iterator[LocalStore]:
    """The private store, opened each way."""
    with opened(private_store, request.param) as store:
        yield store


def read(store: LocalStore, info: PathInfo) -> bytes:
    """The path's NAR as we read it."""
    with store.nar(info) as chunks:
        return b"".join(chunks)


def dump(nix: PrivateStore, path: str) -> bytes:
    """The path's NAR as Nix writes it."""
    with dumping(nix, path) as nar:
        return nar.read()


@contextmanager
def dumping(nix: PrivateStore, path: str) -> Iterator[IO[bytes]]:
    """The path's NAR as Nix writes it, as a stream that is to be read to its end."""
    command = ["timeout", str(DUMP_SECONDS), "nix-store", "--dump", path]
    with subprocess.Popen(
        command, env=nix.environment(), stdout=subprocess.PIPE, pipesize=MIB
    ) as process:
        assert process.stdout is not None
        yield process.stdout
    assert process.returncode == 0


def digest_of_small_chunks(chunks: Iterator[bytes]) -> tuple[bytes, int]:
    """Hash and size of all *chunks*, none of which is larger than a MiB."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        assert len(chunk) <= MIB
        digest.update(chunk)
        size += len(chunk)
    return digest.digest(), size


def add_huge(nix: PrivateStore, small: PathInfo) -> str:
    """Make a sparse file that is 4 GiB longer than that of *small*, and return its store path.

    It is registered with the hash of *small*: Nix would take 13 s to find its own.
    """
    path = nix.store_dir / f"{'0' * 32}-huge"
    with path.open("wb") as file:
        file.truncate((nix.store_dir / small.path.base_name).stat().st_size + FOUR_GIB)
    path.chmod(0o444)
    registered = [path, small.nar_hash.digest.hex(), small.nar_bytes + FOUR_GIB, "", 0]
    nix.run("nix-store", "--load-db", stdin="".join(f"{line}\n" for line in registered))
    return str(path)


@pytest.mark.parametrize("expression", TREES.values(), ids=TREES)
def test_nar_is_that_of_nix_for(
    private_store: PrivateStore, store: LocalStore, expression: str
) -> None:
    """What we read of the tree is byte for byte what Nix dumps."""
    [path] = private_store.build(expression)

    nar = read(store, info_of(store, path))

    assert nar == dump(private_store, path)


def test_nars_follow_each_other(private_store: PrivateStore, store: LocalStore) -> None:
    """Of many NARs in a row each begins where it should."""
    paths = private_store.build(f"[ {' '.join(f'({each})' for each in TREES.values())} ]")
    infos = {path: info_of(store, path) for path in paths}

    nars = {path: read(store, info) for path, info in infos.items()}

    assert nars == {path: dump(private_store, path) for path in paths}


def test_nars_are_read_by_many_threads(private_store: PrivateStore, store: LocalStore) -> None:
    """Threads that read at the same time each get their own NAR."""
    paths = private_store.build(f"[ {' '.join(f'({each})' for each in TREES.values())} ]")
    infos = [info_of(store, path) for path in paths]

    with ThreadPoolExecutor(4) as threads:
        nars = list(threads.map(lambda info: read(store, info), infos * 3))

    assert nars == [dump(private_store, path) for path in paths] * 3


@pytest.mark.parametrize("rest_bytes", [8, 4096, 3 * MIB])
def test_nar_that_was_left_harms_no_other(
    private_store: PrivateStore, store: LocalStore, rest_bytes: int
) -> None:
    """After a reader that stopped early, however much is left, the next gets its NAR whole."""
    size = MIB + rest_bytes
    [path] = private_store.build(derivation("left", f"head -c {size} /dev/urandom > $out"))
    info = info_of(store, path)

    with store.nar(info) as chunks:
        next(chunks)
    nar = read(store, info)

    assert nar == dump(private_store, path)


def test_nar_over_four_gib_is_that_of_nix(private_store: PrivateStore, tmp_path: Path) -> None:
    """A file whose size needs more than 32 bits comes whole, in chunks that memory can hold."""
    (tmp_path / "small").write_bytes(b"abc")
    small = private_store.add(tmp_path / "small")

    with opened(private_store, "local") as child, opened(private_store, "daemon") as daemon:
        path = add_huge(private_store, info_of(child, small))
        info = info_of(child, path)
        with (
            dumping(private_store, path) as theirs,
            child.nar(info) as by_child,
            daemon.nar(info) as by_daemon,
            ThreadPoolExecutor(3) as readers,
        ):
            # All three at once, so that the disk is read but once.
            by_nix = iter(lambda: theirs.read(MIB), b"")
            digests = set(readers.map(digest_of_small_chunks, (by_child, by_daemon, by_nix)))

    assert info.nar_bytes > FOUR_GIB
    assert len(digests) == 1
