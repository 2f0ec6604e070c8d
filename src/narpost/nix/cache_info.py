"""`nix-cache-info`: what a binary cache says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from narpost.errors import MalformedError
from narpost.nix.store_path import StoreDir

# Python reads no more than some thousands.
_DIGITS = 1000


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """The store that the cache is for, and how clients are to use it.

    *wants_mass_query* lets clients ask for many paths at once; of two caches that have a path,
    clients take the one with the lower *priority*.
    """

    store_dir: StoreDir
    wants_mass_query: bool | None = None
    priority: int | None = None

    @classmethod
    def from_parameters(cls, store_dir: StoreDir, parameters: Mapping[str, str]) -> Self:
        """What a new cache says, by *want-mass-query* and *priority* of its store URL."""
        mass_query, priority = parameters.get("want-mass-query"), parameters.get("priority")
        if mass_query not in {None, "true", "1", "false", "0"}:
            raise MalformedError(f"want-mass-query is {mass_query!r}", "write true or false")
        if priority is not None and not _is_number(priority):
            raise MalformedError(f"priority is {priority!r}", "write a number such as 40")
        return cls(
            store_dir=store_dir,
            wants_mass_query=None if mass_query is None else mass_query in {"true", "1"},
            priority=None if priority is None else int(priority),
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it; an unknown field is passed over, as Nix does."""
        fields = {
            name.strip(): value.strip()
            for name, colon, value in (line.partition(":") for line in text.split("\n"))
            if colon
        }
        store_dir, mass_query = fields.get("StoreDir", ""), fields.get("WantMassQuery")
        priority = fields.get("Priority", "0")
        if not store_dir.startswith("/"):
            raise MalformedError(f"nix-cache-info has {store_dir!r} as its StoreDir")
        if not _is_number(priority):
            raise MalformedError(f"nix-cache-info has {priority!r} as its Priority")
        return cls(
            store_dir=StoreDir(store_dir.rstrip("/ \t\r\v\f") or "/"),
            wants_mass_query=None if mass_query is None else mass_query == "1",
            priority=int(priority) if "Priority" in fields else None,
        )

    def render(self) -> str:
        """Write it; what is unset is left to the client's default, as Nix leaves it."""
        lines = [f"StoreDir: {self.store_dir.folder}"]
        if self.wants_mass_query is not None:
            lines.append(f"WantMassQuery: {int(self.wants_mass_query)}")
        if self.priority is not None:
            lines.append(f"Priority: {self.priority}")
        return "\n".join(lines) + "\n"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS
