"""The configuration: one TOML file to one frozen value, checked whole."""

from collections.abc import Callable
from pathlib import Path

import pytest

from narpost import config
from narpost.config import CacheConfig, Config
from narpost.errors import UsageError
from narpost.nix.signing import PublicKey
from narpost.nix.store_path import StoreDir
from narpost.nix.store_url import StoreUrl
from narpost.store.place import Place
from support.vectors import PUBLIC_KEY, SECRET_KEY

PLACE = Place(StoreDir("/nix/store"), Path("/scratch/nix"), Path("/scratch/socket"))
MINIMAL = '[[cache]]\nurl = "s3://example-nix-cache"\n'
FULL = f"""\
[queue]
directory = "/scratch/nix/gcroots/other"
state = "/scratch/state"

[nix]
store = "unix:///run/nix.socket"

[[cache]]
name = "main"
url = "s3://example-nix-cache?region=eu-west-1"
secret-key-files = ["/etc/nix/a.private", "/etc/nix/b.private"]
upstream-keys = ["{PUBLIC_KEY}"]

[[cache]]
name = "disk"
url = "file:///srv/cache"
sign = false
backlog-level = 1
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def load(folder: Path, text: str) -> Config:
    """Read *text* as a file."""
    file = folder / "config.toml"
    file.write_text(text)
    return config.load(file, PLACE)


def test_reads_each_key(tmp_path: Path) -> None:
    """Whatever can be said is understood."""
    assert load(tmp_path, FULL) == Config(
        directory=Path("/scratch/nix/gcroots/other"),
        state=Path("/scratch/state"),
        store="unix:///run/nix.socket",
        caches=(
            CacheConfig(
                name="main",
                url=StoreUrl.parse("s3://example-nix-cache?region=eu-west-1"),
                secret_key_files=(Path("/etc/nix/a.private"), Path("/etc/nix/b.private")),
                upstream_keys=(PublicKey.parse(PUBLIC_KEY),),
            ),
            CacheConfig(
                name="disk",
                url=StoreUrl.parse("file:///srv/cache"),
                sign=False,
                backlog_level=1,
            ),
        ),
    )


def test_a_url_is_enough(tmp_path: Path) -> None:
    """Every other key has a default; the queue lies below the gcroots of this Nix."""
    loaded = load(tmp_path, MINIMAL)

    assert loaded.directory == Path("/scratch/nix/gcroots/narpost")
    assert loaded.state == config.default(PLACE).state
    assert loaded.store == "auto"
    assert loaded.caches == (
        CacheConfig(name="main", url=StoreUrl.parse("s3://example-nix-cache")),
    )


def test_key_files_of_the_url_count_too(tmp_path: Path) -> None:
    """Nix's own parameters name keys as our setting does."""
    loaded = load(
        tmp_path,
        '[[cache]]\nsecret-key-files = ["/a"]\n'
        'url = "file:///srv/cache?secret-key=/b&secret-keys=/c,/d"\n',
    )

    assert loaded.caches[0].secret_key_files == tuple(map(Path, ("/a", "/b", "/c", "/d")))


def test_a_tilde_is_the_home_folder(tmp_path: Path, home: Path) -> None:
    """For the queue, the state and keys."""
    loaded = load(
        tmp_path,
        '[queue]\ndirectory = "~/queue"\nstate = "~/state"\n'
        '[[cache]]\nurl = "file:///srv/cache"\nsecret-key-files = ["~/key"]\n',
    )

    assert (loaded.directory, loaded.state) == (home / "queue", home / "state")
    assert loaded.caches[0].secret_key_files == (home / "key",)


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        (MINIMAL + "[qeue]\n", "unknown section 'qeue'", "did you mean queue?"),
        ("queue-dir = 1\n" + MINIMAL, "unknown section 'queue-dir'", "known are"),
        (MINIMAL + "[queue]\ndirectoy = '/a'\n", "unknown key 'directoy'", "mean directory?"),
        (MINIMAL + "[nix]\nstores = 'auto'\n", "unknown key 'stores'", "mean store?"),
        (
            MINIMAL + "secret-key-file = ['/a']\n",
            "unknown key 'secret-key-file' in a section [[cache]]",
            "mean secret-key-files?",
        ),
        ("", "no cache is configured", "[[cache]]"),
        ("[cache]\nurl = 's3://bucket'\n", "cache is not a list", "[[cache]]"),
        ("cache = ['s3://bucket']\n", "cache is not a list", "[[cache]]"),
        ("queue = '/a'\n" + MINIMAL, "queue is not a section", "[queue]"),
        ("[[cache]]\nname = 'main'\n", "cache 'main' has no url", "add url"),
        ("[[cache]]\nurl = 7\n", "url of cache 'main' is 7", "write url"),
        ("[[cache]]\nurl = 'http://nix'\n", "'http://nix' is not the URL", "s3://"),
        (
            "[[cache]]\nurl = 's3://bucket?secret-key-file=/a'\n",
            "unknown parameter 'secret-key-file'",
            "mean secret-key?",
        ),
        ("[[cache]]\nurl = 's3://bucket'\nname = 'a/b'\n", "'a/b' cannot name", "letters"),
        ("[[cache]]\nurl = 's3://bucket'\nname = ''\n", "'' cannot name", "letters"),
        (MINIMAL + MINIMAL, "two caches have the same name", "name of its own"),
        (MINIMAL + "sign = 'no'\n", "sign of cache 'main' is 'no'", "sign = false"),
        (MINIMAL + "backlog-level = '1'\n", "backlog-level of cache 'main'", "without quotes"),
        (MINIMAL + "bytes-per-second = 0\n", "bytes-per-second of cache", "from 1 on"),
        (MINIMAL + "[queue]\nwarn-depth = 1.5\n", "warn-depth of queue is 1.5", "whole number"),
        (MINIMAL + "[queue]\ncatch-up = 1\n", "catch-up of queue is 1", "catch-up = true"),
        (MINIMAL + "backlog-level = true\n", "backlog-level of cache 'main'", "without quotes"),
        (MINIMAL + "secret-key-files = '/a'\n", "secret-key-files of", '["…", "…"]'),
        (MINIMAL + "upstream-keys = [1]\n", "upstream-keys of", '["…", "…"]'),
        (MINIMAL + "upstream-keys = ['nix-1']\n", "not a public key", "<key name>"),
        (MINIMAL + "[queue]\nstate = 'state'\n", "state of queue is 'state'", "from the root"),
        (MINIMAL + "[queue]\nstate = 1\n", "state of queue is 1", "write state"),
        (MINIMAL + "[queue]\nstate = '~nobody-by-this-name/a'\n", "nobody-by-this-name", ""),
        (MINIMAL + "secret-key-files = ['~nobody-by-this-name/a']\n", "nobody-by-this-name", ""),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path: Path, text: str, error: str, hint: str) -> None:
    """What is wrong, where, and what would be right."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)

    assert caught.value.message.startswith(str(tmp_path / "config.toml"))
    assert error in caught.value.message
    assert hint in caught.value.hint


def test_a_file_that_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    """The parser's own words say where."""
    with pytest.raises(UsageError, match=r"is not TOML.*line 2"):
        load(tmp_path, "[queue]\nstate = nowhere\n")


def test_a_file_that_is_missing_is_told_with_the_way_to_write_it(tmp_path: Path) -> None:
    """The first thing a newcomer meets."""
    with pytest.raises(UsageError, match="no configuration at") as caught:
        config.load(tmp_path / "config.toml", PLACE)

    assert "narpost setup" in caught.value.hint


@pytest.mark.parametrize("make", [Path.mkdir, lambda file: file.write_bytes(b"\xff\xfe")])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A folder in its place, or bytes that are no text."""
    make(tmp_path / "config.toml")

    with pytest.raises(UsageError, match="cannot read the configuration"):
        config.load(tmp_path / "config.toml", PLACE)


def test_a_secret_key_among_the_public_ones_is_not_repeated(tmp_path: Path) -> None:
    """The mistake is told, and the secret is not."""
    with pytest.raises(UsageError, match="secret key") as caught:
        load(tmp_path, MINIMAL + f'upstream-keys = ["{SECRET_KEY}"]\n')

    assert SECRET_KEY.partition(":")[2] not in caught.value.message + caught.value.hint
