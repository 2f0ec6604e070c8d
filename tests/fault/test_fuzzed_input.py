"""Whatever bytes come from outside: a value that is sound, or an error of ours; in bounds.

About 5,100 inputs, the same ones each time: made up, or valid and then changed in a few places, so
that what lies deep in a format is reached too.
"""

import sqlite3
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from narpost import config, wiring
from narpost.config import Config
from narpost.errors import NarpostError, PathCorrupt, StoreRefused, StoreUnreachable, UsageError
from narpost.nix import base32
from narpost.nix.cache_info import CacheInfo
from narpost.nix.hashes import Hash
from narpost.nix.narinfo import NarInfo
from narpost.nix.path_info import PathInfo
from narpost.nix.signing import PublicKey, SecretKey
from narpost.nix.store_path import StorePath
from narpost.nix.store_url import StoreUrl
from narpost.push.compression import Compression
from narpost.push.pack import Packed, pack_in_memory
from narpost.queue.ledger import FILE as LEDGER
from narpost.queue.ledger import Ledger, Standing
from narpost.queue.queue import Queue
from narpost.queue.spool import Spool
from narpost.queue.states import State
from narpost.store import connection
from narpost.store.connection import Connection
from narpost.store.local import LocalStore
from narpost.store.place import Place
from support import soak
from support.daemon_answers import (
    CHATTER,
    GREETING,
    LAST,
    described,
    error,
    listed,
    mapped,
    number,
    peer_saying,
    string,
)
from support.fake_store import STORE_DIR, nar_of, path_info, store_path
from support.mutations import (
    Changes,
    Insert,
    Replace,
    any_changes,
    any_number_changes,
    changed,
    text_of,
)
from support.vectors import HELLO_NARINFO, PLAIN_NARINFO, PUBLIC_KEY, SECRET_KEY

# The same inputs each time; how long one takes is nobody's promise.
FIXED = settings(derandomize=True, deadline=None)
# Where an input takes long, the first that fails is shown as it is.
SLOW = settings(FIXED, phases=[Phase.explicit, Phase.generate])

PLACE = Place(STORE_DIR, Path("/scratch/nix"), Path("/scratch/socket"))
# Longer than any peer here is silent; one that is makes the test fail, and not hang.
STALL_SECONDS = 10.0
SHORT_SECONDS = 0.05
# What a connection may hold, whatever is announced: a chunk of a NAR, and some.
HELD_BYTES = 4 << 20

LIBRARY = path_info("library")
HELLO = PathInfo(
    path=store_path("hello"),
    nar_hash=LIBRARY.nar_hash,
    nar_bytes=568,
    references=tuple(sorted([store_path("hello"), LIBRARY.path])),
    deriver=store_path("hello.drv"),
    signatures=("a.example.org-1:c2ln", "b.example.org-1:c2ln"),
    content_address=f"fixed:r:{LIBRARY.nar_hash.render()}",
    is_ultimate=True,
)
DERIVATION = store_path("hello.drv")


# Text: narinfos, keys, names, hashes, URLs.


@dataclass(frozen=True, slots=True)
class Format:
    """Something that we read from text and write as text; *samples* are valid."""

    parse: Callable[[str], Any]
    render: Callable[[Any], str]
    samples: tuple[str, ...]


def cache_url(text: str) -> StoreUrl:
    """A cache's URL, whose parameters have values that they can have."""
    url = StoreUrl.parse(text)
    wiring.check_parameters(url, PLACE)
    return url


def cache_info(info: CacheInfo) -> str:
    """As written into a cache."""
    return info.render()


FORMATS = {
    "narinfo": Format(
        lambda text: NarInfo.parse(text, STORE_DIR),
        lambda narinfo: narinfo.render(STORE_DIR),
        (HELLO_NARINFO, PLAIN_NARINFO),
    ),
    "nix-cache-info": Format(
        CacheInfo.parse,
        cache_info,
        ("StoreDir: /nix/store\n", "StoreDir: /a/b\nWantMassQuery: 1\nPriority: 40\n"),
    ),
    "secret key": Format(SecretKey.parse, SecretKey.render, (SECRET_KEY, f"{SECRET_KEY}\n")),
    "public key": Format(PublicKey.parse, PublicKey.render, (PUBLIC_KEY,)),
    "hash": Format(
        Hash.parse,
        Hash.render,
        (
            HELLO.nar_hash.render(),
            f"sha256:{HELLO.nar_hash.digest.hex()}",
            "sha256-RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=",
            "md5:0123456789abcdfghijklmnpqr",
        ),
    ),
    "base 32": Format(base32.decode, base32.encode, ("", "1j5vnm9a3r56jrsylgkynrpf2b0hmsmp")),
    "store path": Format(StorePath.parse, str, (HELLO.path.base_name, DERIVATION.base_name)),
    "full store path": Format(STORE_DIR.parse, STORE_DIR.render, (STORE_DIR.render(HELLO.path),)),
    "file of a store path": Format(
        STORE_DIR.containing, STORE_DIR.render, (f"{STORE_DIR.render(HELLO.path)}/bin/hello",)
    ),
    "store URL": Format(
        cache_url,
        StoreUrl.render,
        (
            "s3://example-nix-cache?region=eu-west-1&endpoint=localhost:1&scheme=http&profile=a",
            "file:///srv/a%20b?compression=xz&compression-level=9&priority=40&want-mass-query=true",
            "file:///srv/cache?secret-key=/etc/key&secret-keys=/etc/a,/etc/b",
        ),
    ),
}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@settings(FIXED, max_examples=soak.times(200))
@given(pick=st.integers(0, 3), changes=any_changes)
def test_a_text_is_refused_or_has_one_meaning(form: Format, pick: int, changes: Changes) -> None:
    """What a parser takes, it writes as text that it reads again as the same."""
    sample = form.samples[pick % len(form.samples)]
    text = text_of(changed(sample.encode(), changes))

    value = unless_refused(lambda: form.parse(text))

    assert value is None or form.parse(form.render(value)) == value


def unless_refused(parse: Callable[[], Any]) -> Any:
    """What *parse* gives; nothing where it says that the input cannot be right."""
    try:
        return parse()
    except UsageError:
        return None


@settings(FIXED, max_examples=soak.times(200))
@given(any_changes)
def test_a_secret_key_file_of_any_bytes_is_not_shown(changes: Changes) -> None:
    """It holds a key or is refused, and no message shows even a few letters of a secret."""
    secret = SECRET_KEY.partition(":")[2]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "key")
        file.write_bytes(changed(SECRET_KEY.encode(), changes))

        said = refusal(lambda: wiring.load_key(file))

    assert all(secret[at : at + 6] not in said for at in range(len(secret) - 5))


def refusal(work: Callable[[], object]) -> str:
    """All that is said where *work* is refused."""
    try:
        work()
    except UsageError as error:
        return f"{error.message}\n{error.hint}"
    return ""


# The configuration.

FULL = f"""\
[queue]
directory = "/scratch/nix/gcroots/other"
state = "~/state"
catch-up = true
drop-set-aside-after-days = 30
warn-depth = 500
packed-bytes = 1000000

[nix]
store = "unix:///run/nix.socket"

[[cache]]
name = "main"
url = "s3://example-nix-cache?region=eu-west-1"
secret-key-files = ["/etc/nix/a.private", "~root/b.private"]
upstream-keys = ["{PUBLIC_KEY}"]
backlog-level = 3
bytes-per-second = 1000000
requests-per-second = 50

[[cache]]
name = "disk"
url = "file:///srv/cache"
sign = false
"""

words = st.sampled_from(
    "queue nix cache directory state store name url secret-key-files upstream-keys sign"
    " catch-up drop-set-aside-after-days warn-depth packed-bytes"
    " backlog-level bytes-per-second requests-per-second".split()
)
samples = ("/scratch", "~/a", "~nobody/a", "main", "s3://bucket", "file:///a", PUBLIC_KEY)
texts = st.builds(
    lambda sample, changes: text_of(changed(sample.encode(), changes)),
    st.sampled_from(samples),
    st.just([]) | any_changes,
)
numbers = st.integers() | st.just(10**400)
scalars = st.one_of(st.booleans(), numbers, st.floats(), st.datetimes(), texts)
values = st.recursive(
    scalars,
    lambda deeper: (
        st.lists(deeper, max_size=3) | st.dictionaries(words | texts, deeper, max_size=3)
    ),
    max_leaves=6,
)
caches = st.dictionaries(words | texts, values, max_size=3).map(
    lambda cache: {"url": "s3://bucket"} | cache
)
tables = st.fixed_dictionaries(
    {"cache": st.lists(caches, max_size=2) | values},
    optional={
        "queue": st.dictionaries(words, values, max_size=2) | values,
        "nix": st.dictionaries(words, values, max_size=2) | values,
    },
)


@settings(FIXED, max_examples=soak.times(400), suppress_health_check=[HealthCheck.too_slow])
@given(tables | st.dictionaries(words | texts, values, max_size=4))
def test_a_configuration_of_any_shape_is_refused_or_usable(table: Mapping[str, Any]) -> None:
    """Whatever TOML can hold, in every place of the configuration."""
    parsed = unless_refused(lambda: config.parse(table, PLACE))

    assert parsed is None or is_usable(parsed)


@settings(FIXED, max_examples=soak.times(400))
@given(any_changes)
@example([Replace(b"a=" + b"[" * 5000)])
@example([Replace(b"a=" + b"9" * 5000)])
@example([Insert(FULL.index("/state"), b"\\u0000")])
@example([Insert(FULL.index("cache") + len("cache"), b"\\u0000")])
@example([Insert(FULL.index("/cache"), b"%00")])
@example([Insert(FULL.index("30"), b"9" * 400)])
@example([Insert(FULL.index("50"), b"9" * 400)])
def test_a_configuration_file_of_any_bytes_is_refused_or_usable(changes: Changes) -> None:
    """Whatever lies at the configuration's place."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.toml")
        file.write_bytes(changed(FULL.encode(), changes))

        parsed = unless_refused(lambda: config.load(file, PLACE))

    assert parsed is None or is_usable(parsed)


def is_usable(parsed: Config) -> bool:
    """Whether each name of a file or folder can be one, and each number is one to reckon with."""
    files = chain.from_iterable(cache.secret_key_files for cache in parsed.caches)
    places = [cache.url.location for cache in parsed.caches]
    names = [str(parsed.directory), str(parsed.state), *map(str, files), *places]
    numbers = [parsed.warn_depth, parsed.packed_bytes, parsed.drop_set_aside_after_days]
    for each in parsed.caches:
        numbers += [each.backlog_level, each.bytes_per_second, each.requests_per_second]
    is_named = not any("\0" in name for name in names)
    return is_named and all(number is None or number < 1 << 63 for number in numbers)


# The worker protocol.


@dataclass(frozen=True, slots=True)
class Question:
    """An operation of a connection, a valid answer, and what holds for whatever is made of it."""

    ask: Callable[[Connection], Any]
    answer: bytes
    is_sound: Callable[[Any], bool]


def are_sound(infos: Mapping[StorePath, PathInfo]) -> bool:
    """Whether what is known of paths can be written into a narinfo, and is read there again."""
    narinfos = [NarInfo(info, "nar/any.nar", "none") for info in infos.values()]
    return infos.keys() <= {HELLO.path, LIBRARY.path} and all(
        reread(narinfo) == written(narinfo) for narinfo in narinfos
    )


def reread(narinfo: NarInfo) -> NarInfo | None:
    """What readers make of *narinfo*, if they take it at all."""
    text = narinfo.render(STORE_DIR)
    parsed: NarInfo | None = unless_refused(lambda: NarInfo.parse(text, STORE_DIR))
    return parsed


def written(narinfo: NarInfo) -> NarInfo:
    """*narinfo* without what is not written."""
    info = narinfo.info
    kept = PathInfo(
        info.path,
        info.nar_hash,
        info.nar_bytes,
        tuple(sorted(set(info.references))),
        info.deriver,
        info.signatures,
        info.content_address,
    )
    return NarInfo(kept, narinfo.url, narinfo.compression)


def are_store_paths(paths: Any) -> bool:
    """Whether each of *paths* could be one of Nix's."""
    return all(StorePath.parse(path.base_name) == path for path in paths)


QUESTIONS = {
    "path infos": Question(
        lambda asked: asked.path_infos([HELLO.path, LIBRARY.path]),
        described(HELLO, STORE_DIR) + described(LIBRARY, STORE_DIR),
        are_sound,
    ),
    "a path that is gone": Question(
        lambda asked: asked.path_infos([HELLO.path, LIBRARY.path]),
        LAST + number(0) + described(LIBRARY, STORE_DIR),
        are_sound,
    ),
    "valid paths": Question(
        lambda asked: asked.valid_paths([HELLO.path]),
        listed([HELLO.path], STORE_DIR),
        are_store_paths,
    ),
    "all valid paths": Question(
        lambda asked: asked.all_valid_paths(),
        listed([HELLO.path, LIBRARY.path, DERIVATION], STORE_DIR),
        are_store_paths,
    ),
    "outputs": Question(
        lambda asked: asked.outputs(DERIVATION),
        mapped([("out", HELLO.path), ("dev", LIBRARY.path)], STORE_DIR),
        are_store_paths,
    ),
    "an error": Question(
        lambda asked: asked.outputs(DERIVATION),
        error(b"\x1b[31;1merror:\x1b[0m no such derivation '\xff'"),
        are_store_paths,
    ),
    "a NAR": Question(
        lambda asked: b"".join(asked.nar(LIBRARY.path, LIBRARY.nar_bytes)),
        LAST + nar_of(LIBRARY.path),
        lambda nar: len(nar) == LIBRARY.nar_bytes,
    ),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@settings(FIXED, max_examples=soak.times(200))
@given(before=st.sampled_from([b"", CHATTER]), changes=any_number_changes)
def test_an_answer_of_any_bytes_is_sound_or_refused(
    question: Question, before: bytes, changes: Changes
) -> None:
    """What a daemon answers is checked where it comes in, and its errors are of three kinds."""
    answer = changed(before + question.answer, changes)

    value = answered(question, GREETING + answer)

    assert value is None or question.is_sound(value)


@settings(FIXED, max_examples=soak.times(200))
@given(any_number_changes)
def test_a_greeting_of_any_bytes_is_understood_or_refused(changes: Changes) -> None:
    """Whoever listens at the socket."""
    question = QUESTIONS["valid paths"]

    value = answered(question, changed(GREETING, changes) + question.answer)

    assert value is None or question.is_sound(value)


def answered(question: Question, said: bytes) -> Any:
    """What we make of all that a daemon *said*; nothing where it is refused."""
    with peer_saying(said) as stream:
        try:
            return question.ask(Connection(stream, STORE_DIR, stall_seconds=STALL_SECONDS))
        except (StoreUnreachable, StoreRefused, PathCorrupt):
            return None


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_a_daemon_that_falls_silent_is_given_up(
    question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of an answer, and then nothing, on a connection that stays open."""
    monkeypatch.setattr(connection, "SILENCE_SECONDS", SHORT_SECONDS)
    said = GREETING + question.answer[: len(question.answer) // 2]

    with peer_saying(said, is_silent_then=True) as stream:
        asked = Connection(stream, STORE_DIR, stall_seconds=SHORT_SECONDS)
        with pytest.raises(StoreUnreachable, match="not answered in time"):
            question.ask(asked)


HUGE = 1 << 60
ANNOUNCEMENTS = {
    "a string as long as any": ("valid paths", LAST + number(1) + number(1 << 26)),
    "a string": ("valid paths", LAST + number(1) + number(HUGE)),
    "a list of strings": ("all valid paths", LAST + number(HUGE)),
    "a list of empty strings": ("all valid paths", LAST + number(HUGE) + bytes(80_000)),
    "a map": ("outputs", LAST + number(HUGE)),
    "fields": ("valid paths", CHATTER[: CHATTER.index(string("a field")) - 16] + number(HUGE)),
    "a message": ("an error", error(b"")[:8] + number(HUGE)),
    "chatter": ("an error", CHATTER * 300),
}


@pytest.mark.parametrize(("asked", "answer"), ANNOUNCEMENTS.values(), ids=ANNOUNCEMENTS)
def test_what_is_only_announced_takes_no_memory(asked: str, answer: bytes) -> None:
    """A size is believed when its bytes have come, and not before."""
    held, value = peak_of(lambda: answered(QUESTIONS[asked], GREETING + answer))

    assert value is None
    assert held < HELD_BYTES


def test_a_nar_of_any_announced_size_takes_no_memory() -> None:
    """It is read in chunks until it ends early."""

    def read() -> int:
        with peer_saying(GREETING + LAST + bytes(90_000)) as stream:
            asked = Connection(stream, STORE_DIR, stall_seconds=STALL_SECONDS)
            with pytest.raises(StoreUnreachable):
                for _chunk in asked.nar(HELLO.path, HUGE):
                    pass
        return 0

    held, _ = peak_of(read)

    assert held < HELD_BYTES


def peak_of(work: Callable[[], Any]) -> tuple[int, Any]:
    """How many bytes *work* held at most, and what it gave."""
    tracemalloc.start()
    try:
        value = work()
        return tracemalloc.get_traced_memory()[1], value
    finally:
        tracemalloc.stop()


# NARs.


@settings(FIXED, max_examples=soak.times(200))
@given(any_changes)
def test_a_nar_of_any_bytes_is_packed_only_as_registered(changes: Changes) -> None:
    """Other bytes than Nix registered make that path's error; the next path has its own verdict."""
    nar, neighbour = changed(nar_of(LIBRARY.path), changes), path_info("neighbour")
    whole = LAST + nar_of(neighbour.path)

    with store_saying(GREETING + LAST + nar + whole, GREETING + whole) as store:
        results = pack_in_memory([LIBRARY, neighbour], store, Compression("none").start())

    assert [type(result) is Packed for result in results] == [
        nar[: LIBRARY.nar_bytes] == nar_of(LIBRARY.path),
        True,
    ] or is_refused_after_its_end(nar, results)
    assert all(isinstance(result, Packed | NarpostError) for result in results)


def is_refused_after_its_end(nar: bytes, results: list[Packed | Exception]) -> bool:
    """Whether more came after a whole NAR, so that what followed could not be understood."""
    return (
        nar.startswith(nar_of(LIBRARY.path))
        and len(nar) > LIBRARY.nar_bytes
        and isinstance(results[1], StoreUnreachable)
    )


@contextmanager
def store_saying(*said: bytes) -> Iterator[LocalStore]:
    """A store whose daemon says one of *said* on each connection."""
    with ExitStack() as stack:
        streams = iter([stack.enter_context(peer_saying(each)) for each in said])
        store = LocalStore(
            STORE_DIR,
            lambda: Connection(next(streams), STORE_DIR, stall_seconds=STALL_SECONDS),
        )
        yield stack.enter_context(closing(store))


# The ledger.

CACHE_URL = "file:///srv/cache"
QUEUED = [store_path(f"queued-{count}") for count in range(40)]


@cache
def ledger_bytes() -> bytes:
    """A ledger of several pages, in which each of `QUEUED` has failed."""
    with tempfile.TemporaryDirectory() as folder:
        with Ledger(Path(folder)) as ledger:
            for path in QUEUED:
                failed = Standing(State.WAITING, 3, 50.0, "503 Slow Down" * 5)
                ledger.remember(path, "main", failed)
                ledger.remember(path, "gone", Standing(State.CONFIRMED))
                ledger.post(path, "gone", (100, 10), 1.0)
                ledger.see(CACHE_URL, [path], 100.0)
            ledger.settle(LIBRARY.path, 1.0)
            ledger.know(QUEUED)
            ledger.keep_health("main", "down", "503 Slow Down", 1.0)
        return Path(folder, LEDGER).read_bytes()


@settings(SLOW, max_examples=soak.times(150))
@given(any_number_changes)
def test_a_ledger_of_any_bytes_loses_no_entry(changes: Changes) -> None:
    """The queue opens, has all that lies in the folder, and its new ledger is of use."""
    with tempfile.TemporaryDirectory() as name:
        Path(name, LEDGER).write_bytes(changed(ledger_bytes(), changes))

        assert worked_off(Path(name)) == set(QUEUED)


# The same columns, without types, keys and rules.
LOOSEN = """
    CREATE TABLE loose AS SELECT * FROM entry;
    DROP TABLE entry;
    ALTER TABLE loose RENAME TO entry;
"""
TABLES = {
    "another table": "CREATE TABLE other (a)",
    "other columns": "CREATE TABLE entry (path, standing)",
    "fewer columns": "CREATE TABLE posting (path)",
    "more columns": "CREATE TABLE seen (path, url, seen_at, seen_by)",
    "another key": "CREATE TABLE settled (path, settled_at, PRIMARY KEY (settled_at))",
    "a view": "CREATE VIEW entry AS SELECT 1 AS path, 2 AS cache",
    "an index": "CREATE TABLE a (path); CREATE INDEX entry ON a (path)",
}
ROWS: Mapping[str, Mapping[str, Any]] = {
    "an unknown state": {"state": "on its way"},
    "a state that is bytes": {"state": b"\xff"},
    "a state that is nothing": {"state": None},
    "a time that is a text": {"due_at": "soon"},
    "a time that is nothing": {"due_at": None},
    "a time without end": {"due_at": float("inf")},
    "tries below zero": {"tries": -(1 << 63)},
    "tries that are a text": {"tries": "many"},
    "a reason that is nothing": {"reason": None},
    "a cache that is nothing": {"cache": None},
    "a path that is bytes": {"path": b"\xff"},
    "a path that is none": {"path": "../../../etc"},
}


@pytest.mark.parametrize(
    "word", ["CREATE TABLE", "entry", "settled", "NOT NULL", "posting_by_path"]
)
def test_a_ledger_whose_schema_is_no_text_loses_no_entry(tmp_path: Path, word: str) -> None:
    """SQLite then repeats bytes that are no text in its error, which Python cannot decode."""
    written = ledger_bytes().replace(word.encode(), word[:-1].encode() + b"\xe9")
    (tmp_path / LEDGER).write_bytes(written)

    with Ledger(tmp_path, is_writer=False) as ledger:
        assert len(ledger.standings()) in {0, 2 * len(QUEUED)}
    assert worked_off(tmp_path) == set(QUEUED)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_ledger_with_any_tables_loses_no_entry(tmp_path: Path, table: str) -> None:
    """A whole database, with tables that are not those we make."""
    with closing(sqlite3.connect(tmp_path / LEDGER)) as database:
        database.executescript(table)

    assert worked_off(tmp_path) == set(QUEUED)


@pytest.mark.parametrize("odd", ROWS.values(), ids=ROWS)
def test_a_ledger_with_any_row_loses_no_entry(tmp_path: Path, odd: Mapping[str, Any]) -> None:
    """Tables with our names and columns, and in one row a value that we never write."""
    (tmp_path / LEDGER).write_bytes(ledger_bytes())
    ((column, value),) = odd.items()
    with closing(sqlite3.connect(tmp_path / LEDGER)) as database:
        database.executescript(LOOSEN)
        change = f"UPDATE entry SET {column} = ? WHERE path = ? AND cache = 'main'"
        changed_rows = database.execute(change, (value, QUEUED[0].base_name)).rowcount
        database.commit()

    assert changed_rows == 1
    assert worked_off(tmp_path) == set(QUEUED)


def worked_off(folder: Path) -> set[StorePath]:
    """Queue `QUEUED` over the ledger in *folder*, and confirm each; gives what was in the queue."""
    spool = Spool(folder, STORE_DIR)
    spool.make()
    spool.add(QUEUED)
    with Ledger(folder) as ledger:
        queue = Queue(spool, ledger, ["main"], clock=lambda: 100.0, emit=lambda event: None)
        queue.look()
        queue.hurry()
        found = queue.left()
        assert all(isinstance(at, float) for at in ledger.seen(CACHE_URL, 0.0).values())
        assert all(isinstance(each.since, float) for each in ledger.healths().values())
        for path in queue.claim("main", len(QUEUED)):
            queue.confirm("main", path)
        queue.save()
        assert queue.left() == {}
        assert spool.queued() == []
    with Ledger(folder) as ledger:
        assert all(map(ledger.has_settled, QUEUED))
    return set(found)


@settings(SLOW, max_examples=soak.times(30))
@given(any_changes)
def test_a_reason_of_any_bytes_is_kept(changes: Changes) -> None:
    """What Nix or a server said of an entry neither stops a save nor spoils the next one."""
    error = NarpostError(text_of(changed(b"Nix says: no such file '/a/b'", changes)))
    with tempfile.TemporaryDirectory() as name:
        spool = Spool(Path(name), STORE_DIR)
        spool.make()
        spool.add(QUEUED)
        with Ledger(Path(name)) as ledger:
            queue = Queue(spool, ledger, ["main"], clock=lambda: 100.0, emit=lambda event: None)
            queue.look()
            queue.claim("main", len(QUEUED))
            queue.set_aside("main", QUEUED[0], error)
            queue.confirm("main", QUEUED[1])

            queue.save()

            assert {entry.path for entry in spool.queued()} == set(QUEUED) - {QUEUED[1]}
        with Ledger(Path(name)) as ledger:
            assert ledger.standings()[QUEUED[0].base_name, "main"].state is State.SET_ASIDE


@settings(SLOW, max_examples=soak.times(150))
@given(any_number_changes)
def test_a_ledger_of_any_bytes_can_be_looked_at(changes: Changes) -> None:
    """A reader, such as status, finds what it can or nothing, and leaves the file as it is."""
    written = changed(ledger_bytes(), changes)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, LEDGER)
        file.write_bytes(written)

        with Ledger(Path(name), is_writer=False) as ledger:
            standings, totals = ledger.standings(), ledger.totals(0.0)
            healths, is_settled = ledger.healths(), ledger.has_settled(LIBRARY.path)

        assert file.read_bytes() == written
    assert is_settled in {True, False}
    assert all(isinstance(each.state, State) for each in standings.values())
    assert all(isinstance(each.paths, int) for each in totals.values())
    assert all(isinstance(each.reason, str) for each in healths.values())
