"""`nix-cache-info`: what a binary cache says of itself."""

from dataclasses import dataclass
from typing import Self

from narpost.errors import MalformedError
from narpost.nix.store_path import StoreDir


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
    def parse(cls, text: str) -> Self:
        """Read it; an unknown field is passed over, as Nix does."""
        fields = {
            name.strip(): value.strip()
            for name, colon, value in (line.partition(":") for line in text.splitlines())
            if colon
        }
        mass_query, priority = fields.get("WantMassQuery"), fields.get("Priority")
        try:
            return cls(
                store_dir=StoreDir(fields["StoreDir"]),
                wants_mass_query=None if mass_query is None else mass_query == "1",
                priority=None if priority is None else int(priority),
            )
        except (KeyError, ValueError) as error:
            raise MalformedError("nix-cache-info lacks a StoreDir or has a bad Priority") from error

    def render(self) -> str:
        """Write it; what is unset is left to the client's default, as Nix leaves it."""
        lines = [f"StoreDir: {self.store_dir.folder}"]
        if self.wants_mass_query is not None:
            lines.append(f"WantMassQuery: {int(self.wants_mass_query)}")
        if self.priority is not None:
            lines.append(f"Priority: {self.priority}")
        return "\n".join(lines) + "\n"
