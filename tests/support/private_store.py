"""A real Nix for the tests: its store lies in a scratch folder, and so does all else it writes.

It is a single-user Nix, so neither root nor a running daemon is needed,
and what it builds needs no nixpkgs: the builder is the `/bin/sh` of this machine.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PROGRAMS = ("nix", "nix-build", "nix-daemon", "nix-store", "setpriv")
START_SECONDS = 10.0
POLL_SECONDS = 0.005

SETTINGS = {
    "sandbox": "false",
    "build-users-group": "",
    "experimental-features": "nix-command",
    "substituters": "",
    # A client asks the cache each time, whatever it heard before.
    "narinfo-cache-negative-ttl": "0",
    "narinfo-cache-positive-ttl": "0",
}


class NixFailed(Exception):
    """A command of Nix failed; the message shows what it wrote to stderr."""


def missing_programs() -> list[str]:
    """Name the programs a private store needs which are not on this machine."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@dataclass(frozen=True, slots=True)
class PrivateStore:
    """A store in *folder*, seen by a user whose nix.conf and caches lie in *home*.

    *mounted_at* is where its processes find the store, if the test has them find it elsewhere.
    """

    folder: Path
    home: Path
    mounted_at: Path | None = None

    @classmethod
    def create(cls, folder: Path, settings: Mapping[str, str] | None = None) -> Self:
        """Make a store in *folder*, new or empty; *settings* go to nix.conf, above `SETTINGS`."""
        # Nix refuses a store that is reached through a symlink.
        folder = folder.resolve()
        (folder / "store").mkdir(parents=True)
        return cls(folder, _home(folder / "home", settings or {}))

    def client(self, name: str, substituter_url: str, public_keys: Sequence[str]) -> Self:
        """The same store for another user, who substitutes from a cache and trusts these keys."""
        settings = {
            "substituters": substituter_url,
            "trusted-public-keys": " ".join(public_keys),
            "require-sigs": "true",
        }
        return type(self)(self.folder, _home(self.folder / "clients" / name, settings))

    @property
    def store_dir(self) -> Path:
        """Where the store paths lie, as /nix/store elsewhere."""
        return self.mounted_at or self.folder / "store"

    @property
    def state_dir(self) -> Path:
        """Where database and gcroots lie, as /nix/var/nix elsewhere."""
        return self.folder / "var" / "nix"

    @property
    def socket(self) -> Path:
        """Where `daemon` listens."""
        return self.state_dir / "daemon-socket" / "socket"

    def environment(self) -> dict[str, str]:
        """The variables that lead any program of Nix, or of ours, to this store alone."""
        ambient = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NIX_", "XDG_"))
        }
        return ambient | {
            "NIX_STORE_DIR": str(self.store_dir),
            "NIX_STATE_DIR": str(self.state_dir),
            "NIX_LOCALSTATE_DIR": str(self.folder / "var"),
            "NIX_LOG_DIR": str(self.folder / "var" / "log" / "nix"),
            "NIX_CONF_DIR": str(self.home),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
        }

    def run(self, *command: str, check: bool = True, stdin: str = "") -> str:
        """Run *command* to its end and return its stdout; NixFailed if it fails and *check* is."""
        done = subprocess.run(
            command,
            env=self.environment(),
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise NixFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def build(self, expression: str) -> list[str]:
        """Build a Nix expression, with no root on the result, and return the output paths."""
        return self.run("nix-build", "--no-out-link", "--expr", expression).split()

    def add(self, path: Path) -> str:
        """Copy a file or folder into the store and return its store path."""
        return self.run("nix-store", "--add", str(path)).strip()

    def collect_garbage(self) -> None:
        """Delete every path that no root keeps."""
        self.run("nix-store", "--gc")

    def delete(self, *paths: str) -> None:
        """Delete *paths*; NixFailed if something still needs one of them."""
        self.run("nix-store", "--delete", *paths)

    def is_valid(self, path: str) -> bool:
        """Tell whether the store has *path*."""
        return not self.run("nix-store", "--check-validity", "--print-invalid", path)

    @contextmanager
    def daemon(self) -> Iterator[Path]:
        """Run a nix-daemon for this store until the block ends, and yield its socket.

        If the tests are killed the kernel kills it too, by its parent death signal.
        """
        # Else the first two connections would both make the database, and one would fail.
        self.run("nix-store", "--init")
        log_path = self.folder / "nix-daemon.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "nix-daemon"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_until_it_listens(process, self.socket, log_path)
            yield self.socket
        finally:
            process.kill()
            process.wait()


def derivation(
    name: str,
    script: str = "echo $name $references > $out",
    references: Sequence[str] = (),
    attributes: str = "",
) -> str:
    """A Nix expression which builds *name* by a shell script that makes `$out`.

    *references* are expressions as well; the script finds their paths in `$references`, and Nix
    takes for references those that it writes down. *attributes* are more of them, in Nix's words.
    """
    inputs = " ".join(f"({reference})" for reference in references)
    return (
        f"derivation {{ name = {_quoted(name)}; system = builtins.currentSystem;"
        f' builder = "/bin/sh"; args = [ "-euc" {_quoted(script)} ];'
        f' PATH = "/bin:/usr/bin"; references = [ {inputs} ]; {attributes} }}'
    )


def tree(name: str = "tree") -> str:
    """An expression for a folder with each kind of file that a NAR knows, and names that are odd.

    It refers to itself; one symlink dangles, one leads out of the store.
    """
    return derivation(
        name,
        r"""
        mkdir -p $out/bin $out/share/empty-folder $out/share/deep/deeper/deepest
        printf '#!/bin/sh\necho %s\n' $out > $out/bin/run && chmod +x $out/bin/run
        : > $out/share/empty-file
        : > $out/bin/empty-executable && chmod +x $out/bin/empty-executable
        head -c 100001 /dev/zero > $out/share/deep/deeper/deepest/zeros
        ln -s run $out/bin/beside
        ln -s $out/share $out/absolute
        ln -s nowhere $out/dangling
        ln -s /etc/passwd $out/outside
        for odd in 'a space' '"quoted"' 'back\slash' '$HOME' '-dash' '.hidden' '*' 'über-日本' \
            'UPPER' 'upper' 'a' 'a.' 'a-b' "$(printf 'tab\tnew\nline')" "$(printf '%0255d' 0)"
        do
            printf '%s' "$odd" > "$out/share/$odd"
        done
        """,
    )


def _home(home: Path, settings: Mapping[str, str]) -> Path:
    """Make a folder with a nix.conf of *settings* above `SETTINGS`."""
    home.mkdir(parents=True)
    lines = [f"{name} = {value}\n" for name, value in (SETTINGS | dict(settings)).items()]
    (home / "nix.conf").write_text("".join(lines))
    return home


def _wait_until_it_listens(process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    """Wait until *process* takes connections on the socket *path*."""
    deadline = time.monotonic() + START_SECONDS
    while not _listens(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NixFailed(f"nix-daemon does not listen on {path}:\n{log.read_text()}")
        time.sleep(POLL_SECONDS)


def _listens(path: Path) -> bool:
    """Tell whether somebody takes connections on the socket *path*."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _quoted(text: str) -> str:
    """A string of Nix's language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'
