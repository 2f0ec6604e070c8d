"""The configuration: one TOML file to one frozen value, checked whole before anything starts."""

import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from narpost.errors import UsageError
from narpost.nix.signing import PublicKey
from narpost.nix.store_url import StoreUrl, nearest
from narpost.store.place import Place

WARN_DEPTH = 10_000
PACKED_BYTES = 16 << 30
DEFAULT_FILE = Path("/etc/narpost/config.toml")

_KEYS: Mapping[str, frozenset[str]] = {
    "queue": frozenset(
        "directory state catch-up drop-set-aside-after-days warn-depth packed-bytes".split()
    ),
    "nix": frozenset(("store",)),
    "cache": frozenset(
        "name url secret-key-files upstream-keys sign backlog-level"
        " bytes-per-second requests-per-second".split()
    ),
}
_CACHE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """One cache: its *url* is that of `nix copy --to`, with parameters.

    *backlog_level* is the compression level while much is waiting; what is sent may be bounded
    by *bytes_per_second* and *requests_per_second*.
    """

    name: str
    url: StoreUrl
    secret_key_files: tuple[Path, ...] = ()
    upstream_keys: tuple[PublicKey, ...] = ()
    sign: bool = True
    backlog_level: int | None = None
    bytes_per_second: int | None = None
    requests_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """*directory* lies below gcroots and holds the queue; *state* may be deleted at any time.

    *packed_bytes* bounds what one cache keeps packed on disk; a deeper queue than *warn_depth*
    is warned of.
    """

    directory: Path
    state: Path
    store: str = "auto"
    caches: tuple[CacheConfig, ...] = ()
    catch_up: bool = False
    drop_set_aside_after_days: int | None = None
    warn_depth: int = WARN_DEPTH
    packed_bytes: int = PACKED_BYTES


def load(file: Path, place: Place) -> Config:
    """Read *file*; every mistake in it is a `UsageError` that names it."""
    try:
        text = file.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no configuration at {file}",
            "write it with: narpost setup --to URL; or name another with --config FILE",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"cannot read the configuration {file}: {reason}",
            "write it anew with: narpost setup --to URL; or name another with --config FILE",
        ) from error
    # A number of thousands of digits is a plain ValueError, and lists within lists are the other.
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{file} is not TOML: {error}", "mend that line; strings stand in quotes"
        ) from error
    try:
        return parse(table, place)
    except UsageError as error:
        raise UsageError(f"{file}: {error.message}", error.hint) from error


def parse(table: Mapping[str, Any], place: Place) -> Config:
    """Check a whole configuration, as TOML gives it."""
    _check_names(table, _KEYS, "section")
    queue = _section(table, "queue")
    nix = _section(table, "nix")
    given = default(place)
    config = Config(
        directory=_folder(queue, "directory", given.directory, "queue"),
        state=_folder(queue, "state", given.state, "queue"),
        store=_text(nix, "store", given.store, "nix"),
        caches=tuple(map(_cache, _caches(table))),
        catch_up=_claim(queue, "catch-up", given.catch_up, "queue"),
        drop_set_aside_after_days=_number(queue, "drop-set-aside-after-days", "queue"),
        warn_depth=_number(queue, "warn-depth", "queue") or given.warn_depth,
        packed_bytes=_number(queue, "packed-bytes", "queue") or given.packed_bytes,
    )
    names = [cache.name for cache in config.caches]
    if not names:
        raise UsageError("no cache is configured", 'add a section [[cache]] with a url = "…"')
    if len(set(names)) < len(names):
        raise UsageError("two caches have the same name", "give each [[cache]] a name of its own")
    return config


def default(place: Place) -> Config:
    """What holds where nothing is configured."""
    is_root = os.geteuid() == 0
    state = Path("/var/lib/narpost") if is_root else Path.home() / ".local/state/narpost"
    return Config(directory=place.gcroots / "narpost", state=state)


def _cache(table: Mapping[str, Any]) -> CacheConfig:
    _check_names(table, _KEYS["cache"], "key", "in a section [[cache]]")
    name = _text(table, "name", "main", "cache")
    where = f"cache {name!r}"
    if not _CACHE_NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a cache", "use letters, digits, and . _ - only")
    if "url" not in table:
        raise UsageError(f"the {where} has no url", 'add url = "s3://…" or "file:///…"')
    url = StoreUrl.parse(_text(table, "url", "", where))
    files = tuple(map(_expanded, _texts(table, "secret-key-files", where)))
    return CacheConfig(
        name=name,
        url=url,
        secret_key_files=files + key_files(url),
        upstream_keys=tuple(map(PublicKey.parse, _texts(table, "upstream-keys", where))),
        sign=_claim(table, "sign", True, where),
        backlog_level=_number(table, "backlog-level", where, lowest=0),
        bytes_per_second=_number(table, "bytes-per-second", where),
        requests_per_second=_number(table, "requests-per-second", where),
    )


def key_files(url: StoreUrl) -> tuple[Path, ...]:
    """The key files that a store URL itself names, as for `nix copy`."""
    one, many = url.parameters.get("secret-key"), url.parameters.get("secret-keys", "")
    names = ([one] if one else []) + [each for each in many.split(",") if each]
    return tuple(map(Path, map(_checked, names)))


def _caches(table: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    caches = table.get("cache", [])
    if not isinstance(caches, list) or not all(isinstance(each, dict) for each in caches):
        raise UsageError("cache is not a list of sections", "begin each with [[cache]]")
    return caches


def _section(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise UsageError(f"{name} is not a section", f"begin it with [{name}]")
    _check_names(section, _KEYS[name], "key", f"in the section [{name}]")
    return section


def _check_names(
    table: Mapping[str, Any], known: Collection[str], what: str, where: str = ""
) -> None:
    for name in table:
        if name not in known:
            raise UsageError(f"unknown {what} {name!r} {where}".rstrip(), nearest(name, known))


def _folder(table: Mapping[str, Any], key: str, given: Path, where: str) -> Path:
    folder = _expanded(_text(table, key, str(given), where))
    if not folder.is_absolute():
        raise UsageError(f"{key} of {where} is {str(folder)!r}", "give the path from the root on")
    return folder


def _checked(name: str) -> str:
    if "\0" in name:
        raise UsageError(f"{name!r} cannot name a file", "take out the byte 0")
    return name


def _expanded(text: str) -> Path:
    try:
        return Path(_checked(text)).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{text!r} begins with a user that is not there", "give the path from the root on"
        ) from error


def _text(table: Mapping[str, Any], key: str, given: str, where: str) -> str:
    text = table.get(key, given)
    if not isinstance(text, str):
        raise UsageError(f"{key} of {where} is {text!r}", f'write {key} = "…"')
    return text


def _claim(table: Mapping[str, Any], key: str, given: bool, where: str) -> bool:
    claim = table.get(key, given)
    if not isinstance(claim, bool):
        raise UsageError(f"{key} of {where} is {claim!r}", f"write {key} = true or {key} = false")
    return claim


def _number(table: Mapping[str, Any], key: str, where: str, *, lowest: int = 1) -> int | None:
    number = table.get(key)
    if number is None:
        return None
    if not isinstance(number, int) or isinstance(number, bool) or not lowest <= number < 1 << 63:
        raise UsageError(
            f"{key} of {where} is {number!r}",
            f"write {key} = 1000, a whole number from {lowest} on, without quotes",
        )
    return number


def _texts(table: Mapping[str, Any], key: str, where: str) -> Sequence[str]:
    texts = table.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise UsageError(f"{key} of {where} is {texts!r}", f'write {key} = ["…", "…"]')
    return texts
