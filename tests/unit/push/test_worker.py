"""A worker over a store and a bucket in memory: each entry's own fate, and the cache's promise."""

import asyncio
import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from narpost.backoff import Backoff
from narpost.cache.binary_cache import BinaryCache
from narpost.cache.bucket import Put, Refusal
from narpost.cache.object_store import ObjectBucket
from narpost.errors import CacheBusy, CacheRefused, CacheUnreachable, UsageError
from narpost.events import CacheDown, CacheUp, Emit, Event, Posted, PutAside, Retrying, Settled
from narpost.nix.cache_info import CacheInfo
from narpost.nix.cache_names import narinfo_key
from narpost.nix.narinfo import NarInfo
from narpost.nix.path_info import PathInfo
from narpost.nix.signing import PublicKey, SecretKey
from narpost.nix.store_path import StoreDir, StorePath
from narpost.push import pack, publish
from narpost.push.cache_watch import BUSY_SECONDS, Surroundings
from narpost.push.compression import Compression
from narpost.push.health import PATHS_IN_A_ROW
from narpost.push.pack import Packer
from narpost.push.publish import Publisher
from narpost.push.seen import SEEN_SECONDS, Seen
from narpost.push.shelf import Shelf
from narpost.push.worker import Worker
from narpost.queue.ledger import Ledger
from narpost.queue.queue import Queue
from narpost.queue.spool import Spool
from support.fake_store import (
    STORE_DIR,
    FakeStore,
    Graph,
    closure,
    graph_of,
    graphs,
    path_info,
    some_of,
)

CACHE = "main"
KEY = SecretKey.generate("machine.example.org-1")
# More failures in a row than any test asks for.
TRIES = 100
# Far more than anything here takes; a worker that takes as long has hung.
PATIENCE_SECONDS = 30.0

LIBRARY = path_info("library")
PROGRAM = path_info("program", LIBRARY.path)
BUNDLE = path_info("bundle", PROGRAM.path)
OTHER = path_info("other")
GRAPH = graph_of(LIBRARY, PROGRAM, BUNDLE, OTHER)


class Fault(Enum):
    """What a bucket does instead of storing an object."""

    FAIL = auto()
    BUSY = auto()
    CUT_SHORT = auto()
    LOSE_ANSWER = auto()
    CRASH = auto()
    CRASH_BEFORE_ANSWER = auto()


class FaultyBucket(ObjectBucket):
    """A bucket in memory whose nth put meets a fault; after a crash, no call ever ends.

    Of *refused* keys no object may be written. *broken_promises* names each narinfo that was put
    while something that it promises was not there: nothing is ever deleted, so what was there at
    that time stays there. *asked* are the keys whose size somebody wanted.
    """

    def __init__(
        self,
        objects: MemoryStore,
        faults: Mapping[int, Fault] | None = None,
        refused: Collection[str] = (),
    ) -> None:
        super().__init__(objects, "memory")
        self._refused = refused
        self.objects = objects
        self.crashed = asyncio.Event()
        self.broken_promises: list[str] = []
        self.asked: set[str] = set()
        self._faults = faults or {}
        self._puts = 0

    async def size(self, key: str) -> int | None:
        """As any bucket."""
        await self._hang_if_crashed()
        self.asked.add(key)
        return await super().size(key)

    async def get(self, key: str) -> bytes | None:
        """As any bucket."""
        await self._hang_if_crashed()
        return await super().get(key)

    async def put(self, key: str, body: bytes | Path, content_type: str) -> Put:
        """As any bucket, but for the fault."""
        data = read(body) if isinstance(body, Path) else body
        fault = await self._begin(key, data)
        sent = body if fault is None else arrived(data, fault)
        put = await super().put(key, sent, content_type)
        await self._end(fault)
        return put if fault is None else Put.STORED

    async def put_new(self, key: str, body: bytes, content_type: str) -> Put:
        """As any bucket, but for the fault."""
        fault = await self._begin(key, body)
        put = await super().put_new(key, arrived(body, fault), content_type)
        await self._end(fault)
        return put if fault is None or put is Put.EXISTS else Put.STORED

    async def _begin(self, key: str, body: bytes) -> Fault | None:
        await self._hang_if_crashed()
        fault = self._faults.get(self._puts)
        self._puts += 1
        if fault is Fault.FAIL:
            raise CacheUnreachable("500 Internal Server Error")
        if fault is Fault.BUSY:
            raise CacheBusy("503 Slow Down")
        if key in self._refused:
            raise Refusal(f"cannot write {key}: access denied", "", "AccessDenied")
        if fault is Fault.CRASH:
            self.crashed.set()
            await self._hang_if_crashed()
        if key.endswith(".narinfo"):
            self._check_promise(body)
        return fault

    async def _end(self, fault: Fault | None) -> None:
        if fault is Fault.LOSE_ANSWER:
            raise CacheUnreachable("the connection was reset")
        if fault is Fault.CRASH_BEFORE_ANSWER:
            self.crashed.set()
        await self._hang_if_crashed()

    async def _hang_if_crashed(self) -> None:
        if self.crashed.is_set():
            await asyncio.get_running_loop().create_future()

    def _check_promise(self, body: bytes) -> None:
        narinfo = NarInfo.parse(body.decode(), STORE_DIR)
        stored = sizes(self.objects)
        promised = {narinfo_key(path) for path in narinfo.info.references} - {
            narinfo_key(narinfo.info.path)
        }
        if stored.get(narinfo.url) != narinfo.file_bytes or not promised <= stored.keys():
            self.broken_promises.append(narinfo.info.path.base_name)


def read(file: Path) -> bytes:
    """What is in a packed file."""
    return file.read_bytes()


def arrived(body: bytes, fault: Fault | None) -> bytes:
    """What of *body* arrives, where the server does not notice that it is not all."""
    return body[: len(body) // 2] if fault is Fault.CUT_SHORT else body


def sizes(objects: MemoryStore) -> dict[str, int]:
    """The names of all objects, and their sizes."""
    return {each["path"]: each["size"] for page in obstore.list(objects) for each in page}


def crowd(count: int) -> list[PathInfo]:
    """Paths that have nothing to do with each other."""
    return [path_info(f"path-{number}") for number in range(count)]


@dataclass(slots=True)
class Workshop:
    """A store, a queue in *folder* and a bucket, where one worker after another works."""

    folder: Path
    store: FakeStore
    objects: MemoryStore = field(default_factory=MemoryStore)
    events: list[Event] = field(default_factory=list)
    upstream: tuple[PublicKey, ...] = ()
    now: float = 0.0
    refused: tuple[str, ...] = ()

    def queue(self, *infos: PathInfo) -> None:
        """Queue paths, as the hook does."""
        self.spool.prepare(self.folder)
        self.spool.add(info.path for info in infos)

    @property
    def spool(self) -> Spool:
        """The folder of links."""
        return Spool(self.folder, STORE_DIR)

    def queued(self) -> set[StorePath]:
        """What still has its link."""
        return {entry.path for entry in self.spool.look().entries}

    def visible(self) -> set[str]:
        """The hash parts of the paths that readers can see."""
        names = sizes(self.objects)
        return {name.removesuffix(".narinfo") for name in names if name.endswith(".narinfo")}

    def narinfo(self, info: PathInfo) -> NarInfo:
        """What readers see of a path."""
        text = bytes(obstore.get(self.objects, narinfo_key(info.path)).bytes()).decode()
        return NarInfo.parse(text, STORE_DIR)

    def heard(self, kind: type[Event]) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def work(
        self, faults: Mapping[int, Fault] | None = None, tries_limit: int | None = None
    ) -> FaultyBucket:
        """Let a new worker post until nothing is left to do, or it crashes; its bucket is told."""
        return asyncio.run(self._work(faults, tries_limit))

    async def _work(
        self, faults: Mapping[int, Fault] | None, tries_limit: int | None
    ) -> FaultyBucket:
        bucket, changed = FaultyBucket(self.objects, faults, self.refused), asyncio.Event()

        def emit(event: Event) -> None:
            self.events.append(event)
            changed.set()

        with Ledger(self.folder) as ledger:
            queue = Queue(self.spool, ledger, [CACHE], clock=lambda: self.now, emit=emit)
            queue.look()
            worker = self._hire(bucket, queue, emit)
            running = asyncio.create_task(worker.run(tries_limit))
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while queue.has_work(TRIES) and not bucket.crashed.is_set():
                        changed.clear()
                        await first_of(running, changed, bucket.crashed)
                if not bucket.crashed.is_set():
                    queue.save()
            finally:
                # As when a process ends: whatever is under way goes no further.
                bucket.crashed.set()
                await cancel_all_others()
                worker.close()
        return bucket

    def _hire(self, bucket: ObjectBucket, queue: Queue, emit: Emit) -> Worker:
        compression = Compression("none", 0)
        packer = Packer(self.store, compression, Shelf(self.folder / "packed", 1 << 30))
        packer.prepare()
        cache = BinaryCache(bucket, CacheInfo(STORE_DIR))
        return Worker(
            CACHE,
            queue=queue,
            store=self.store,
            cache=cache,
            seen=Seen("memory://", queue.ledger, lambda: self.now),
            packer=packer,
            publisher_of=lambda *tell: Publisher(cache, packer, compression, [KEY], *tell),
            upstream_keys=self.upstream,
            around=Surroundings(lambda: self.now, lambda: 0.0, emit, Backoff()),
        )


async def first_of(running: asyncio.Task[None], *events: asyncio.Event) -> None:
    """Wait for one of *events*; an error of what is *running* is raised."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait({running, *waits}, return_when=asyncio.FIRST_COMPLETED)
    for each in waits:
        each.cancel()
    if running.done():
        running.result()


async def cancel_all_others() -> None:
    """Cancel each task but the caller's, and wait until they have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A workshop whose store has all of `GRAPH`; nothing is queued."""
    return Workshop(tmp_path, FakeStore(GRAPH))


def hash_parts(*infos: PathInfo) -> set[str]:
    """The hash parts of these paths."""
    return {info.path.hash_part for info in infos}


def test_posts_an_entry_with_its_closure(workshop: Workshop) -> None:
    """References before the referrer; then its link goes."""
    workshop.queue(BUNDLE)

    bucket = workshop.work()

    posted = [event.path for event in workshop.events if isinstance(event, Posted)]
    assert posted == [each.path.base_name for each in (LIBRARY, PROGRAM, BUNDLE)]
    assert workshop.visible() == hash_parts(LIBRARY, PROGRAM, BUNDLE)
    assert workshop.queued() == set()
    assert bucket.broken_promises == []


def test_signs_all_that_it_posts(workshop: Workshop) -> None:
    """Dependencies too, over the very fingerprint that clients compute."""
    workshop.queue(PROGRAM)

    workshop.work()

    for info in (PROGRAM, LIBRARY):
        shown = workshop.narinfo(info).info
        assert KEY.public.has_signed(info.fingerprint(STORE_DIR), shown.signatures)


def test_posts_nothing_that_is_there(workshop: Workshop) -> None:
    """What an earlier worker posted is found, and the entry is settled all the same."""
    workshop.queue(PROGRAM)
    workshop.work()
    workshop.events.clear()
    workshop.queue(BUNDLE, PROGRAM)

    workshop.work()

    posted = [event.path for event in workshop.events if isinstance(event, Posted)]
    assert posted == [BUNDLE.path.base_name]
    assert workshop.queued() == set()


def test_what_was_seen_is_not_asked_for_again(workshop: Workshop) -> None:
    """A daemon that starts anew remembers what the cache has, and asks for what is new alone."""
    workshop.queue(LIBRARY)
    workshop.work()
    workshop.queue(PROGRAM)

    bucket = workshop.work()

    assert narinfo_key(PROGRAM.path) in bucket.asked
    assert narinfo_key(LIBRARY.path) not in bucket.asked
    assert workshop.visible() == {LIBRARY.path.hash_part, PROGRAM.path.hash_part}


def test_what_was_seen_long_ago_is_asked_for_again(workshop: Workshop) -> None:
    """Another may have deleted it meanwhile; then it is posted again."""
    workshop.queue(LIBRARY)
    workshop.work()
    obstore.delete(workshop.objects, narinfo_key(LIBRARY.path))
    workshop.now += SEEN_SECONDS + 1
    workshop.queue(PROGRAM)

    workshop.work()

    assert workshop.visible() == {LIBRARY.path.hash_part, PROGRAM.path.hash_part}


def test_what_was_seen_in_a_cache_that_is_new_now_is_forgotten(workshop: Workshop) -> None:
    """A bucket that somebody emptied has no description either, and is filled again."""
    workshop.queue(LIBRARY)
    workshop.work()
    workshop.objects = MemoryStore()
    workshop.queue(PROGRAM)

    workshop.work()

    assert workshop.visible() == {LIBRARY.path.hash_part, PROGRAM.path.hash_part}


def test_leaves_to_upstream_what_its_key_has_signed(tmp_path: Path) -> None:
    """Clients get it from there; what refers to it is ours to post."""
    theirs = SecretKey.generate("upstream.example.org-1")
    signature = theirs.sign(LIBRARY.fingerprint(STORE_DIR))
    signed = path_info("library")
    signed = PathInfo(signed.path, signed.nar_hash, signed.nar_bytes, signatures=(signature,))
    workshop = Workshop(tmp_path, FakeStore(graph_of(signed, PROGRAM)), upstream=(theirs.public,))
    workshop.queue(PROGRAM)

    workshop.work()

    assert workshop.visible() == hash_parts(PROGRAM)
    assert workshop.queued() == set()


def test_one_bad_path_holds_up_no_other(workshop: Workshop) -> None:
    """It is set aside as corrupt, nothing of it is visible, and the rest is posted."""
    workshop.store.spoil(OTHER.path)
    workshop.queue(BUNDLE, OTHER)

    workshop.work()

    [aside] = workshop.heard(PutAside)
    assert isinstance(aside, PutAside)
    assert aside.path == OTHER.path.base_name
    assert "not what Nix registered" in aside.reason
    assert workshop.visible() == hash_parts(LIBRARY, PROGRAM, BUNDLE)
    assert workshop.queued() == {OTHER.path}


def test_what_refers_to_a_bad_path_is_set_aside_and_names_it(workshop: Workshop) -> None:
    """However far above it, each referrer says which path is at fault."""
    workshop.store.spoil(LIBRARY.path)
    workshop.queue(PROGRAM, BUNDLE, OTHER)

    workshop.work()

    reasons = {event.path: event.reason for event in workshop.events if isinstance(event, PutAside)}
    assert reasons.keys() == {PROGRAM.path.base_name, BUNDLE.path.base_name}
    assert all(LIBRARY.path.base_name in reason for reason in reasons.values())
    assert workshop.visible() == hash_parts(OTHER)
    assert workshop.queued() == {PROGRAM.path, BUNDLE.path}


def test_a_bucket_that_fails_twice_is_tried_a_third_time(workshop: Workshop) -> None:
    """The entry is postponed twice, with the reason, and then confirmed."""
    workshop.queue(OTHER)

    workshop.work({1: Fault.FAIL, 2: Fault.FAIL})

    name = OTHER.path.base_name
    ends = [event for event in workshop.events if isinstance(event, Retrying | Settled)]
    assert ends == [Retrying(CACHE, name, "500 Internal Server Error", 0.0)] * 2 + [Settled(name)]
    assert workshop.queued() == set()


def test_a_nar_that_arrived_cut_short_is_put_again(workshop: Workshop) -> None:
    """It is read back before anybody is told of it, also when the server said that all was well."""
    workshop.queue(OTHER)

    bucket = workshop.work({1: Fault.CUT_SHORT})

    assert bucket.broken_promises == []
    assert workshop.heard(Retrying) == []
    assert workshop.visible() == hash_parts(OTHER)


def test_a_bucket_that_keeps_nothing_whole_is_tried_again(workshop: Workshop) -> None:
    """A NAR that comes back cut short twice is not promised, and the entry is postponed."""
    workshop.queue(OTHER)

    bucket = workshop.work({1: Fault.CUT_SHORT, 2: Fault.CUT_SHORT})

    assert bucket.broken_promises == []
    [retrying] = workshop.heard(Retrying)
    assert isinstance(retrying, Retrying)
    assert "does not give it back whole" in retrying.reason
    assert workshop.visible() == hash_parts(OTHER)


def test_a_bucket_that_is_down_at_first_burns_no_tries(workshop: Workshop) -> None:
    """A cache that cannot be opened is noticed as such, and no entry fails for it."""
    workshop.queue(OTHER)

    workshop.work({0: Fault.FAIL, 1: Fault.FAIL})

    assert len(workshop.heard(CacheDown)) == 2
    assert workshop.heard(Retrying) == []
    assert workshop.queued() == set()


def test_a_bucket_that_stays_down_ends_a_drain(workshop: Workshop) -> None:
    """After so many tries its error is told, and the entry stays."""
    workshop.queue(OTHER)

    with pytest.raises(CacheUnreachable, match="500 Internal Server Error"):
        workshop.work(dict.fromkeys(range(9), Fault.FAIL), tries_limit=3)

    assert len(workshop.heard(CacheDown)) == 2
    assert workshop.queued() == {OTHER.path}


def test_three_paths_that_fail_in_a_row_mean_that_the_cache_is_down(workshop: Workshop) -> None:
    """Then no path's tries are spent, one goes first when it answers again, and all is posted."""
    several = crowd(20)
    workshop.store = FakeStore(graph_of(*several))
    workshop.queue(*several)

    workshop.work(dict.fromkeys(range(1, 20), Fault.FAIL))

    # Of 19 failures; stragglers may come after it is up again.
    assert len(workshop.heard(Retrying)) < 2 * PATHS_IN_A_ROW
    assert CacheUp(CACHE) in workshop.heard(CacheUp)
    assert workshop.visible() == hash_parts(*several)


def test_a_cache_that_is_down_gets_one_path_at_a_time(workshop: Workshop) -> None:
    """After a probe that succeeds, as long as nothing else does."""
    several = crowd(20)
    workshop.store = FakeStore(graph_of(*several))
    workshop.queue(*several)

    with pytest.raises(CacheUnreachable):
        workshop.work(dict.fromkeys(range(1, 100), Fault.FAIL), tries_limit=5)

    downs = workshop.heard(CacheDown)
    assert len(downs) == 5
    assert workshop.visible() == set()
    assert workshop.queued() == {info.path for info in several}


def test_a_cache_that_asks_us_to_go_slower_is_left_alone(workshop: Workshop) -> None:
    """At once, and no path's tries are spent."""
    workshop.queue(OTHER, LIBRARY)

    workshop.work({1: Fault.BUSY})

    [down] = workshop.heard(CacheDown)
    assert isinstance(down, CacheDown) and down.after_seconds >= BUSY_SECONDS
    assert workshop.heard(Retrying) == []
    assert workshop.visible() == hash_parts(OTHER, LIBRARY)


def test_a_path_that_alone_is_refused_is_set_aside(workshop: Workshop) -> None:
    """Where the cache takes others it is no fault of the credentials; its referrers say why."""
    late = path_info("late", OTHER.path)
    workshop.store = FakeStore(graph_of(LIBRARY, PROGRAM, OTHER, late))
    workshop.refused = (narinfo_key(LIBRARY.path),)
    workshop.queue(LIBRARY, PROGRAM, late)

    workshop.work()

    aside = {event.path: event.reason for event in workshop.events if isinstance(event, PutAside)}
    assert aside.keys() == {LIBRARY.path.base_name, PROGRAM.path.base_name}
    assert all("access denied" in reason for reason in aside.values())
    assert workshop.visible() == hash_parts(OTHER, late)


def test_credentials_that_may_write_nothing_set_nothing_aside(workshop: Workshop) -> None:
    """They may be mended, and then all is posted."""
    several = crowd(5)
    workshop.store = FakeStore(graph_of(*several))
    workshop.queue(*several)
    workshop.refused = tuple(narinfo_key(info.path) for info in several)
    with pytest.raises(CacheRefused):
        workshop.work(tries_limit=4)
    workshop.refused = ()

    workshop.work()

    assert workshop.heard(PutAside) == []
    assert workshop.visible() == hash_parts(*several)


def test_a_path_that_left_the_store_is_set_aside(workshop: Workshop) -> None:
    """Nobody can post it; the rest goes on."""
    workshop.store.lose(OTHER.path)
    workshop.queue(OTHER, LIBRARY)

    workshop.work()

    [aside] = workshop.heard(PutAside)
    assert aside == PutAside(CACHE, OTHER.path.base_name, f"{OTHER.path} is no longer in the store")
    assert workshop.visible() == hash_parts(LIBRARY)


def test_a_path_whose_reference_left_the_store_is_not_posted(workshop: Workshop) -> None:
    """Without it the closure could not be whole, so nothing above it becomes visible."""
    workshop.store.lose(LIBRARY.path)
    workshop.queue(BUNDLE, OTHER)

    bucket = workshop.work()

    assert bucket.broken_promises == []
    assert workshop.visible() == hash_parts(OTHER)
    assert workshop.queued() == {BUNDLE.path}


def test_a_cache_for_another_store_is_refused(workshop: Workshop) -> None:
    """It has what a person must mend, so the worker ends."""
    other = CacheInfo(StoreDir("/scratch/store")).render().encode()
    obstore.put(workshop.objects, "nix-cache-info", other)
    workshop.queue(OTHER)

    with pytest.raises(UsageError, match="/scratch/store"):
        workshop.work()

    assert workshop.visible() == set()


@contextlib.contextmanager
def workshop_of(graph: Graph, roots: Collection[StorePath], small_bytes: int) -> Iterator[Workshop]:
    """A workshop for one example, with *roots* queued; what is not small is packed into files."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "IN_MEMORY_BYTES", small_bytes)
        workshop = Workshop(Path(folder), FakeStore(graph))
        workshop.queue(*(graph[path] for path in roots))
        yield workshop


# The NARs of a graph all have about the same size.
smallness = st.sampled_from([0, pack.IN_MEMORY_BYTES])
jobs = graphs().flatmap(lambda graph: st.tuples(st.just(graph), some_of(graph)))
failures = st.dictionaries(
    st.integers(0, 30), st.sampled_from([Fault.FAIL, Fault.LOSE_ANSWER]), max_size=12
)
crashes = st.tuples(st.integers(0, 20), st.sampled_from([Fault.CRASH, Fault.CRASH_BEFORE_ANSWER]))


@settings(max_examples=60, deadline=None)
@given(jobs, smallness, failures)
def test_nothing_is_visible_before_what_it_promises(
    job: tuple[Graph, set[StorePath]], small_bytes: int, faults: dict[int, Fault]
) -> None:
    """Whichever puts fail or lose their answer; in the end all is there, and nothing besides."""
    graph, roots = job
    with workshop_of(graph, roots, small_bytes) as workshop:
        bucket = workshop.work(faults)

        assert bucket.broken_promises == []
        assert workshop.visible() == hash_parts(*closure(graph, roots).values())
        assert workshop.queued() == set()


@settings(max_examples=60, deadline=None)
@given(jobs, smallness, failures, crashes)
def test_a_new_worker_finishes_what_a_crash_has_left(
    job: tuple[Graph, set[StorePath]],
    small_bytes: int,
    faults: dict[int, Fault],
    crash: tuple[int, Fault],
) -> None:
    """Wherever the first one ends, no promise is broken, and no entry is lost."""
    graph, roots = job
    with workshop_of(graph, roots, small_bytes) as workshop:
        crashed = workshop.work(faults | dict([crash]))
        settled = roots - workshop.queued()
        visible = workshop.visible()

        finished = workshop.work()

        assert crashed.broken_promises == finished.broken_promises == []
        assert hash_parts(*closure(graph, settled).values()) <= visible
        assert workshop.visible() == hash_parts(*closure(graph, roots).values())
        assert workshop.queued() == set()
