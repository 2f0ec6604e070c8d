"""The folder of links."""

from pathlib import Path

import pytest

from narpost.errors import UsageError
from narpost.nix.store_path import StoreDir, StorePath
from narpost.queue.spool import Spool
from support.fake_store import STORE_DIR, store_path

HELLO, WORLD = store_path("hello"), store_path("world")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty queue in a folder below gcroots."""
    spool = Spool(tmp_path / "gcroots" / "narpost", STORE_DIR)
    spool.prepare(tmp_path / "gcroots")
    return spool


def queued(spool: Spool) -> set[StorePath]:
    """The entries that a first look finds."""
    return {entry.path for entry in spool.look().entries}


def test_an_entry_is_a_link_into_the_store(spool: Spool) -> None:
    """Its name is the path's own, so that Nix takes it for a root and everybody knows it."""
    spool.add([HELLO])

    [link] = spool.folder.iterdir()
    assert link.name == HELLO.base_name
    assert link.readlink() == Path(STORE_DIR.render(HELLO))
    assert spool.holds(HELLO)


def test_a_look_finds_what_was_queued(spool: Spool) -> None:
    """Also what was queued twice is there once, with the time of the first."""
    spool.add([HELLO, WORLD])
    first = spool.look()

    spool.add([WORLD, HELLO])

    assert spool.look() == first
    assert {entry.path for entry in first.entries} == {HELLO, WORLD}
    assert first.gone == []
    assert first.strays == {}


def test_a_look_tells_only_what_is_new(spool: Spool) -> None:
    """What the caller knows already is not told again."""
    spool.add([HELLO, WORLD])

    sight = spool.look({HELLO})

    assert [entry.path for entry in sight.entries] == [WORLD]
    assert sight.gone == []


def test_a_look_tells_what_has_gone(spool: Spool) -> None:
    """A link that somebody took out is gone."""
    spool.add([HELLO, WORLD])
    spool.folder.joinpath(HELLO.base_name).unlink()

    sight = spool.look({HELLO, WORLD})

    assert sight.gone == [HELLO]
    assert sight.entries == []


def test_the_time_of_an_entry_is_that_of_its_link(spool: Spool) -> None:
    """Not that of what the link leads to, which may be decades old, or missing."""
    spool.add([HELLO])

    [entry] = spool.look().entries

    assert entry.queued_at == spool.folder.joinpath(HELLO.base_name).lstat().st_mtime


def test_what_was_removed_is_not_queued(spool: Spool) -> None:
    """Removing it twice is removing it."""
    spool.add([HELLO, WORLD])

    spool.remove(HELLO)
    spool.remove(HELLO)

    assert not spool.holds(HELLO)
    assert queued(spool) == {WORLD}


def test_what_is_no_entry_is_told_and_left_alone(spool: Spool) -> None:
    """Files, folders and links to elsewhere harm nothing, and stay where they are."""
    spool.add([HELLO])
    strays = {
        "notes.txt": "it is not a link",
        "folder": "it is not a link",
        "elsewhere": "/etc/passwd",
        "inside": "/bin/hello",
        "other-name": "it leads to",
        "relative": "not in the store",
        "escape": "is not the name of a store path",
    }
    spool.folder.joinpath("notes.txt").write_text("buy milk")
    spool.folder.joinpath("folder").mkdir()
    spool.folder.joinpath("elsewhere").symlink_to("/etc/passwd")
    spool.folder.joinpath("inside").symlink_to(f"{STORE_DIR.render(WORLD)}/bin/hello")
    spool.folder.joinpath("other-name").symlink_to(STORE_DIR.render(WORLD))
    spool.folder.joinpath("relative").symlink_to("here")
    spool.folder.joinpath("escape").symlink_to("/nix/store/..")

    sight = spool.look()

    assert [entry.path for entry in sight.entries] == [HELLO]
    assert sight.strays.keys() == strays.keys()
    for name, reason in strays.items():
        assert reason in sight.strays[name]
    assert len(list(spool.folder.iterdir())) == 8


def test_a_name_of_bytes_that_are_no_text_is_a_stray(spool: Spool) -> None:
    """Whatever a file is called, the look goes on."""
    spool.add([HELLO])
    Path(spool.folder, b"\xff\xfe".decode(errors="surrogateescape")).touch()

    sight = spool.look()

    assert [entry.path for entry in sight.entries] == [HELLO]
    assert len(sight.strays) == 1


def test_a_link_for_another_store_is_a_stray(tmp_path: Path) -> None:
    """A queue is for one store."""
    spool = Spool(tmp_path, StoreDir("/scratch/store"))
    spool.prepare(tmp_path)
    spool.folder.joinpath(HELLO.base_name).symlink_to(f"/nix/store/{HELLO}")

    sight = spool.look()

    assert sight.entries == []
    assert "/scratch/store" in sight.strays[HELLO.base_name]


def test_a_folder_outside_of_gcroots_is_refused(tmp_path: Path) -> None:
    """What lies there, Nix would delete."""
    (tmp_path / "gcroots").mkdir()

    with pytest.raises(UsageError, match="would not keep") as caught:
        Spool(tmp_path / "elsewhere", STORE_DIR).prepare(tmp_path / "gcroots")

    assert "gcroots" in caught.value.hint


def test_a_folder_that_a_link_leads_to_is_refused(tmp_path: Path) -> None:
    """Nix walks real folders only, so a link below gcroots to a folder elsewhere keeps nothing."""
    (tmp_path / "gcroots").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "gcroots" / "narpost").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UsageError, match="would not keep"):
        Spool(tmp_path / "gcroots" / "narpost", STORE_DIR).prepare(tmp_path / "gcroots")


def test_gcroots_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    """A state folder that was moved to another disk is as good as any."""
    (tmp_path / "disk" / "gcroots").mkdir(parents=True)
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    spool = Spool(tmp_path / "state" / "gcroots" / "narpost", STORE_DIR)

    spool.prepare(tmp_path / "state" / "gcroots")

    assert spool.folder.is_dir()


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A queue that is away is something else than an empty one."""
    spool = Spool(tmp_path / "away", STORE_DIR)

    with pytest.raises(UsageError, match="cannot read the queue folder"):
        spool.look()
    with pytest.raises(UsageError, match="cannot queue"):
        spool.add([HELLO])


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The reason is told."""
    (tmp_path / "narpost").write_text("in the way")

    with pytest.raises(UsageError, match="cannot make the queue folder"):
        Spool(tmp_path / "narpost", STORE_DIR).prepare(tmp_path)
