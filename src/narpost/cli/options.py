"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from narpost import config
from narpost.config import Config
from narpost.store.place import Place


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--config FILE`, or NARPOST_CONFIG."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        envvar="NARPOST_CONFIG",
        default=config.DEFAULT_FILE,
        show_default=True,
        help="The configuration; NARPOST_CONFIG names it too.",
    )(function)


def this_place() -> Place:
    """Where this machine's Nix is, by its environment."""
    return Place.from_environment(os.environ)


def load_config(file: Path) -> Config:
    """The configuration in *file*."""
    return config.load(file, this_place())
