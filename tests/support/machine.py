"""A build machine for the tests: a private store with our hook in it, a queue, a key and a cache.

All programs are the real ones, and all that they write lies in a scratch folder.
"""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from narpost.nix.signing import PublicKey
from narpost.nix.store_path import StoreDir
from narpost.queue.hook import render_hook
from narpost.queue.ledger import FILE as LEDGER
from narpost.queue.lock import DaemonLock
from support.cache_promise import FolderCache
from support.private_store import PrivateStore, derivation

PROGRAM = Path(sys.executable).with_name("narpost")
KEY_NAME = "machine.example.org-1"
# No command of a test takes nearly as long; one that does has hung.
COMMAND_SECONDS = 30.0
WAIT_SECONDS = 20.0
POLL_SECONDS = 0.005

Done = subprocess.CompletedProcess[str]


class CommandFailed(Exception):
    """A command failed that should not; the message shows what it wrote."""


@dataclass(slots=True)
class RunningDaemon:
    """A `narpost daemon` and its log."""

    process: subprocess.Popen[bytes]
    log_file: Path
    is_killed: bool = field(default=False, init=False)

    def log(self) -> list[str]:
        """The lines that it has written until now."""
        return self.log_file.read_text().splitlines()

    def posted(self) -> list[str]:
        """The base names that it says it posted, once for each time that it says so."""
        return [line.split()[1] for line in self.log() if line.startswith("posted ")]

    def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(COMMAND_SECONDS)

    def kill(self) -> None:
        """Kill it on the spot."""
        self.is_killed = True
        self.process.kill()
        self.process.wait(COMMAND_SECONDS)


@dataclass(frozen=True, slots=True)
class Machine:
    """*store*, set up with narpost; what is not Nix's own lies in *folder*.

    *nix_remote* is `daemon` where Nix goes through its daemon, which the test then runs. *wrapper*
    is what runs each command, such as a program that bounds what it may use.
    """

    store: PrivateStore
    folder: Path
    nix_remote: str = ""
    wrapper: tuple[str, ...] = ()

    @classmethod
    def set_up(cls, store: PrivateStore, folder: Path) -> Self:
        """Put hook, key and configuration on a machine whose Nix has *store*."""
        folder.mkdir()
        machine = cls(store, folder.resolve())
        machine.queue.mkdir(parents=True)
        machine.hook.write_text(render_hook(machine.directory))
        machine.hook.chmod(0o755)
        with (store.home / "nix.conf").open("a") as settings:
            settings.write(f"post-build-hook = {machine.hook}\n")
            # Seconds that a build waits when another process builds what it needs.
            settings.write("build-poll-interval = 1\n")
        machine.narpost("keygen", KEY_NAME, machine.secret_key, machine.public_key)
        machine.configure(machine.cache_section())
        return machine

    @property
    def directory(self) -> Path:
        """The queue's directory, with the lock in it."""
        return self.store.state_dir / "gcroots" / "narpost"

    @property
    def queue(self) -> Path:
        """The folder of links."""
        return self.directory / "queue"

    @property
    def state(self) -> Path:
        """Ledger and packed files."""
        return self.folder / "state"

    @property
    def ledger(self) -> Path:
        """The SQLite file."""
        return self.state / LEDGER

    @property
    def hook(self) -> Path:
        """The script that nix.conf names."""
        return self.folder / "post-build-hook"

    @property
    def config(self) -> Path:
        """The configuration that our programs read."""
        return self.folder / "config.toml"

    @property
    def secret_key(self) -> Path:
        """The key that signs."""
        return self.folder / "key.private"

    @property
    def public_key(self) -> Path:
        """What clients trust."""
        return self.folder / "key.public"

    @property
    def cache(self) -> Path:
        """The folder that is the cache, once something was posted."""
        return self.folder / "cache"

    @property
    def store_dir(self) -> StoreDir:
        """The store's folder, as our own code names it."""
        return StoreDir(str(self.store.store_dir))

    def cache_section(self, query: str = "", *, name: str = "main", folder: str = "cache") -> str:
        """The configuration of a cache in *folder*, whose URL ends with *query*."""
        return (
            f'[[cache]]\nname = "{name}"\nurl = "file://{self.folder / folder}{query}"\n'
            f'secret-key-files = ["{self.secret_key}"]\n'
        )

    def configure(self, *sections: str) -> None:
        """Write a configuration with these caches, or whatever else its sections say."""
        queue = f'[queue]\ndirectory = "{self.directory}"\nstate = "{self.state}"\n'
        self.config.write_text("\n".join([queue, *sections]))

    def environment(self) -> dict[str, str]:
        """The variables that lead Nix and narpost to this machine alone."""
        ambient = {
            name: value
            for name, value in self.store.environment().items()
            if not name.startswith(("AWS_", "NARPOST_"))
        }
        return ambient | {"NARPOST_CONFIG": str(self.config), "NIX_REMOTE": self.nix_remote}

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        variables: Mapping[str, str] | None = None,
    ) -> Done:
        """Run *command* to its end; one that fails is `CommandFailed`, if *check* is."""
        done = subprocess.run(
            [*self.wrapper, *command],
            env=self.environment() | dict(variables or {}),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            said = f"{done.stdout}{done.stderr}"
            raise CommandFailed(f"{command} ended with {done.returncode}:\n{said}")
        return done

    def narpost(
        self,
        *arguments: str | Path,
        check: bool = True,
        variables: Mapping[str, str] | None = None,
    ) -> Done:
        """Run our program to its end."""
        return self.run(PROGRAM, *arguments, check=check, variables=variables)

    @contextmanager
    def starting(self, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run *command* beside the test; what is left of it when the block ends is killed.

        If the tests are killed the kernel kills it too, by its parent death signal.
        """
        log = self.folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.wrapper, *command],
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait(COMMAND_SECONDS)

    @contextmanager
    def daemon(self, variables: Mapping[str, str] | None = None) -> Iterator[RunningDaemon]:
        """Run `narpost daemon` until the block ends; unless it was killed, it ends well."""
        log = self.folder / f"daemon-{time.monotonic_ns()}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.wrapper, PROGRAM, "daemon"],
                env=self.environment() | dict(variables or {}),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        daemon = RunningDaemon(process, log)
        try:
            self.wait_until(lambda: self.is_held() or process.poll() is not None, "it works")
            yield daemon
            if not daemon.is_killed:
                code = process.poll() if process.poll() is not None else daemon.stop()
                assert code == 0, f"the daemon ended with {code}:\n{log.read_text()}"
        finally:
            process.kill()
            process.wait(COMMAND_SECONDS)

    def live_for(self, seconds: float) -> None:
        """Run a daemon that is killed after *seconds*, whatever it is at."""
        with self.starting(PROGRAM, "daemon") as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            assert process.returncode is None, f"the daemon ended with {process.returncode}"

    def is_held(self) -> bool:
        """Whether a daemon works on the queue."""
        return DaemonLock(self.directory).is_held()

    def build(self, *expressions: str) -> list[str]:
        """Build Nix expressions in one go, with no root on the results."""
        together = f"[ {' '.join(f'({expression})' for expression in expressions)} ]"
        return self.run("nix-build", "--no-out-link", "--expr", together).stdout.split()

    def build_at_once(self, *expressions: str) -> list[str]:
        """Build each expression by a process of its own, all at the same time."""
        # Nix makes its database at first use, which processes must not do at the same time.
        self.run("nix-store", "--init")
        with ExitStack() as stack:
            builds = [
                stack.enter_context(
                    subprocess.Popen(
                        [*self.wrapper, "nix-build", "--no-out-link", "--expr", expression],
                        env=self.environment(),
                        cwd=self.folder,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                )
                for expression in expressions
            ]
            ends = [build.communicate(timeout=COMMAND_SECONDS) for build in builds]
        for build, (_stdout, stderr) in zip(builds, ends, strict=True):
            if build.returncode != 0:
                raise CommandFailed(f"nix-build ended with {build.returncode}:\n{stderr}")
        return [path for stdout, _stderr in ends for path in stdout.split()]

    def add(self, name: str, text: str) -> str:
        """Put a file into the store, by no build and so past the hook."""
        file = self.folder / name
        file.write_text(text)
        return self.run("nix-store", "--add", file).stdout.strip()

    def collect_garbage(self) -> None:
        """Delete every path that no root keeps."""
        self.run("nix-store", "--gc")

    def lost(self, paths: Iterable[str]) -> set[str]:
        """Those of *paths* that the store does not have."""
        query = ("nix-store", "--check-validity", "--print-invalid", *paths)
        return set(self.run(*query, check=False).stdout.split())

    def fetch_back(self, paths: Sequence[str]) -> None:
        """Delete *paths* from the store, and let a client of the cache substitute them again.

        The client takes nothing that is not signed by our key, and can build nothing.
        """
        self.run("nix-store", "--delete", *paths)
        keys = [self.public_key.read_text().strip()]
        client = self.store.client(f"client-{time.monotonic_ns()}", f"file://{self.cache}", keys)
        self.run("nix-store", "--realise", "-j0", *paths, variables=client.environment())

    def queued(self) -> set[str]:
        """The store paths that wait, derivations among them."""
        return {str(self.store.store_dir / link.name) for link in self.queue.iterdir()}

    def posted(self, folder: str = "cache") -> set[str]:
        """The store paths that readers of the cache in *folder* can see."""
        return FolderCache(self.folder / folder, self.store_dir).paths()

    def postings(self) -> list[str]:
        """The base names that the ledger has as posted, once for each time."""
        with closing(sqlite3.connect(self.ledger)) as ledger:
            return [path for (path,) in ledger.execute("SELECT path FROM posting")]

    def packed_files(self) -> list[Path]:
        """Large paths that are being packed or sent."""
        return [file for file in self.state.glob("packed/**/*") if file.is_file()]

    def assert_cache_keeps_its_promise(self, folder: str = "cache") -> None:
        """Behind each narinfo of the cache in *folder* is all that it says."""
        key = PublicKey.parse(self.public_key.read_text())
        cache = FolderCache(self.folder / folder, self.store_dir)
        assert cache.broken_promises(key) == []

    def wait_until(
        self, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS
    ) -> None:
        """Wait until *holds*; if it never does, *what* should have been is told."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain until {what}")
            time.sleep(POLL_SECONDS)

    def wait_until_nothing_is_queued(self) -> None:
        """Wait until all that was queued is settled."""
        self.wait_until(lambda: not self.queued(), "nothing is queued")

    def flip_a_byte(self, path: str) -> None:
        """Change one byte of a store path that is a file, or change it back."""
        file = Path(path)
        file.chmod(0o644)
        data = bytearray(file.read_bytes())
        data[0] ^= 1
        file.write_bytes(data)
        file.chmod(0o444)


def large(name: str, file_bytes: int = 4_200_000) -> str:
    """An expression for a path that is packed to a file, and that does not compress."""
    return derivation(name, f"head -c {file_bytes} /dev/urandom > $out")


def base_names(paths: Iterable[str]) -> list[str]:
    """The names of store paths without the store's folder, in order."""
    return sorted(Path(path).name for path in paths)
