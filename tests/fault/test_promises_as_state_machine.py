"""Whatever happens to a queue, in whatever order: what was queued is in the caches, or waits.

Two machines make up histories of up to 50 steps, the same ones each time. The first moves the real
queue by hand, in 120 histories; the second lets the real intake and workers post, in 90. Builds,
garbage collection, crashes, a ledger that is lost, broken or older than it should be, a stranger
who takes links away, caches that go down, a clock that is set back: after each step all promises
are looked at, and at the end of each history all that was queued gets posted.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from narpost.backoff import Backoff
from narpost.cache.binary_cache import BinaryCache
from narpost.daemon.intake import Intake, Policy
from narpost.errors import CacheUnreachable, PathCorrupt, PathVanished, StoreRefused
from narpost.nix.cache_info import CacheInfo
from narpost.nix.cache_names import narinfo_key
from narpost.nix.narinfo import NarInfo
from narpost.nix.signing import SecretKey
from narpost.nix.store_path import StorePath
from narpost.push.cache_watch import Surroundings
from narpost.push.compression import Compression
from narpost.push.pack import Packer
from narpost.push.publish import Publisher
from narpost.push.seen import Seen
from narpost.push.shelf import Shelf
from narpost.push.worker import Worker
from narpost.queue.ledger import FILE as LEDGER
from narpost.queue.ledger import Ledger
from narpost.queue.queue import Queue
from narpost.queue.spool import Spool
from support import soak
from support.fake_store import (
    STORE_DIR,
    FakeStore,
    closure,
    graph_of,
    nar_of,
    path_info,
    store_path,
)
from support.memory_bucket import Fault, MemoryBucket
from support.vectors import SECRET_KEY

CACHES = ("main", "other")
DAY_SECONDS = 86400.0
# Later than any time that an entry can be put off to, also by a clock that was set back.
FAR_LATER_SECONDS = 100 * DAY_SECONDS
# How often a drain tries an entry.
TRIES = 4
# Far more than anything here takes; a worker that takes as long has hung.
PATIENCE_SECONDS = 30.0

LIBRARY = path_info("library")
TOOLS = [path_info(f"tool-{count}", LIBRARY.path) for count in range(3)]
PROGRAMS = [path_info(f"program-{tool.path.name}", LIBRARY.path, tool.path) for tool in TOOLS]
BUNDLE = path_info("bundle", *(program.path for program in PROGRAMS))
ALONE = path_info("alone", store_path("alone"))
GRAPH = graph_of(LIBRARY, *TOOLS, *PROGRAMS, BUNDLE, ALONE)
OUTPUTS: Mapping[StorePath, Sequence[StorePath]] = {
    store_path("tools.drv"): tuple(tool.path for tool in TOOLS),
    store_path("bundle.drv"): (BUNDLE.path, ALONE.path),
}
KEY = SecretKey.parse(SECRET_KEY)

paths = st.sampled_from(sorted(GRAPH))
derivations = st.sampled_from(sorted(OUTPUTS))
caches = st.sampled_from(CACHES)
faults = st.dictionaries(st.integers(0, 8), st.sampled_from(Fault), max_size=4)


class Restart(Enum):
    """How a daemon ends, and what its successor finds."""

    IN_ORDER = auto()
    KILLED = auto()
    LEDGER_LOST_BEFORE = auto()
    LEDGER_LOST = auto()
    LEDGER_BROKEN = auto()
    LEDGER_EMPTY = auto()
    LEDGER_OLDER = auto()


class History(RuleBasedStateMachine):
    """A build machine: its store, its queue folder, its clock, and what befalls them.

    *wanted* was queued, and nobody took it out again; *vain* too, but it is not in the store.
    *troubles* are caches that are down, paths
    whose bytes on disk are wrong, and derivations that Nix cannot read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="narpost-"))
        self.now = 1_000_000.0
        self.valid: set[StorePath] = set()
        self.wanted: set[StorePath] = set()
        self.vain: set[StorePath] = set()
        self.troubles: set[str | StorePath] = set()
        self.older: Mapping[str, bytes] = {}
        self.spool = Spool(self.folder, STORE_DIR)
        self.spool.make()
        self.links = 0

    def teardown(self) -> None:
        """Bring all to its end, and clear away."""
        try:
            self.troubles.clear()
            self.now += FAR_LATER_SECONDS
            self.post_all()
            self.nothing_is_lost()
            assert self.wanted & self.held() == set()
        finally:
            shutil.rmtree(self.folder)

    def there(self, cache: str) -> Collection[StorePath]:
        """What *cache* has."""
        raise NotImplementedError

    def post_all(self) -> None:
        """Nothing is wrong any more: see that all that is queued gets posted."""
        raise NotImplementedError

    @rule(path=paths)
    def build(self, path: StorePath) -> None:
        """A path is built, and the hook queues it."""
        self.make(closure(GRAPH, [path]))
        self.wanted.add(path)
        self.link(path)

    @rule(derivation=derivations)
    def build_several(self, derivation: StorePath) -> None:
        """A derivation is built, and the hook is told of its first output only."""
        self.make({derivation, *closure(GRAPH, OUTPUTS[derivation])})
        for path in (derivation, OUTPUTS[derivation][0]):
            self.wanted.add(path)
            self.link(path)

    @rule(path=paths)
    def link_nothing(self, path: StorePath) -> None:
        """Somebody queues a path that is not in the store, or not any more."""
        if path not in self.valid and not any(path in self.there(each) for each in CACHES):
            self.vain.add(path)
            self.link(path)

    @rule()
    def collect_garbage(self) -> None:
        """All goes that no link keeps."""
        self.valid &= {*self.held(), *closure(GRAPH, self.held())}

    @rule(path=paths | derivations)
    def take_a_link_away(self, path: StorePath) -> None:
        """A stranger decides that something is not to be posted."""
        self.spool.remove(path)
        self.wanted.discard(path)
        self.vain.discard(path)

    @rule(seconds=st.sampled_from([0.5, 60.0, 400.0, DAY_SECONDS, -DAY_SECONDS]))
    def wait(self, seconds: float) -> None:
        """Time passes, or the clock is set back."""
        self.now += seconds

    @rule(what=caches | paths | derivations, begins=st.booleans())
    def trouble(self, what: str | StorePath, begins: bool) -> None:
        """Something goes wrong, or is well again."""
        (self.troubles.add if begins else self.troubles.discard)(what)

    @invariant()
    def all_promises_are_kept(self) -> None:
        """Whatever has happened until now."""
        self.what_waits_is_in_the_store()
        self.what_is_vain_stays()
        self.nothing_is_lost()

    def what_waits_is_in_the_store(self) -> None:
        """A link keeps its path, with all that it refers to."""
        for path in self.wanted & self.held():
            assert closure(GRAPH, [path]).keys() <= self.valid

    def what_is_vain_stays(self) -> None:
        """A path that cannot be posted keeps its link, and so its name, for a person to see."""
        assert self.vain <= self.held()

    def nothing_is_lost(self) -> None:
        """What is wanted still has its link, or every cache has it with its closure."""
        for path in self.wanted - self.held():
            assert not path.is_derivation
            assert all(closure(GRAPH, [path]).keys() <= {*self.there(each)} for each in CACHES)

    def held(self) -> set[StorePath]:
        """What has a link."""
        return {entry.path for entry in self.spool.queued()}

    def link(self, path: StorePath) -> None:
        """Queue *path* by a link that is made anew."""
        self.spool.renew(path)
        self.date(path)

    def make(self, paths: Collection[StorePath]) -> None:
        """From here on *paths* are in the store; what was vain of them is no longer."""
        self.valid |= set(paths)
        self.wanted |= self.vain & self.valid
        self.vain -= self.valid

    def date(self, path: StorePath) -> None:
        """Give a new link a time of its own, so that a history is the same each time."""
        self.links += 1
        times = (float(self.links), float(self.links))
        os.utime(self.spool.folder / path.base_name, times, follow_symlinks=False)

    def is_postable(self, path: StorePath, cache: str) -> bool:
        """Whether *path* can be posted to *cache* now."""
        return cache not in self.troubles and closure(GRAPH, [path]).keys() <= (
            self.valid - self.troubles
        )


class QueueMoves(History):
    """The queue, moved by hand.

    *in_hand* are claims that have no verdict yet, *orphans* those whose entry was taken out
    meanwhile, *aside* what is not to be tried again. Each daemon has its ledger in a folder of its
    own, made of the files that its predecessor left, so that one that is killed can neither save
    nor hold a lock.
    """

    @initialize()
    def begin(self) -> None:
        """The daemon starts on an empty folder."""
        self.stored: dict[str, set[StorePath]] = {cache: set() for cache in CACHES}
        self.starts = 0
        self.start({})

    def start(self, files: Mapping[str, bytes]) -> None:
        """A daemon begins, and finds all that lies in the folder, whatever its ledger says."""
        self.starts += 1
        self.state = self.folder / f"state-{self.starts}"
        self.state.mkdir()
        for name, data in files.items():
            (self.state / name).write_bytes(data)
        ledger, held = Ledger(self.state), self.held()
        self.queue = Queue(
            self.spool, ledger, CACHES, clock=lambda: self.now, emit=lambda event: None
        )
        self.in_hand: set[tuple[str, StorePath]] = set()
        self.orphans: set[tuple[str, StorePath]] = set()
        self.aside: set[tuple[str, StorePath]] = set()
        self.queue.look()
        assert held <= {*self.queue.left(), *set.intersection(*self.stored.values())}

    def end(self) -> dict[str, bytes]:
        """The daemon is killed; gives what is on the disk of its ledger."""
        left = [file for file in self.state.glob(f"{LEDGER}*") if not file.name.endswith("-shm")]
        files = {file.name: file.read_bytes() for file in left}
        self.queue.ledger.close()
        shutil.rmtree(self.state)
        return files

    @rule()
    def look(self) -> None:
        """The folder is looked at; what was taken out of it has no verdict any more."""
        held = self.held()
        taken_out = {(cache, path) for cache, path in self.in_hand if path not in held}
        self.in_hand -= taken_out
        self.orphans |= taken_out
        self.aside = {(cache, path) for cache, path in self.aside if path in held}
        for derivation in self.queue.look():
            self.resolve(derivation)
        self.queue.look()
        assert self.queue.left().keys() <= self.held()

    def resolve(self, derivation: StorePath) -> None:
        """Nix is asked for the outputs of a derivation, which are wanted in its place."""
        if derivation in self.troubles:
            self.queue.refuse_derivation(derivation, "Nix says: no such derivation")
            return
        outputs = [path for path in OUTPUTS[derivation] if path in self.valid]
        new = [path for path in outputs if not self.spool.holds(path)]
        self.queue.replace_derivation(derivation, outputs)
        for path in new:
            self.date(path)
        if derivation in self.wanted:
            self.wanted = self.wanted - {derivation} | set(outputs)

    @rule(cache=caches, limit=st.integers(1, 10), looks=st.booleans())
    def claim(self, cache: str, limit: int, looks: bool) -> None:
        """Nothing is claimed twice, nor what was set aside, nor a derivation."""
        if looks:
            self.look()

        claimed = self.queue.claim(cache, limit)

        claims = {(cache, path) for path in claimed}
        assert len(claims) == len(claimed) <= limit
        assert claims & (self.in_hand | self.aside) == set()
        assert not any(path.is_derivation for path in claimed)
        self.in_hand |= claims

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        """Some claims are posted, where they can be; nobody is told of it yet."""
        for cache, path in self.some_in_hand(data):
            if self.is_postable(path, cache):
                self.stored[cache] |= closure(GRAPH, [path]).keys()

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def work_and_tell(self, data: st.DataObject) -> None:
        """Some claims are worked on, and have their verdicts."""
        for cache, path in self.some_in_hand(data):
            if self.is_postable(path, cache):
                self.stored[cache] |= closure(GRAPH, [path]).keys()
            self.judge(cache, path)

    def some_in_hand(self, data: st.DataObject) -> list[tuple[str, StorePath]]:
        """Some claims, one at least."""
        return sorted(data.draw(st.sets(st.sampled_from(sorted(self.in_hand)), min_size=1)))

    @precondition(lambda self: self.orphans)
    @rule(data=st.data())
    def judge_an_orphan(self, data: st.DataObject) -> None:
        """A late verdict; it may fall on the same path, queued anew and in hand again."""
        cache, path = data.draw(st.sampled_from(sorted(self.orphans)))
        if (cache, path) not in self.in_hand:
            self.orphans.discard((cache, path))
        self.judge(cache, path)

    def judge(self, cache: str, path: StorePath) -> None:
        """What a worker says of its try."""
        needed = closure(GRAPH, [path]).keys()
        if needed <= self.stored[cache]:
            self.queue.confirm(cache, path)
        elif cache in self.troubles:
            self.queue.postpone(cache, path, CacheUnreachable("503 Slow Down"), 30.0)
        else:
            kind = PathCorrupt if needed <= self.valid else PathVanished
            self.queue.set_aside(cache, path, kind(f"{path} cannot be posted"))
            if (cache, path) in self.in_hand and self.spool.holds(path):
                self.aside.add((cache, path))
        self.in_hand.discard((cache, path))

    @rule(path=paths | derivations, is_drain=st.booleans())
    def retry(self, path: StorePath, is_drain: bool) -> None:
        """A person wants something tried again, or a drain begins."""
        if is_drain:
            self.queue.hurry()
        self.queue.retry(path)
        self.forgive(path)

    @rule()
    def save(self) -> None:
        """What is remembered is committed, and the links of what is settled go."""
        self.queue.save()

    @rule(how=st.sampled_from(Restart))
    def restart(self, how: Restart) -> None:
        """A daemon ends, well or not, and the next one finds the ledger in some state."""
        if how is Restart.LEDGER_LOST_BEFORE:
            for file in self.state.iterdir():
                file.unlink()
        if how in {Restart.IN_ORDER, Restart.LEDGER_LOST_BEFORE}:
            self.queue.save()
        files = self.end()
        match how:
            case Restart.IN_ORDER | Restart.KILLED | Restart.LEDGER_LOST_BEFORE:
                self.start(files)
            case Restart.LEDGER_LOST:
                self.start({})
            case Restart.LEDGER_BROKEN:
                self.start(files | {LEDGER: b"no database" * 1000})
            case Restart.LEDGER_EMPTY:
                self.start(files | {LEDGER: b""})
            case Restart.LEDGER_OLDER:
                self.start(self.older)
        self.older = files

    def link(self, path: StorePath) -> None:
        """Whoever makes a link anew asks for another try."""
        super().link(path)
        self.forgive(path)

    def forgive(self, path: StorePath) -> None:
        """It may be claimed again, where it was set aside."""
        self.aside = {(cache, each) for cache, each in self.aside if each != path}

    def there(self, cache: str) -> Collection[StorePath]:
        """What *cache* has."""
        return self.stored[cache]

    def post_all(self) -> None:
        """A last daemon, and a person who wants another try of all that was set aside."""
        self.start(self.end())
        for path in sorted(self.wanted):
            self.queue.retry(path)
        self.look()
        for cache in CACHES:
            for path in self.queue.claim(cache, len(GRAPH)):
                self.stored[cache] |= closure(GRAPH, [path]).keys() & self.valid
                self.judge(cache, path)
        self.queue.save()
        self.end()


class Posting(History):
    """The real intake and workers, with a bucket in memory for each cache.

    *stored* are the buckets' objects; *broken* names each narinfo that became visible while
    something that it promises was not there.
    """

    @initialize()
    def begin(self) -> None:
        """The buckets are empty."""
        self.stored: dict[str, dict[str, bytes]] = {cache: {} for cache in CACHES}
        self.files: dict[str, bytes] = {}
        self.broken: list[str] = []

    @precondition(lambda self: self.held())
    @rule(after=st.sampled_from(Restart), faults=faults, seed=st.integers(0, 9))
    def work(self, after: Restart, faults: Mapping[int, Fault], seed: int) -> None:
        """A daemon works until nothing is left to do, or the power fails at some put."""
        match after:
            case Restart.LEDGER_LOST:
                self.files = {}
            case Restart.LEDGER_BROKEN:
                self.files = self.files | {LEDGER: b"no database" * 1000}
            case Restart.LEDGER_EMPTY:
                self.files = self.files | {LEDGER: b""}
            case Restart.LEDGER_OLDER:
                self.files, self.older = dict(self.older), self.files
            case _:
                self.older = self.files
        self.drain(faults, seed)

    def drain(self, faults: Mapping[int, Fault], seed: int = 0) -> None:
        """Let a new daemon work; it finds the ledger in *files*, and leaves it there."""
        state = self.folder / "state"
        state.mkdir()
        for name, data in self.files.items():
            (state / name).write_bytes(data)
        before = self.held()
        with Ledger(state) as ledger:
            asyncio.run(self.drained(ledger, faults, seed))
            left = [file for file in state.glob(f"{LEDGER}*") if not file.name.endswith("-shm")]
            self.files = {file.name: file.read_bytes() for file in left}
        shutil.rmtree(state)
        for path in sorted(self.held() - before):
            self.date(path)
        assert self.broken == []

    async def drained(self, ledger: Ledger, faults: Mapping[int, Fault], seed: int) -> None:
        """Intake, queue and a worker for each cache, until all has ended or one bucket stops."""
        store = StoreNow(self.valid, self.troubles)
        queue = Queue(self.spool, ledger, CACHES, clock=lambda: self.now, emit=lambda event: None)
        await Intake(queue, store, lambda event: None, Policy(warn_depth=100)).look()
        self.resolve_all()
        queue.hurry()
        buckets = {
            cache: MemoryBucket(
                self.stored[cache],
                partial(self.check, cache),
                seed=seed,
                is_down=cache in self.troubles,
                faults=faults,
            )
            for cache in CACHES
        }
        workers = [self.hire(cache, bucket, queue, store) for cache, bucket in buckets.items()]
        running = {
            worker.name: asyncio.create_task(worker.run(tries_limit=TRIES)) for worker in workers
        }
        stopped = [bucket.stopped for bucket in buckets.values()]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not any(each.is_set() for each in stopped):
                    alive = [cache for cache, task in running.items() if not task.done()]
                    if not queue.has_work(TRIES, caches=alive):
                        queue.save()
                        break
                    await asyncio.sleep(0.001)
        finally:
            # As when a process ends: whatever is under way goes no further.
            for each in stopped:
                each.set()
            await cancel(asyncio.all_tasks() | {*running.values()})
            for worker in workers:
                worker.close()

    def hire(self, cache: str, bucket: MemoryBucket, queue: Queue, store: FakeStore) -> Worker:
        """The worker of one cache."""
        compression = Compression("none", 0)
        packer = Packer(store, compression, Shelf(self.folder / "packed" / cache, 1 << 20))
        packer.prepare()
        binary_cache = BinaryCache(bucket, CacheInfo(STORE_DIR))
        return Worker(
            cache,
            queue=queue,
            store=store,
            cache=binary_cache,
            seen=Seen(f"memory://{cache}", queue.ledger, lambda: self.now),
            packer=packer,
            publisher_of=lambda *tell: Publisher(binary_cache, packer, compression, [KEY], *tell),
            upstream_keys=[],
            around=Surroundings(lambda: self.now, lambda: 0.0, lambda event: None, Backoff()),
        )

    def resolve_all(self) -> None:
        """The outputs of derivations that are gone are wanted in their place."""
        for derivation in [path for path in self.wanted - self.held() if path.is_derivation]:
            outputs = {path for path in OUTPUTS[derivation] if path in self.valid}
            assert outputs <= self.held()
            self.wanted = self.wanted - {derivation} | outputs

    def check(self, cache: str, key: str, data: bytes) -> None:
        """See what a narinfo promises, at the time when it becomes visible."""
        if not key.endswith(".narinfo"):
            return
        narinfo, objects = NarInfo.parse(data.decode(), STORE_DIR), self.stored[cache]
        promised = {narinfo_key(path) for path in narinfo.info.references} - {key}
        is_whole = objects.get(narinfo.url) == nar_of(narinfo.info.path)
        fingerprint = narinfo.info.fingerprint(STORE_DIR)
        is_signed = KEY.public.has_signed(fingerprint, narinfo.info.signatures)
        if not (is_whole and is_signed and promised <= objects.keys()):
            self.broken.append(f"{narinfo.info.path} in {cache}")

    def there(self, cache: str) -> Collection[StorePath]:
        """What readers of *cache* can see."""
        return [path for path in GRAPH if narinfo_key(path) in self.stored[cache]]

    def post_all(self) -> None:
        """A person wants another try of all that was set aside, and a last daemon works."""
        for path in sorted(self.wanted & self.held()):
            self.link(path)
        self.drain({})


class StoreNow(FakeStore):
    """The store as it is at this time: what is *valid*, with its *troubles*."""

    def __init__(self, valid: Collection[StorePath], troubles: Collection[str | StorePath]) -> None:
        super().__init__({path: info for path, info in GRAPH.items() if path in valid})
        self._unreadable = {path for path in OUTPUTS if path in troubles}
        for path in GRAPH.keys() & set(troubles) & set(valid):
            self.spoil(path)

    def outputs(self, derivation: StorePath) -> list[StorePath]:
        """Those of a derivation that Nix can read."""
        if derivation in self._unreadable:
            raise StoreRefused("Nix says: no such derivation")
        return list(OUTPUTS[derivation])


async def cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel *tasks*, but for the caller's, and wait until they have ended."""
    others = tasks - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.mark.parametrize(("machine", "histories"), [(QueueMoves, 120), (Posting, 90)])
def test_every_history_keeps_every_promise(
    machine: type[RuleBasedStateMachine], histories: int
) -> None:
    """The queue moved by hand, and the real intake and workers."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            derandomize=True,
            deadline=None,
            max_examples=soak.times(histories),
            stateful_step_count=50,
            # A history is shown as it is found: to make it shorter takes minutes.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
