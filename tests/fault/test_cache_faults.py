"""A cache that fails loses no path and shows none by halves; once it is well, it gets them all.

The cache is a real S3 server, and what stands between does the harm. Whatever is looked at in the
bucket is looked at behind its back.
"""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from support import fault_proxy
from support.fault_proxy import (
    Action,
    Answer,
    Delay,
    FaultProxy,
    Hits,
    Request,
    Reset,
    Stall,
    Truncate,
)
from support.machine import Machine, large
from support.posting import Posting
from support.private_store import PrivateStore, derivation
from support.radosgw import S3Server
from support.s3 import S3Bucket

# Less than the body of any request that has one.
IN_MID_BODY = 50
FAULTS: dict[str, Action] = {
    "reset": Reset(IN_MID_BODY),
    "stall": Stall(),
    "truncated": Truncate(),
    "500": Answer(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError"),
    "503": Answer(HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown", {"Retry-After": "1"}),
    "429": Answer(HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests", {"Retry-After": "1"}),
    "403": Answer(HTTPStatus.FORBIDDEN, "AccessDenied"),
    "clock-skew": Answer(HTTPStatus.FORBIDDEN, "RequestTimeTooSkewed"),
    "no-bucket": Answer(HTTPStatus.NOT_FOUND, "NoSuchBucket"),
}
any_fault = pytest.mark.parametrize("action", FAULTS.values(), ids=FAULTS)

# In parts of 16 MiB, these are two and a little.
LARGE_BYTES = (33 << 20) + 7
PARTS = 3


def asks_for_path(request: Request) -> bool:
    """Whether *request* asks if a path is there."""
    return request.kind == "HEAD" and request.key.endswith(".narinfo")


def sends_nar(request: Request) -> bool:
    """Whether *request* is to store a NAR."""
    return request.kind == "PUT" and request.key.startswith("nar/")


def reads_back(request: Request) -> bool:
    """Whether *request* asks if a NAR arrived."""
    return request.kind == "HEAD" and request.key.startswith("nar/")


def shows_path(request: Request) -> bool:
    """Whether *request* is to make a path visible."""
    return request.kind == "PUT" and request.key.endswith(".narinfo")


def sends_part(request: Request) -> bool:
    """Whether *request* is to store a part of a large NAR."""
    return request.kind == "PUT partNumber"


def completes(request: Request) -> bool:
    """Whether *request* makes one object of its parts."""
    return request.kind == "POST uploadId"


STEPS = [asks_for_path, sends_nar, reads_back, shows_path]
one_path = pytest.mark.parametrize("step", [asks_for_path, shows_path])


@pytest.fixture(scope="module")
def s3_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """What stands before the server, for all tests here."""
    with fault_proxy.running(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def posting(
    private_store: PrivateStore, tmp_path: Path, s3_bucket: S3Bucket, s3_proxy: FaultProxy
) -> Iterator[Posting]:
    """A build machine and an empty bucket; no daemon runs yet, and no request was made."""
    s3_proxy.requests.clear()
    machine = Machine.set_up(private_store, tmp_path / "machine")
    posting = Posting(machine, s3_bucket, s3_proxy)
    machine.configure(posting.section())
    yield posting
    s3_proxy.end()


def program(name: str) -> list[str]:
    """Expressions for a program and its library, which nothing else has."""
    library = derivation(f"{name}-library")
    return [library, derivation(name, references=[library])]


@any_fault
def test_a_cache_that_fails_from_the_start_gets_all_in_the_end(
    posting: Posting, action: Action
) -> None:
    """The daemon starts beside a cache that it cannot open, and stays until it can."""
    paths = posting.machine.build(*program("early"))

    fault = posting.proxy.begin(action)
    with posting.daemon() as daemon:
        posting.wait_until_felt(fault, daemon)
        queued = posting.machine.queued()
        posting.proxy.end()
        posting.machine.wait_until_nothing_is_queued()

    assert queued >= set(paths)
    posting.assert_posted(paths)


@any_fault
def test_a_cache_that_fails_at_any_step_gets_all_in_the_end(
    posting: Posting, action: Action
) -> None:
    """Each step of posting meets the fault in its turn, and the same daemon outlives them all."""
    paths: list[str] = []

    with posting.daemon() as daemon:
        for step in STEPS:
            lines = len(daemon.log())
            fault = posting.proxy.begin(action, step)
            # A small NAR is proven to be there by the answer, and only a large one is asked for.
            wanted = [large("large")] if step is reads_back else program(step.__name__)
            paths += posting.machine.build(*wanted)
            posting.wait_until_felt(fault, daemon, lines)
            posting.assert_nothing_is_lost_or_half_visible(paths)
            posting.proxy.end()
            posting.machine.wait_until_nothing_is_queued()

    posting.assert_posted(paths)


def test_a_slow_cache_gets_each_object_once(posting: Posting) -> None:
    """Nothing is sent twice because an answer takes its time, and all is posted meanwhile."""
    paths = posting.machine.build(*program("one"), *program("two"))

    posting.proxy.begin(Delay(0.3))
    with posting.daemon():
        posting.machine.wait_until_nothing_is_queued()

    posting.assert_posted(paths)
    sent = [request.key for request in posting.proxy.requests if request.kind == "PUT"]
    assert sorted(sent) == sorted(posting.bucket.keys())


@pytest.mark.parametrize("step", [sends_nar, shows_path])
def test_an_answer_that_all_is_well_is_not_believed(posting: Posting, step: Hits) -> None:
    """A server that says 200 and stores nothing leaves all queued, until it stores."""
    paths = posting.machine.build(*program("believed"))

    fault = posting.proxy.begin(Answer(HTTPStatus.OK), step)
    with posting.daemon() as daemon:
        posting.wait_until_felt(fault, daemon)
        posting.assert_nothing_is_lost_or_half_visible(paths)
        posting.proxy.end()
        posting.machine.wait_until_nothing_is_queued()

    posting.assert_posted(paths)


def test_a_narinfo_that_was_not_stored_holds_its_referrers_back(posting: Posting) -> None:
    """Where a library's narinfo is lost behind a 200, the program is not shown without it."""
    library, main = posting.machine.build(*program("held"))
    (library_key,) = posting.narinfo_keys([library])

    fault = posting.proxy.begin(
        Answer(HTTPStatus.OK), lambda request: shows_path(request) and request.key == library_key
    )
    with posting.daemon() as daemon:
        posting.wait_until_felt(fault, daemon)
        posting.assert_nothing_is_lost_or_half_visible([library, main])
        posting.proxy.end()
        posting.machine.wait_until_nothing_is_queued()

    posting.assert_posted([library, main])


@one_path
def test_a_path_that_is_refused_holds_up_no_other(posting: Posting, step: Hits) -> None:
    """All others are posted, and are not said to fail; a person brings the bad one back."""
    bad, *good = posting.machine.build(derivation("bad"), *program("good"))
    (bad_key,) = posting.narinfo_keys([bad])

    posting.proxy.begin(FAULTS["403"], lambda request: step(request) and request.key == bad_key)
    with posting.daemon() as daemon:
        posting.machine.wait_until(
            lambda: posting.machine.queued() == {bad}, "only the bad one is left"
        )
        posting.assert_posted(good)
        failed = {line.split()[3] for line in daemon.log() if line.startswith("not posted yet: ")}
        posting.proxy.end()
        # Unless it has just gone by itself.
        posting.machine.narpost("queue", "retry", bad, check=False)
        posting.machine.wait_until_nothing_is_queued()

    assert failed == {Path(bad).name}
    posting.assert_posted([bad, *good])


@one_path
def test_a_path_that_is_stalled_holds_up_none_that_come_later(posting: Posting, step: Hits) -> None:
    """While no answer comes for it, what is queued after it is posted."""
    (bad,) = posting.machine.build(derivation("bad"))
    (bad_key,) = posting.narinfo_keys([bad])

    fault = posting.proxy.begin(
        FAULTS["stall"], lambda request: step(request) and request.key == bad_key
    )
    with posting.daemon() as daemon:
        posting.wait_until_felt(fault, daemon)
        good = posting.machine.build(*program("good"))
        posting.machine.wait_until(
            lambda: posting.machine.queued() == {bad}, "only the bad one is left"
        )
        posting.assert_posted(good)
        posting.proxy.end()
        posting.machine.wait_until_nothing_is_queued()

    posting.assert_posted([bad, *good])


def test_a_cache_that_stalls_holds_up_no_other_cache(posting: Posting) -> None:
    """A folder, as the second cache, has all while the first one says nothing."""
    machine = posting.machine
    machine.configure(posting.section(), machine.cache_section(name="folder"))
    paths = machine.build(*program("both"))

    posting.proxy.begin(Stall())
    with posting.daemon():
        machine.wait_until(lambda: machine.posted() == set(paths), "the folder has all")
        queued = machine.queued()
        posting.proxy.end()
        machine.wait_until_nothing_is_queued()

    assert queued == set(paths)
    posting.assert_posted(paths)


def test_a_stalled_daemon_that_is_told_to_stop_does(posting: Posting) -> None:
    """It does not wait for an answer that may never come; what it was about to post is queued."""
    paths = posting.machine.build(*program("stopped"))

    fault = posting.proxy.begin(Stall(), shows_path)
    with posting.daemon() as daemon:
        posting.wait_until_felt(fault, daemon)
        code = daemon.stop()

    assert code == 0
    posting.assert_nothing_is_lost_or_half_visible(paths)


def test_a_large_nar_cut_off_in_mid_part_arrives_whole(posting: Posting) -> None:
    """Each part is cut off in its middle; nothing is visible, and then the whole object is."""
    paths = posting.machine.build(large("large", LARGE_BYTES))

    fault = posting.proxy.begin(Reset(8 << 20), sends_part)
    with posting.daemon() as daemon:
        posting.wait_until_felt(fault, daemon)
        posting.assert_nothing_is_lost_or_half_visible(paths)
        posting.proxy.end()
        posting.machine.wait_until_nothing_is_queued()

    posting.assert_posted(paths)
    assert posting.bucket.begun_uploads() == []


def test_an_upload_that_a_kill_has_cut_off_is_ended_at_the_next_start(posting: Posting) -> None:
    """The parts that arrived are neither paid for nor lost sight of, and the path is posted."""
    paths = posting.machine.build(large("large", LARGE_BYTES))

    fault = posting.proxy.begin(Stall(), sends_part)
    with posting.daemon() as daemon:
        posting.wait_until_felt(fault, daemon)
        daemon.kill()
    posting.proxy.end()
    begun = posting.bucket.begun_uploads()
    with posting.daemon():
        posting.machine.wait_until_nothing_is_queued()

    assert len(begun) == 1
    assert posting.bucket.begun_uploads() == []
    assert posting.machine.packed_files() == []
    posting.assert_posted(paths)


def test_a_large_nar_whose_last_answer_is_lost_is_not_sent_again(posting: Posting) -> None:
    """The parts were put together all the same, which the next try sees."""
    # So that each try packs the path to the same bytes.
    posting.machine.configure(posting.section({"compression-level": "1"}))
    paths = posting.machine.build(large("large", LARGE_BYTES))

    fault = posting.proxy.begin(Truncate(), completes)
    with posting.daemon() as daemon:
        posting.wait_until_felt(fault, daemon)
        posting.machine.wait_until_nothing_is_queued()

    posting.assert_posted(paths)
    assert posting.proxy.count("PUT partNumber") == PARTS
