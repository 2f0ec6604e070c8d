"""Where this machine's Nix keeps its store, its state and its socket."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from narpost.nix.store_path import StoreDir


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one Nix, as its own environment variables give them."""

    store_dir: StoreDir
    state_dir: Path
    daemon_socket: Path
    remote: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read NIX_STORE_DIR, NIX_STATE_DIR and their kin; Nix's defaults where they are unset."""
        state_dir = Path(environment.get("NIX_STATE_DIR") or "/nix/var/nix")
        socket = environment.get("NIX_DAEMON_SOCKET_PATH")
        store_dir = environment.get("NIX_STORE_DIR") or environment.get("NIX_STORE") or "/nix/store"
        return cls(
            store_dir=StoreDir(store_dir.rstrip("/")),
            state_dir=state_dir,
            daemon_socket=Path(socket) if socket else state_dir / "daemon-socket" / "socket",
            remote=environment.get("NIX_REMOTE", ""),
        )

    @property
    def gcroots(self) -> Path:
        """The folder whose links keep paths from the garbage collector."""
        return self.state_dir / "gcroots"
