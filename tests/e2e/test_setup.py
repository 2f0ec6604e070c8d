"""`narpost setup`: puts narpost on a machine, here below a folder that stands for its root."""

import json
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.machine import PROGRAM, Done, Machine

URL = "s3://my-cache?region=eu-west-1&compression=zstd"
KEY = "/etc/nix/key.private"
HOOK = "/etc/narpost/post-build-hook"


@dataclass(frozen=True, slots=True)
class Image:
    """A root folder that setup writes below, and never beside."""

    machine: Machine
    root: Path

    def setup(self, *arguments: str, url: str = URL) -> Done:
        """Run `narpost setup` for this root, with Nix's usual folders."""
        command = ("env", "-i", f"HOME={self.machine.folder}", "PATH=/usr/bin:/bin", PROGRAM)
        root = ("setup", "--to", url, "--root", self.root)
        return self.machine.run(*command, *root, *arguments, check=False)

    def at(self, path: str) -> Path:
        """Where *path* lies."""
        return self.root / path.removeprefix("/")

    def files(self) -> dict[str, tuple[str, int]]:
        """All files, with their text and mode."""
        return {
            str(file): (file.read_text(), stat.S_IMODE(file.stat().st_mode))
            for file in self.root.rglob("*")
            if file.is_file()
        }


@pytest.fixture
def image(machine: Machine) -> Image:
    """An empty root."""
    root = machine.folder / "root"
    root.mkdir()
    return Image(machine, root)


def test_all_files_are_written(image: Image) -> None:
    """Configuration, hook, unit, key pair, the line in nix.conf, and the queue folder."""
    done = image.setup("--secret-key", KEY, "--yes")

    assert (done.returncode, done.stderr) == (0, "")
    config = tomllib.loads(image.at("/etc/narpost/config.toml").read_text())
    assert config["cache"][0]["secret-key-files"] == [KEY]
    assert config["cache"][0]["url"].startswith("s3://my-cache?")
    assert f"post-build-hook = {HOOK}\n" in image.at("/etc/nix/nix.conf").read_text()
    assert "daemon" in image.at("/etc/systemd/system/narpost.service").read_text()
    assert stat.S_IMODE(image.at(HOOK).stat().st_mode) == 0o755
    assert stat.S_IMODE(image.at(KEY).stat().st_mode) == 0o600
    assert image.at("/nix/var/nix/gcroots/narpost/queue").is_dir()


def test_clients_are_told_what_to_add(image: Image) -> None:
    """Substituter and public key stand in the last words, and no secret does."""
    done = image.setup("--secret-key", KEY, "--yes")

    assert "extra-substituters = s3://my-cache?region=eu-west-1\n" in done.stdout
    assert image.at(f"{KEY}.pub").read_text().strip() in done.stdout
    assert image.at(KEY).read_text().partition(":")[2].strip() not in done.stdout


def test_the_hook_queues_where_the_configuration_looks(image: Image) -> None:
    """The written hook is a script without a mistake, and names the configured folder."""
    image.setup("--secret-key", KEY, "--yes")

    image.machine.run("sh", "-n", image.at(HOOK))
    config = tomllib.loads(image.at("/etc/narpost/config.toml").read_text())

    assert f"queue={config['queue']['directory']}/queue\n" in image.at(HOOK).read_text()


def test_twice_is_once(image: Image) -> None:
    """A second run changes no file, makes no new key, and shows no change."""
    first = image.setup("--secret-key", KEY, "--yes")
    before = image.files()

    second = image.setup("--secret-key", KEY, "--yes")

    assert first.returncode == second.returncode == 0
    assert image.files() == before
    assert "@@" in first.stdout
    assert "@@" not in second.stdout


def test_a_dry_run_changes_nothing(image: Image) -> None:
    """The changes are shown as a diff, and none is made."""
    done = image.setup("--secret-key", KEY, "--dry-run")

    assert done.returncode == 0
    assert f"+post-build-hook = {HOOK}" in done.stdout
    assert list(image.root.rglob("*")) == []


def test_nobody_to_ask_changes_nothing(image: Image) -> None:
    """Without `--yes`, and with no terminal to ask at, it is refused."""
    done = image.setup("--secret-key", KEY)

    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert list(image.root.rglob("*")) == []


def test_a_key_that_is_there_is_kept(image: Image) -> None:
    """An existing key is used, and its public half told."""
    image.at(KEY).parent.mkdir(parents=True)
    image.at(KEY).write_text(image.machine.secret_key.read_text())

    done = image.setup("--secret-key", KEY, "--yes")

    assert image.at(KEY).read_text() == image.machine.secret_key.read_text()
    assert image.machine.public_key.read_text().strip() in done.stdout


@pytest.mark.parametrize("flag", ["--yes", "--dry-run"])
def test_the_hook_of_another_is_not_replaced(image: Image, flag: str) -> None:
    """It is named with a way out, exit code 2, and no file is touched."""
    conf = image.at("/etc/nix/nix.conf")
    conf.parent.mkdir(parents=True)
    conf.write_text("cores = 4\npost-build-hook = /etc/theirs.sh\n")
    before = image.files()

    done = image.setup("--secret-key", KEY, flag)

    error, hint = done.stderr.splitlines()
    assert done.returncode == 2
    assert error.startswith("error: ")
    assert "/etc/theirs.sh" in error
    assert hint.startswith("hint: ")
    assert image.files() == before


def test_what_nix_conf_said_before_stays(image: Image) -> None:
    """Our lines are added at the end, also where the last line has no end."""
    conf = image.at("/etc/nix/nix.conf")
    conf.parent.mkdir(parents=True)
    conf.write_text("# mine\ncores = 4")

    image.setup("--secret-key", KEY, "--yes")

    assert conf.read_text().startswith("# mine\ncores = 4\n")
    assert conf.read_text().count("post-build-hook = ") == 1


def test_nix_conf_keeps_its_mode(image: Image) -> None:
    """A nix.conf with access tokens, which others may not read, stays closed to them."""
    conf = image.at("/etc/nix/nix.conf")
    conf.parent.mkdir(parents=True)
    conf.write_text("access-tokens = github.com=secret\n")
    conf.chmod(0o600)

    image.setup("--secret-key", KEY, "--yes")

    assert "post-build-hook" in conf.read_text()
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600


def test_a_linked_nix_conf_stays_a_link(image: Image) -> None:
    """Where nix.conf is a link, the file that it leads to is changed."""
    conf, real = image.at("/etc/nix/nix.conf"), image.at("/srv/nix.conf")
    for file in (conf, real):
        file.parent.mkdir(parents=True)
    real.write_text("cores = 4\n")
    conf.symlink_to("../../srv/nix.conf")

    image.setup("--secret-key", KEY, "--yes")

    assert conf.is_symlink()
    assert "post-build-hook" in real.read_text()


def test_another_url_replaces_the_first(image: Image) -> None:
    """Set up again with another cache, the configuration has that one alone."""
    image.setup("--secret-key", KEY, "--yes")

    image.setup("--secret-key", KEY, "--yes", url="file:///srv/cache")

    config = tomllib.loads(image.at("/etc/narpost/config.toml").read_text())
    assert [cache["url"] for cache in config["cache"]] == ["file:///srv/cache"]
    assert image.at("/etc/nix/nix.conf").read_text().count("post-build-hook = ") == 1


def test_a_machine_of_nixos_is_not_touched(image: Image) -> None:
    """There the configuration is written in Nix: what to add is shown."""
    image.at("/etc").mkdir()
    image.at("/etc/NIXOS").touch()

    done = image.setup("--secret-key", KEY, "--yes")

    assert done.returncode == 0
    assert "nix.settings.post-build-hook" in done.stdout
    assert [file.name for file in image.root.rglob("*") if file.is_file()] == ["NIXOS"]


@pytest.mark.parametrize(
    ("url", "arguments", "in_error"),
    [
        ("nonsense", ["--secret-key", KEY], "'nonsense'"),
        ("s3://my-cache?secret-kay=/k", ["--secret-key", KEY], "'secret-kay'"),
        ("s3://my-cache", [], "without a key"),
        ("s3://my-cache", ["--secret-key", "here"], "not an absolute path"),
        ("file:///c?compression=lzip", ["--secret-key", KEY], "'lzip'"),
    ],
)
def test_what_is_wrong_is_refused(
    image: Image, url: str, arguments: list[str], in_error: str
) -> None:
    """Exit code 2, an error and a hint, and nothing was written."""
    done = image.setup(*arguments, "--yes", url=url)

    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert in_error in error
    assert hint.startswith("hint: ")
    assert list(image.root.rglob("*")) == []


def test_a_url_with_quotes_makes_no_other_configuration(image: Image) -> None:
    """What a URL may hold stays inside of its string."""
    image.setup("--secret-key", KEY, "--yes", url='file:///srv/"cache"\\')

    config = tomllib.loads(image.at("/etc/narpost/config.toml").read_text())
    assert len(config["cache"]) == 1
    assert '"' not in config["cache"][0]["url"]


def test_the_configuration_that_was_written_is_read(image: Image) -> None:
    """`narpost status` takes it as it is."""
    image.setup("--secret-key", KEY, "--yes", url="file:///srv/cache")
    config = image.at("/etc/narpost/config.toml")

    done = image.machine.narpost("status", "--json", "--config", config)

    (cache,) = json.loads(done.stdout)["caches"]
    assert (cache["name"], cache["url"]) == ("main", "file:///srv/cache")
