"""What we post is what `nix copy` posts, in an order that keeps every promise; Nix takes it."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from narpost.cache.binary_cache import BinaryCache
from narpost.cache.bucket import Bucket
from narpost.errors import Passing
from narpost.nix.cache_info import CacheInfo
from narpost.nix.cache_names import CACHE_INFO, NAR_EXTENSIONS, nar_key, narinfo_key
from narpost.nix.narinfo import NarInfo
from narpost.nix.signing import SecretKey
from narpost.nix.store_path import StorePath
from narpost.push.compression import Compression
from narpost.push.pack import Packer
from narpost.push.plan import plan
from narpost.push.publish import Publisher
from narpost.push.shelf import Shelf
from narpost.store.local import LocalStore
from support.opened_store import info_of, opened, parsed
from support.private_store import NixFailed, PrivateStore, derivation, tree
from support.recording_bucket import RecordingBucket
from support.samples import LIBRARY, PROGRAM, VARIED, lattice

PUSH_SECONDS = 60
NARPOST = str(Path(sys.executable).with_name("narpost"))
# Fields that depend on how a compressor of the same format was called.
OF_THE_FILE = ("URL", "Compression", "FileHash", "FileSize")
# Packed by way of a file.
LARGE = derivation("large", "head -c 5000000 /dev/urandom > $out")
# Its NARs are named by the hashes that Nix has registered.
UNCOMPRESSED = Compression("none", 0)


def make_key(store: PrivateStore, folder: Path, name: str = "ours.example.org-1") -> Path:
    """A secret key of Nix's making."""
    secret, public = folder / name, folder / f"{name}.public"
    store.run("nix-store", "--generate-binary-cache-key", name, str(secret), str(public))
    return secret


def push(
    store: PrivateStore, cache: Path, paths: Sequence[str], key: Path | None = None, query: str = ""
) -> None:
    """Post *paths* by the real command, signed with *key* or not at all."""
    sign = f'secret-key-files = ["{key}"]' if key else "sign = false"
    file = store.home / "narpost.toml"
    file.write_text(
        f'[queue]\nstate = "{store.home}/state"\n[[cache]]\nurl = "file://{cache}{query}"\n{sign}\n'
    )
    subprocess.run(
        [NARPOST, "push", *paths],
        env=store.environment() | {"NARPOST_CONFIG": str(file)},
        cwd=store.folder,
        check=True,
        timeout=PUSH_SECONDS,
    )


def copy(store: PrivateStore, cache: Path, paths: Sequence[str], query: str = "") -> None:
    """Post *paths* by Nix."""
    store.run("nix", "copy", "--to", f"file://{cache}{query}", *paths)


def files_of(cache: Path) -> dict[str, bytes]:
    """Each file of a cache, by its key."""
    return {
        str(file.relative_to(cache)): file.read_bytes()
        for file in cache.rglob("*")
        if file.is_file()
    }


def stamps_of(cache: Path) -> dict[str, tuple[int, int]]:
    """Which file lies at each key, and when it was last written."""
    stats = {str(file): file.stat() for file in cache.rglob("*") if file.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def narinfos_of(cache: Path) -> dict[str, list[str]]:
    """The lines of each narinfo, but for what says how its NAR is compressed."""
    return {
        file.name: [
            line for line in file.read_text().splitlines() if not line.startswith(OF_THE_FILE)
        ]
        for file in cache.glob("*.narinfo")
    }


def signatures_of(cache: Path, path: str) -> list[str]:
    """The signatures in the narinfo of *path*."""
    narinfo = cache / f"{Path(path).name[:32]}.narinfo"
    return [
        line.removeprefix("Sig: ")
        for line in narinfo.read_text().splitlines()
        if line.startswith("Sig: ")
    ]


def requisites(store: PrivateStore, *paths: str) -> list[str]:
    """The closure of *paths*, by Nix."""
    return store.run("nix-store", "--query", "--requisites", *paths).split()


def dumps(store: PrivateStore, paths: Sequence[str]) -> dict[str, str]:
    """The hash of the NAR of each path, by what lies on the disk."""
    return {path: dump_hash(store, path) for path in paths}


def dump_hash(store: PrivateStore, path: str) -> str:
    """The hash of what `nix-store --dump` gives."""
    command = ["nix-store", "--dump", path]
    nar = subprocess.run(
        command, env=store.environment(), stdout=subprocess.PIPE, check=True, timeout=PUSH_SECONDS
    ).stdout
    return hashlib.sha256(nar).hexdigest()


def test_narinfos_are_those_of_nix_copy(private_store: PrivateStore, tmp_path: Path) -> None:
    """With the same key, each narinfo of a closure is that of Nix, but for the compressed file."""
    paths = private_store.build(VARIED)
    (tmp_path / "added").write_text("by hand\n")
    paths.append(private_store.add(tmp_path / "added"))
    ours, theirs, key = tmp_path / "ours", tmp_path / "theirs", make_key(private_store, tmp_path)

    push(private_store, ours, paths, key)
    copy(private_store, theirs, paths, f"?secret-key={key}")

    assert len(narinfos_of(ours)) == len(requisites(private_store, *paths))
    assert narinfos_of(ours) == narinfos_of(theirs)
    assert (ours / CACHE_INFO).read_bytes() == (theirs / CACHE_INFO).read_bytes()


def test_an_uncompressed_cache_is_that_of_nix_copy(
    private_store: PrivateStore, tmp_path: Path
) -> None:
    """Where no compressor has a say, whole caches are the same: names, narinfos and NARs."""
    paths = private_store.build(VARIED)
    ours, theirs, key = tmp_path / "ours", tmp_path / "theirs", make_key(private_store, tmp_path)

    push(private_store, ours, paths, key, "?compression=none")
    copy(private_store, theirs, paths, f"?compression=none&secret-key={key}")

    assert files_of(ours) == files_of(theirs)


def test_signatures_of_the_store_are_posted(private_store: PrivateStore, tmp_path: Path) -> None:
    """What Nix signed in the store is posted with these signatures, as `nix copy` does."""
    paths = private_store.build(VARIED)
    for name in ("z.example.org-1", "a.example.org-1"):
        file = str(make_key(private_store, tmp_path, name))
        private_store.run("nix", "store", "sign", "--recursive", "--key-file", file, *paths)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"

    push(private_store, ours, paths)
    copy(private_store, theirs, paths)

    assert narinfos_of(ours) == narinfos_of(theirs)
    assert [each.partition(":")[0] for each in signatures_of(ours, paths[0])] == [
        "a.example.org-1",
        "z.example.org-1",
    ]


def test_our_signature_joins_those_of_the_store(
    private_store: PrivateStore, tmp_path: Path
) -> None:
    """A path that another has signed gets our signature too, where `nix copy` puts it."""
    paths = private_store.build(VARIED)
    other = str(make_key(private_store, tmp_path, "z.example.org-1"))
    private_store.run("nix", "store", "sign", "--recursive", "--key-file", other, *paths)
    ours, theirs, key = tmp_path / "ours", tmp_path / "theirs", make_key(private_store, tmp_path)

    push(private_store, ours, paths, key)
    copy(private_store, theirs, paths, f"?secret-key={key}")

    assert narinfos_of(ours) == narinfos_of(theirs)
    assert [len(signatures_of(ours, path)) for path in paths] == [2] * len(paths)


def test_our_signature_is_that_of_nix_store_sign(
    private_store: PrivateStore, tmp_path: Path
) -> None:
    """For each path of a closure, the signature we wrote is the one Nix makes afterwards."""
    paths = private_store.build(VARIED)
    cache, key = tmp_path / "cache", make_key(private_store, tmp_path)

    push(private_store, cache, paths, key)
    private_store.run("nix", "store", "sign", "--recursive", "--key-file", str(key), *paths)
    copy(private_store, tmp_path / "theirs", paths)

    closure = requisites(private_store, *paths)
    ours = {path: signatures_of(cache, path) for path in closure}
    theirs = {path: signatures_of(tmp_path / "theirs", path) for path in closure}
    assert ours == theirs
    assert all(len(signatures) == 1 for signatures in ours.values())


@pytest.mark.parametrize("compression", NAR_EXTENSIONS)
def test_nix_substitutes_what_we_posted_with(
    private_store: PrivateStore, tmp_path: Path, compression: str
) -> None:
    """After the local paths are deleted, a client that wants signatures gets the same bytes."""
    paths = private_store.build(f"[ ({PROGRAM}) ({tree()}) ({LARGE}) ]")
    closure = requisites(private_store, *paths)
    cache, key = tmp_path / "cache", make_key(private_store, tmp_path)
    before = dumps(private_store, closure)
    client = client_of(private_store, cache, key)

    push(private_store, cache, paths, key, f"?compression={compression}")
    private_store.collect_garbage()
    was_deleted = not any(map(private_store.is_valid, closure))
    client.run("nix-store", "--realise", *paths)

    assert was_deleted
    assert dumps(private_store, closure) == before
    assert {file.suffix for file in (cache / "nar").iterdir()} == {
        NAR_EXTENSIONS[compression] or ".nar"
    }


def test_nix_refuses_what_another_key_signed(private_store: PrivateStore, tmp_path: Path) -> None:
    """A client that trusts a key of the same name, but not ours, does not take the path."""
    [path] = private_store.build(PROGRAM)
    cache, key = tmp_path / "cache", make_key(private_store, tmp_path)
    (tmp_path / "other").mkdir()
    other = make_key(private_store, tmp_path / "other")
    client = client_of(private_store, cache, other)

    push(private_store, cache, [path], key)
    private_store.collect_garbage()

    with pytest.raises(NixFailed, match="not signed by any of the keys"):
        client.run("nix-store", "--realise", path)
    assert not client.is_valid(path)


def client_of(store: PrivateStore, cache: Path, key: Path) -> PrivateStore:
    """A user of *store* who takes from *cache* what *key* has signed."""
    public = SecretKey.parse(key.read_text()).public
    return store.client("client", f"file://{cache}", [public.render()])


def test_what_nix_copied_is_there(private_store: PrivateStore, tmp_path: Path) -> None:
    """Of a closure that `nix copy` posted, with another compression, nothing is written again."""
    paths = private_store.build(VARIED)
    cache, key = tmp_path / "cache", make_key(private_store, tmp_path)
    copy(private_store, cache, paths, f"?compression=xz&secret-key={key}")
    before = stamps_of(cache)

    push(private_store, cache, paths, key)

    assert stamps_of(cache) == before


def test_what_we_posted_is_there_for_nix_copy(private_store: PrivateStore, tmp_path: Path) -> None:
    """Nor does `nix copy` write again what we have posted."""
    paths = private_store.build(VARIED)
    cache, key = tmp_path / "cache", make_key(private_store, tmp_path)
    push(private_store, cache, paths, key)
    before = stamps_of(cache)

    copy(private_store, cache, paths, f"?secret-key={key}")

    assert stamps_of(cache) == before


def test_only_what_is_missing_is_posted(private_store: PrivateStore, tmp_path: Path) -> None:
    """Of a closure whose library `nix copy` posted, the rest is added and the library left."""
    [program, library] = private_store.build(f"[ ({PROGRAM}) ({LIBRARY}) ]")
    cache, key = tmp_path / "cache", make_key(private_store, tmp_path)
    copy(private_store, cache, [library], f"?compression=xz&secret-key={key}")
    before = files_of(cache)

    push(private_store, cache, [program], key)

    after = files_of(cache)
    added = len(requisites(private_store, program)) - 1
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2 * added


# The order, by the real parts over a bucket that remembers it.


async def publish(
    store: LocalStore, bucket: Bucket, paths: Iterable[StorePath], folder: Path
) -> dict[StorePath, Exception | None]:
    """Post the closures of *paths*, and tell how it went with each path of them."""
    cache = BinaryCache(bucket, CacheInfo(store.store_dir))
    await cache.open()
    packer = Packer(store, UNCOMPRESSED, Shelf(folder, 1 << 30))
    packer.prepare()
    publisher = Publisher(cache, packer, UNCOMPRESSED, [], lambda _: None, lambda *_: None)
    closure = store.closure(paths)
    outcomes: dict[StorePath, Exception | None] = {}
    publisher.post(plan(closure, await cache.present(closure)), closure, outcomes.__setitem__)
    await publisher.finished()
    packer.close()
    return outcomes


async def narinfos_in(bucket: RecordingBucket, store: LocalStore) -> dict[StorePath, NarInfo]:
    """The narinfos that were written, by their paths."""
    keys = [write.key for write in bucket.writes if write.key.endswith(".narinfo")]
    texts = [await bucket.get(key) for key in keys]
    narinfos = [NarInfo.parse(text.decode(), store.store_dir) for text in texts if text]
    return {narinfo.info.path: narinfo for narinfo in narinfos}


def promised_by(narinfo: NarInfo) -> set[str]:
    """The keys that must be there before *narinfo* may be."""
    references = set(narinfo.info.references) - {narinfo.info.path}
    return {narinfo.url, *map(narinfo_key, references)}


@pytest.mark.parametrize("seed", range(5))
def test_all_that_a_narinfo_promises_is_there_before_it(
    private_store: PrivateStore, tmp_path: Path, seed: int
) -> None:
    """When the write of a narinfo begins, its NAR and the narinfos of its references are done."""
    paths = private_store.build(f"{lattice(depth=4, width=6)} ++ [ ({PROGRAM}) ({LARGE}) ]")
    bucket = RecordingBucket(seed)

    with opened(private_store) as store:
        asyncio.run(publish(store, bucket, parsed(private_store, *paths), tmp_path / "packed"))
        narinfos = asyncio.run(narinfos_in(bucket, store))

    before = {write.key: write.before for write in bucket.writes}
    assert narinfos.keys() == parsed(private_store, *requisites(private_store, *paths))
    for path, narinfo in narinfos.items():
        assert before[narinfo_key(path)] >= promised_by(narinfo)


def test_nothing_is_visible_that_needs_a_nar_which_is_not_there(
    private_store: PrivateStore, tmp_path: Path
) -> None:
    """When one NAR cannot be stored, its path and all that refer to it stay away, and no other."""
    [library, *paths] = private_store.build(f"[ ({LIBRARY}) ({PROGRAM}) ({LARGE}) ({tree()}) ]")
    referrers = private_store.run("nix-store", "--query", "--referrers-closure", library).split()

    with opened(private_store) as store:
        refused = nar_key(info_of(store, library).nar_hash, UNCOMPRESSED.name)
        bucket = RecordingBucket(refused_key=refused)
        outcomes = asyncio.run(
            publish(store, bucket, parsed(private_store, *paths), tmp_path / "packed")
        )
        narinfos = asyncio.run(narinfos_in(bucket, store))

    kept_away = {path: error for path, error in outcomes.items() if error is not None}
    assert kept_away.keys() == parsed(private_store, *referrers)
    assert all(isinstance(error, Passing) for error in kept_away.values())
    assert narinfos.keys() == outcomes.keys() - kept_away.keys()
    assert len(narinfos) > 1
