"""`narpost push`: queues paths, and sees them posted."""

from pathlib import Path

import click

from narpost.cli.options import config_option
from narpost.errors import UsageError


@click.command()
@config_option
@click.option(
    "--to", "url", metavar="URL", help="Post to this cache, and not to the configured ones."
)
@click.option("--unsigned", is_flag=True, help="With --to: post without a signature of ours.")
@click.argument("paths", nargs=-1, metavar="PATH...")
def command(config_file: Path, url: str | None, unsigned: bool, paths: tuple[str, ...]) -> int:
    """Queue PATHs with their closures, and wait until they are posted.

    A PATH is a store path, or a link that leads to one; a derivation stands for its outputs. The
    daemon posts them when one works on this queue, else this command does.

    \b
    Examples:
      narpost push ./result
      narpost push --to 's3://my-cache?secret-key=/etc/nix/key.private' ./result
    """
    if unsigned and not url:
        raise UsageError("--unsigned goes with --to", "or say sign = false in the configuration")
    if not paths:
        return 0
    # Imported only now, since it brings all that posting needs.
    from narpost.cli.posting import post

    return post(paths, config_file, url, unsigned)
