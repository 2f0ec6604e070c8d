"""`narpost keygen`: a key pair, as `nix-store --generate-binary-cache-key` makes it."""

import os
from pathlib import Path

import click

from narpost.errors import UsageError
from narpost.nix.signing import SecretKey


@click.command()
@click.argument("name")
@click.argument("secret_file", metavar="SECRET-FILE", type=click.Path(path_type=Path))
@click.argument("public_file", metavar="PUBLIC-FILE", type=click.Path(path_type=Path))
def command(name: str, secret_file: Path, public_file: Path) -> None:
    """Make a key pair that signs what is posted.

    NAME is what clients see, by custom a domain and a number. Files that are there already are
    never overwritten.

    \b
    Example:
      narpost keygen cache.example.org-1 /etc/nix/key.private /etc/nix/key.public
    """
    write_pair(SecretKey.generate(name), secret_file, public_file)


def write_pair(key: SecretKey, secret_file: Path, public_file: Path) -> None:
    """Write both files, or neither; the secret one for its owner only."""
    _write_new(secret_file, key.render(), 0o600)
    try:
        _write_new(public_file, key.public.render(), 0o644)
    except UsageError:
        secret_file.unlink()
        raise


def _write_new(file: Path, text: str, mode: int) -> None:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise UsageError(
            f"{file} is there already, and a key is never overwritten",
            "name another file, or move this one away",
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot write {file}: {error.strerror}", "name a file in a folder that is there"
        ) from error
    with os.fdopen(handle, "w") as sink:
        sink.write(text)
