"""What we learn of a store is what Nix says of it, also when a daemon or a path fails us."""

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from narpost.errors import NarpostError, PathCorrupt, StoreUnreachable, UsageError
from narpost.nix.hashes import Hash
from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StoreDir, StorePath
from narpost.push.compression import Compression
from narpost.push.pack import Packed, pack_in_memory
from narpost.store.connection import Connection
from narpost.store.local import LocalStore
from support.nix_processes import children, kill, serving
from support.opened_store import STALL_SECONDS, WAYS, daemon, info_of, opened, parsed, within
from support.private_store import PrivateStore, derivation
from support.samples import PROGRAM, SELF, SEVERAL, VARIED, lattice

WAIT_SECONDS = 10.0

LARGE = derivation("large", "mkdir $out; head -c 9000000 /dev/urandom > $out/file")
CLIENT_MAGIC, DAEMON_MAGIC = 0x6E697863, 0x6478696F
AS_REGISTERED = Compression("none", 0).start()


def packed_alone(info: PathInfo, store: LocalStore) -> Packed:
    """One path, packed as it is; its error is raised."""
    [result] = pack_in_memory([info], store, AS_REGISTERED)
    if isinstance(result, Exception):
        raise result
    return result


@pytest.fixture(params=WAYS)
def store(request: pytest.FixtureRequest, private_store: PrivateStore) -> Iterator[LocalStore]:
    """The private store, opened each way."""
    with opened(private_store, request.param) as store:
        yield store


def described(nix: PrivateStore, *options: str) -> dict[StorePath, PathInfo]:
    """What `nix path-info --json` of Nix 2.8 says."""
    store_dir = StoreDir(str(nix.store_dir))
    infos = [
        PathInfo(
            path=store_dir.parse(each["path"]),
            nar_hash=Hash.parse(each["narHash"]),
            nar_bytes=each["narSize"],
            references=tuple(map(store_dir.parse, each["references"])),
            deriver=store_dir.parse(each["deriver"]) if "deriver" in each else None,
            signatures=tuple(each.get("signatures", ())),
            content_address=each.get("ca", ""),
            is_ultimate=each.get("ultimate", False),
        )
        for each in json.loads(nix.run("nix", "path-info", "--json", *options))
    ]
    return {info.path: info for info in infos}


def instantiate(nix: PrivateStore, expression: str) -> str:
    """The derivation of *expression*, not built."""
    return nix.run("nix-instantiate", "--expr", expression).strip()


def sign(nix: PrivateStore, folder: Path, name: str, *paths: str) -> None:
    """Let Nix sign *paths* by a new key."""
    secret, public = folder / name, folder / f"{name}.public"
    nix.run("nix-store", "--generate-binary-cache-key", name, str(secret), str(public))
    nix.run("nix", "store", "sign", "--key-file", str(secret), *paths)


def substitute(nix: PrivateStore, cache: Path, path: str) -> None:
    """Make *path* one that another store has built."""
    nix.run("nix", "copy", "--to", f"file://{cache}", path)
    nix.delete(path)
    options = ("--option", "substituters", f"file://{cache}", "--option", "require-sigs", "false")
    nix.run("nix-store", "--realise", path, *options)


def connect(nix: PrivateStore) -> Connection:
    """A connection of our own to the daemon of *nix*."""
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(str(nix.socket))
    return Connection(stream, StoreDir(str(nix.store_dir)), stall_seconds=STALL_SECONDS)


def read(store: LocalStore, info: PathInfo) -> bytes:
    """The path's NAR as we read it."""
    with store.nar(info) as chunks:
        return b"".join(chunks)


def test_closure_is_that_of_nix(
    private_store: PrivateStore, store: LocalStore, tmp_path: Path
) -> None:
    """For each kind of path, everything registered is as `nix path-info` shows it."""
    paths = private_store.build(VARIED)
    (tmp_path / "added").write_text("by hand\n")
    added = private_store.add(tmp_path / "added")
    sign(private_store, tmp_path, "b.example.org-1", *paths[:3], added)
    sign(private_store, tmp_path, "a.example.org-1", *paths[1:4])
    [self] = private_store.build(SELF)
    private_store.delete(*paths[4:])  # What refers to it.
    substitute(private_store, tmp_path / "cache", self)
    paths = [*private_store.build(VARIED), added]

    closure = store.closure(parsed(private_store, *paths))

    assert closure == described(private_store, "--recursive", *paths)
    assert {info.is_ultimate for info in closure.values()} == {True, False}
    assert {len(info.signatures) for info in closure.values()} == {0, 1, 2}
    assert {bool(info.content_address) for info in closure.values()} == {True, False}


def test_closure_of_derivations_is_that_of_nix(
    private_store: PrivateStore, store: LocalStore
) -> None:
    """A derivation's closure is all the derivations that it needs."""
    path = instantiate(private_store, PROGRAM)

    closure = store.closure(parsed(private_store, path))

    assert len(closure) > 1
    assert closure.keys() == parsed(
        private_store, *private_store.run("nix-store", "--query", "--requisites", path).split()
    )
    assert closure == described(private_store, "--derivation", "--recursive", path)


def test_a_wide_closure_is_that_of_nix(private_store: PrivateStore, store: LocalStore) -> None:
    """More paths on one level than are asked at once are all found."""
    files = "builtins.genList (n: builtins.toFile (toString n) (toString n)) 300"
    path = instantiate(private_store, derivation("wide", attributes=f"files = {files};"))

    closure = store.closure(parsed(private_store, path))

    assert len(closure) == 300 + 1
    assert closure == described(private_store, "--derivation", "--recursive", path)


def test_a_woven_closure_is_that_of_nix(private_store: PrivateStore, store: LocalStore) -> None:
    """Paths that many lead to, on many levels, are each found once."""
    top = private_store.build(lattice(depth=4, width=10))

    closure = store.closure(parsed(private_store, *top))

    assert len(closure) == 4 * 10
    assert closure == described(private_store, "--recursive", *top)


def test_closure_leaves_out_what_is_not_valid(
    private_store: PrivateStore, store: LocalStore
) -> None:
    """A path that was deleted, and one that never was, are left out and spoil nothing."""
    [kept, gone] = private_store.build(f"[ ({SELF}) ({LARGE}) ]")
    private_store.delete(gone)
    never = str(private_store.store_dir / f"{'0' * 32}-never")

    closure = store.closure(parsed(private_store, gone, kept, never))

    assert closure == described(private_store, kept)


def test_closure_of_nothing_is_empty(store: LocalStore) -> None:
    """No path has no closure."""
    closure = store.closure([])

    assert closure == {}


def test_valid_paths_are_those_of_nix(private_store: PrivateStore, store: LocalStore) -> None:
    """Of built, deleted and unknown paths, those are valid that Nix calls so."""
    [kept, gone] = private_store.build(f"[ ({SELF}) ({LARGE}) ]")
    private_store.delete(gone)
    never = str(private_store.store_dir / f"{'0' * 32}-never")

    valid = store.valid_paths(parsed(private_store, kept, gone, never))

    assert valid == parsed(private_store, kept)
    assert [private_store.is_valid(each) for each in (kept, gone, never)] == [True, False, False]


def test_all_valid_paths_are_those_of_nix(private_store: PrivateStore) -> None:
    """The whole store is what `nix path-info --all` lists."""
    private_store.build(VARIED)

    with daemon(private_store):
        connection = connect(private_store)
        everything = connection.all_valid_paths()
        connection.close()

    assert everything == described(private_store, "--all").keys()


def test_outputs_are_those_of_nix(private_store: PrivateStore, store: LocalStore) -> None:
    """A derivation with three outputs has these three, built or not."""
    path = instantiate(private_store, SEVERAL)
    [derivation_path] = parsed(private_store, path)

    before = store.outputs(derivation_path)
    private_store.run("nix-store", "--realise", path)
    after = store.outputs(derivation_path)

    listed = private_store.run("nix-store", "--query", "--outputs", path).split()
    assert len(before) == 3
    assert set(before) == set(after) == parsed(private_store, *listed)


def test_outputs_of_a_derivation_that_is_gone_are_an_error_of_ours(
    private_store: PrivateStore, store: LocalStore
) -> None:
    """Nix's own words reach the person, and the store answers the next question."""
    path = instantiate(private_store, SELF)
    private_store.collect_garbage()
    [derivation_path] = parsed(private_store, path)

    with pytest.raises(NarpostError, match=derivation_path.base_name):
        store.outputs(derivation_path)

    assert store.valid_paths([derivation_path]) == set()


# What we say to a daemon.


def test_we_go_down_to_the_protocol_of_nix_2_8(private_store: PrivateStore) -> None:
    """With the daemon of Nix 2.8 we speak its 1.34."""
    with daemon(private_store):
        connection = connect(private_store)
        connection.close()

    assert connection.protocol == (1, 34)


@pytest.mark.parametrize(
    ("theirs", "ours"), [((1, 34), (1, 34)), ((1, 35), (1, 35)), ((1, 38), (1, 35))]
)
def test_we_offer_1_35_and_no_more_than_the_daemon(
    theirs: tuple[int, int], ours: tuple[int, int]
) -> None:
    """A newer daemon comes down to our 1.35, an older one gets its own back."""
    here, there = socket.socketpair()
    with there, ThreadPoolExecutor(1) as threads:
        there.settimeout(WAIT_SECONDS)
        heard = threads.submit(greet_and_hang_up, there, theirs)

        with pytest.raises(StoreUnreachable):
            Connection(here, StoreDir(), stall_seconds=WAIT_SECONDS)

        assert heard.result() == (CLIENT_MAGIC, ours)


def greet_and_hang_up(
    peer: socket.socket, protocol: tuple[int, int]
) -> tuple[int, tuple[int, int]]:
    """Begin as a daemon of that *protocol* would; return the magic and protocol of the client."""
    [magic] = struct.unpack("<Q", peer.recv(8, socket.MSG_WAITALL))
    peer.sendall(struct.pack("<QQ", DAEMON_MAGIC, protocol[0] << 8 | protocol[1]))
    [version] = struct.unpack("<Q", peer.recv(8, socket.MSG_WAITALL))
    peer.shutdown(socket.SHUT_RDWR)
    return magic, divmod(version, 1 << 8)


# Where there is no daemon, or it goes away.


def test_auto_starts_a_child_where_there_is_no_socket(private_store: PrivateStore) -> None:
    """In a store without a daemon, one process of Nix is ours while the store is open."""
    before = children(os.getpid())

    with opened(private_store, "auto") as store:
        store.valid_paths([])
        while_open = children(os.getpid())
    after = children(os.getpid())

    assert len(while_open) == len(before) + 1
    assert after == before


def test_auto_takes_the_socket_where_there_is_one(private_store: PrivateStore) -> None:
    """Beside a daemon nothing is started by us."""
    with daemon(private_store), opened(private_store, "auto") as store:
        before = children(os.getpid())
        store.valid_paths([])
        while_open = children(os.getpid())

    assert while_open == before


@pytest.mark.parametrize("has_stale_socket", [False, True], ids=["missing", "left over"])
def test_a_socket_without_a_daemon_is_unreachable(
    private_store: PrivateStore, has_stale_socket: bool
) -> None:
    """The message names the socket, whether missing or left over, and the hint starts Nix."""
    if has_stale_socket:
        with daemon(private_store):
            pass

    with (
        opened_at(private_store, f"unix://{private_store.socket}") as store,
        pytest.raises(StoreUnreachable, match=str(private_store.socket)) as raised,
    ):
        store.valid_paths([])

    assert private_store.socket.exists() == has_stale_socket
    assert "nix-daemon" in raised.value.hint


def test_a_missing_program_is_unreachable(
    private_store: PrivateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no Nix is installed, the hint says to install one or to name a socket."""
    with opened(private_store, "local") as store:
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(StoreUnreachable, match="nix-daemon") as raised:
            store.valid_paths([])

    assert "install Nix" in raised.value.hint


def test_a_child_that_cannot_open_the_store_says_why(private_store: PrivateStore) -> None:
    """What the child wrote to stderr is in the message."""
    private_store.build(SELF)
    database = private_store.state_dir / "db" / "schema"
    database.write_text("no number")

    with opened(private_store, "local") as store, pytest.raises(StoreUnreachable, match="schema"):
        store.valid_paths([])


def test_a_store_of_an_unknown_kind_is_a_usage_error(private_store: PrivateStore) -> None:
    """The hint lists what may be written."""
    with (
        pytest.raises(UsageError, match="ssh://host") as raised,
        opened(private_store, "ssh://host"),
    ):
        pass

    assert "auto, local, daemon" in raised.value.hint


def test_more_callers_than_the_daemon_lets_wait_are_all_served(
    private_store: PrivateStore,
) -> None:
    """Nix lets five callers wait to be let in; the sixth waits as well, and does not fail."""
    [path] = private_store.build(SELF)
    wanted = parsed(private_store, path)
    callers = 64
    gate = threading.Barrier(callers)

    def ask(store: LocalStore) -> set[StorePath]:
        gate.wait(WAIT_SECONDS)
        return store.valid_paths(wanted)

    with opened(private_store, "daemon") as store, ThreadPoolExecutor(callers) as threads:
        answers = list(threads.map(ask, [store] * callers))

    assert answers == [wanted] * callers


def test_an_idle_connection_that_died_is_not_used(
    private_store: PrivateStore, store: LocalStore
) -> None:
    """When Nix hung up while we were silent, the next question goes to a new connection."""
    [path] = private_store.build(SELF)
    before = info_of(store, path)

    kill(serving(private_store))
    after = info_of(store, path)

    assert before == after


def test_a_nar_that_is_cut_off_is_unreachable(
    private_store: PrivateStore, store: LocalStore
) -> None:
    """When Nix dies in the middle of a NAR that is an error of ours; then all is well again."""
    [path] = private_store.build(LARGE)
    info = info_of(store, path)

    with pytest.raises(StoreUnreachable), store.nar(info) as chunks:
        next(chunks)
        kill(serving(private_store))
        for _ in chunks:
            pass
    nar = read(store, info)

    assert len(nar) == info.nar_bytes


def test_a_daemon_may_go_and_come_back(private_store: PrivateStore) -> None:
    """While there is no daemon the store is unreachable; the next daemon serves the same store."""
    [path] = private_store.build(SELF)
    wanted = parsed(private_store, path)

    with ExitStack() as stack, opened_at(private_store, "daemon") as store:
        with daemon(private_store):
            before = store.valid_paths(wanted)
            handlers = serving(private_store)
        kill(handlers)
        with pytest.raises(StoreUnreachable):
            store.valid_paths(wanted)
        stack.enter_context(daemon(private_store))
        after = store.valid_paths(wanted)

    assert before == after == wanted


@contextmanager
def opened_at(nix: PrivateStore, spec: str) -> Iterator[LocalStore]:
    """Open what *spec* names in *nix*, and start nothing for it."""
    with (
        within(nix) as place,
        closing(LocalStore.open(spec, place, stall_seconds=STALL_SECONDS)) as store,
    ):
        yield store


# Where a path is not what Nix registered.


def flip_a_byte(file: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lengthen(file: Path) -> None:
    """Add far more than a socket's buffer holds."""
    file.write_bytes(file.read_bytes() + bytes(3_000_000))


def lengthen_slightly(file: Path) -> None:
    """Add less than the padding has room for."""
    file.write_bytes(file.read_bytes() + b"\1")


def shorten(file: Path) -> None:
    """Take away the last third."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def make_executable(file: Path) -> None:
    """Change nothing but the mode."""
    file.chmod(0o755)


def corrupted(nix: PrivateStore, path: str, harm: Callable[[Path], None]) -> None:
    """Do *harm* to the file in *path*."""
    folder = Path(path)
    [file] = folder.iterdir()
    folder.chmod(0o755)
    file.chmod(0o644)
    harm(file)


@pytest.mark.parametrize("harm", [flip_a_byte, lengthen, lengthen_slightly, make_executable])
def test_a_path_that_was_changed_is_corrupt(
    private_store: PrivateStore, store: LocalStore, harm: Callable[[Path], None]
) -> None:
    """It is not packed; the error names path and remedy; the next paths are read rightly."""
    [harmed, whole] = private_store.build(f"[ ({LARGE}) ({PROGRAM}) ]")
    info, other = info_of(store, harmed), info_of(store, whole)
    corrupted(private_store, harmed, harm)

    with pytest.raises(PathCorrupt, match=info.path.base_name) as raised:
        packed_alone(info, store)
    packed = [packed_alone(other, store) for _ in range(3)]

    assert f"nix-store --repair-path {harmed}" in raised.value.hint
    assert [each.file_hash for each in packed] == [other.nar_hash] * 3
    assert info_of(store, whole) == other


@pytest.mark.parametrize("harm", [shorten, Path.unlink])
@pytest.mark.parametrize("way", WAYS)
def test_a_path_that_has_too_few_bytes_ends_in_time(
    private_store: PrivateStore, way: str, harm: Callable[[Path], None]
) -> None:
    """The NAR ends before its registered size: we give up, and read the next paths rightly."""
    [harmed, whole] = private_store.build(f"[ ({LARGE}) ({PROGRAM}) ]")

    with opened(private_store, way) as store:
        info, other = info_of(store, harmed), info_of(store, whole)
        corrupted(private_store, harmed, harm)
        with pytest.raises(PathCorrupt):
            packed_alone(info, store)
        packed = [packed_alone(other, store) for _ in range(3)]

        assert [each.file_hash for each in packed] == [other.nar_hash] * 3
        assert info_of(store, whole) == other
