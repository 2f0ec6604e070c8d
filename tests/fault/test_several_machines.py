"""Several machines post to one cache at once: each narinfo has its NAR and closure all the time.

Each has a store of its own, at the same place, so what they build has the same names; and some of
it has other bytes on each.
"""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from narpost.nix.signing import PublicKey
from support import mounts, private_store, soak
from support.cache_promise import FolderCache, PublishedCache
from support.machine import Machine, large
from support.private_store import PrivateStore, derivation
from support.programs import require
from support.s3 import BucketCache, S3Bucket, write_credentials

MACHINES = 4
ROUNDS = soak.times(2)
LIVES = 4
# Up to about the time in which a daemon starts and posts what a round has built.
LIFE_SECONDS = (0.1, 0.4)

Build = list[str]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """Machines whose stores lie at the same place, which is another one for each."""
    require(private_store.missing_programs(), "private Nix stores")
    require(mounts.missing(), "several stores at one place")
    place = tmp_path / "store"
    place.mkdir()
    with ExitStack() as stack:
        yield [
            machine_with_store_at(place, tmp_path / f"machine-{number}", stack)
            for number in range(MACHINES)
        ]


def test_machines_that_post_to_one_folder_agree(machines: list[Machine], tmp_path: Path) -> None:
    """Three post what all four build, and one is killed again and again; then all is there."""
    folder = tmp_path / "cache"
    share(machines, f"file://{folder}")

    post_and_be_killed(machines, FolderCache(folder, machines[0].store_dir), random.Random(0))


def test_machines_that_post_to_one_bucket_agree(
    machines: list[Machine], s3_bucket: S3Bucket
) -> None:
    """The same with a bucket of a server."""
    for machine in machines:
        write_credentials(machine.store.home, {"default": s3_bucket.server})
    share(machines, s3_bucket.url().render())

    post_and_be_killed(machines, BucketCache(s3_bucket, machines[0].store_dir), random.Random(1))


def post_and_be_killed(
    machines: list[Machine], cache: PublishedCache, chance: random.Random
) -> None:
    """Build the same on all *machines* while they post, of which the first is killed."""
    first, *others = machines
    key = PublicKey.parse(first.public_key.read_text())
    built: set[str] = set()

    with ThreadPoolExecutor(MACHINES) as beside, ExitStack() as daemons:
        for machine in others:
            daemons.enter_context(machine.daemon())
        for number in range(ROUNDS):
            building = [
                beside.submit(machine.build, *round_of(number, own))
                for own, machine in enumerate(machines)
            ]
            for _ in range(LIVES):
                first.live_for(chance.uniform(*LIFE_SECONDS))
                assert cache.broken_promises(key) == []
            built.update(path for each in building for path in each.result())
        first.narpost("daemon", "--drain")
        for machine in others:
            machine.wait_until_nothing_is_queued()

    # What is the same on all has one name.
    assert len(built) == ROUNDS * (len(round_of(0, 0)) - 1 + MACHINES)
    assert [machine.queued() for machine in machines] == [set()] * MACHINES
    assert cache.paths() >= built
    assert cache.broken_promises(key) == []


def round_of(number: int, own: int) -> Build:
    """What a machine builds in a round: much that all do, and something that is its own alone."""
    library = derivation(f"library-{number}")
    users = [derivation(f"user-{number}-{user}", references=[library]) for user in range(5)]
    # Not the same bytes on any two machines, nor the same references.
    odd = derivation(
        f"odd-{number}",
        "set -- $references; [ $(od -An -N1 -tu1 /dev/urandom) -lt 128 ] || shift; echo $1 > $out",
        references=users[:2],
    )
    ours = derivation(f"own-{number}-{own}", references=[odd, *users])
    return [library, *users, odd, ours, large(f"large-{number}")]


def machine_with_store_at(place: Path, folder: Path, stack: ExitStack) -> Machine:
    """A machine in *folder* whose programs find its store at *place*."""
    namespace = stack.enter_context(mounts.private_mounts())
    store = PrivateStore.create(folder / "nix")
    namespace.mount("--bind", store.store_dir, place)
    machine = Machine.set_up(replace(store, mounted_at=place), folder / "machine")
    return replace(machine, wrapper=namespace.enter)


def share(machines: list[Machine], url: str) -> None:
    """Have all *machines* post to *url*, with the key of the first."""
    key = machines[0].secret_key
    for machine in machines:
        machine.configure(f'[[cache]]\nurl = "{url}"\nsecret-key-files = ["{key}"]\n')
