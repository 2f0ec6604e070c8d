"""`narpost setup`: puts narpost on a machine, showing each change before it makes it."""

import os
import shutil
import sys
from pathlib import Path

import click

from narpost import wiring
from narpost.cli.changes import Change, apply, difference
from narpost.cli.keygen import write_pair
from narpost.cli.options import this_place
from narpost.config import DEFAULT_FILE, CacheConfig, Config, default, key_files
from narpost.errors import UsageError
from narpost.nix.signing import PublicKey, SecretKey
from narpost.nix.store_url import StoreUrl
from narpost.queue.hook import render_hook
from narpost.queue.spool import Spool
from narpost.store.place import Place

HOOK_FILE = Path("/etc/narpost/post-build-hook")
UNIT_FILE = Path("/etc/systemd/system/narpost.service")
_BEGIN = "# narpost: begin"
_END = "# narpost: end"

_CONFIG = """\
# narpost's configuration; every key has a default, and an unknown key is an error.

[queue]
directory = "{directory}"
state = "{state}"

[[cache]]
name = "main"
url = "{url}"
{signing}
upstream-keys = ["cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]
"""

_UNIT = """\
[Unit]
Description=narpost, which posts Nix builds to a binary cache
After=network-online.target nix-daemon.socket
Wants=network-online.target

[Service]
ExecStart={program} daemon --config {config}
Restart=always
RestartSec=5
TimeoutStopSec=5min

[Install]
WantedBy=multi-user.target
"""


@click.command()
@click.option("--to", "url", required=True, metavar="URL", help="The cache: s3://… or file:///…")
@click.option(
    "--secret-key",
    "key_file",
    type=click.Path(path_type=Path),
    help="Sign with this key; it is made when it is missing.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show the changes, and make none.")
@click.option(
    "--root", type=click.Path(path_type=Path), default=Path("/"), help="Where / is, for an image."
)
def command(url: str, key_file: Path | None, yes: bool, dry_run: bool, root: Path) -> int:
    """Put narpost on this machine: config, hook, service, and the line in nix.conf.

    Every change is shown before it is made; doing it twice is doing it once.

    \b
    Example:
      narpost setup --to 's3://my-cache?region=eu-west-1' --secret-key /etc/nix/key.private
    """
    place = this_place()
    config = _config(url, key_file, place)
    if (root / "etc/NIXOS").exists():
        click.echo(_nixos_text(config))
        return 0
    changes = [change for change in _changes(config, root) if not change.is_made]
    makes_key = key_file is not None and not (root / key_file.relative_to("/")).exists()
    for change in changes:
        click.echo(difference(change))
    if makes_key:
        click.echo(f"make a new key pair: {key_file} and {key_file}.pub")
    if dry_run:
        return 0
    if (changes or makes_key) and not (yes or _agrees()):
        return 1
    if key_file is not None:
        public = _key(key_file, root, makes_key)
    apply(changes)
    _prepare_queue(config, place, root)
    click.echo(_last_words(config, public if key_file else None))
    return 0


def _config(url: str, key_file: Path | None, place: Place) -> Config:
    target = StoreUrl.parse(url)
    if key_file is None and not key_files(target):
        raise UsageError(
            "without a key nothing could be signed",
            "add --secret-key /etc/nix/key.private; it is made when it is missing",
        )
    if key_file is not None and not key_file.is_absolute():
        raise UsageError(f"{key_file} is not an absolute path", "give the path from the root on")
    wiring.check_parameters(target, place)
    files = (key_file,) if key_file else ()
    given = default(place)
    cache = CacheConfig("main", target, files)
    return Config(given.directory, given.state, given.store, (cache,))


def _changes(config: Config, root: Path) -> list[Change]:
    nix_conf = _nix_conf()
    return [
        Change.of(root, DEFAULT_FILE, _config_text(config)),
        Change.of(root, HOOK_FILE, render_hook(config.directory), mode=0o755),
        Change.of(root, UNIT_FILE, _UNIT.format(program=_program(), config=DEFAULT_FILE)),
        Change.of(root, nix_conf, lambda old: with_hook(old, nix_conf)),
    ]


def with_hook(nix_conf: str, file: Path) -> str:
    """*nix_conf* with our block at its end; another's hook is never replaced."""
    before, found, rest = nix_conf.partition(_BEGIN)
    kept = before + rest.partition(_END)[2].lstrip("\n") if found else nix_conf
    for line in kept.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "post-build-hook" and value.strip():
            raise UsageError(
                f"{file} has a post-build-hook already: {value.strip()}",
                f"call {HOOK_FILE} at the end of that script, or take its line out, and set up "
                "again",
            )
    if kept and not kept.endswith("\n"):
        kept += "\n"
    return f"{kept}{_BEGIN}\npost-build-hook = {HOOK_FILE}\n{_END}\n"


def _nix_conf() -> Path:
    return Path(os.environ.get("NIX_CONF_DIR", "/etc/nix")) / "nix.conf"


def _program() -> str:
    beside = Path(sys.argv[0]).resolve()
    return str(beside) if beside.name == "narpost" else shutil.which("narpost") or "narpost"


def _config_text(config: Config) -> str:
    (cache,) = config.caches
    files = ", ".join(f'"{file}"' for file in cache.secret_key_files)
    return _CONFIG.format(
        directory=config.directory,
        state=config.state,
        url=cache.url.render(),
        signing=f"secret-key-files = [{files}]" if files else "# its key is named in the url",
    )


def _agrees() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to agree to these changes", "give --yes, or --dry-run")
    return click.confirm("make these changes?", err=True)


def _key(key_file: Path, root: Path, is_new: bool) -> PublicKey:
    file = root / key_file.relative_to("/")
    if is_new:
        key = SecretKey.generate(f"{os.uname().nodename}-1")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_pair(key, file, file.with_name(f"{file.name}.pub"))
        return key.public
    return wiring.load_key(file).public


def _prepare_queue(config: Config, place: Place, root: Path) -> None:
    if root != Path("/"):
        for folder in (config.directory / "queue", config.state):
            (root / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)
        return
    Spool(config.directory, place.store_dir).prepare(place.gcroots)
    config.state.mkdir(parents=True, exist_ok=True)


def _last_words(config: Config, public: PublicKey | None) -> str:
    (cache,) = config.caches
    return "\n".join(
        [
            "narpost is set up. Start it, and let Nix read its new settings:",
            "  systemctl daemon-reload",
            "  systemctl enable --now narpost",
            "  systemctl restart nix-daemon",
            "Clients add to their nix.conf:",
            f"  extra-substituters = {cache.url.public}",
            f"  extra-trusted-public-keys = {public.render()}" if public else "  (and your key)",
        ]
    )


def _nixos_text(config: Config) -> str:
    (cache,) = config.caches
    return "\n".join(
        [
            "This is NixOS, whose configuration is yours to write; nothing was changed. Add:",
            f"  nix.settings.post-build-hook = {HOOK_FILE};",
            "  systemd.services.narpost = {",
            '    wantedBy = [ "multi-user.target" ];',
            f'    serviceConfig.ExecStart = "{_program()} daemon";',
            "  };",
            f"with {DEFAULT_FILE}:",
            _config_text(config),
            f"and {HOOK_FILE}:",
            render_hook(config.directory),
            f"for the cache {cache.url}",
        ]
    )
