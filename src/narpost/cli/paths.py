"""Store paths from what a person types."""

from pathlib import Path

from narpost.errors import UsageError
from narpost.nix.store_path import StoreDir, StorePath


def resolve(text: str, store_dir: StoreDir) -> StorePath:
    """The store path that *text* names: in full, or as a link or file that leads there."""
    if text.startswith(f"{store_dir.folder}/"):
        return store_dir.containing(text)
    try:
        real = Path(text).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"there is no {text!r}", f"give a path below {store_dir.folder}, or a link to one"
        ) from error
    if not real.is_relative_to(store_dir.folder) or str(real) == store_dir.folder:
        raise UsageError(
            f"{text!r} is not in the store {store_dir.folder}",
            f"add it first, with: nix-store --add {text}",
        )
    return store_dir.containing(str(real))
