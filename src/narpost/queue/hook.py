"""The post-build-hook as a file: `hook.sh` with this machine's absolute paths in it."""

import shlex
import shutil
from pathlib import Path

from narpost.queue.spool import FOLDER


def render_hook(directory: Path) -> str:
    """The script that queues in *directory*."""
    text = Path(__file__).with_name("hook.sh").read_text()
    values = {
        "@queue@": str(directory / FOLDER),
        "@ln@": shutil.which("ln") or "/bin/ln",
        "@nix_store@": shutil.which("nix-store") or "/nix/var/nix/profiles/default/bin/nix-store",
    }
    for mark, value in values.items():
        text = text.replace(mark, shlex.quote(value))
    return text
