"""What is posted in the benchmarks, made of what any Debian machine has."""

import random
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from support.private_store import PrivateStore

SMALL_PATHS = 1000
SMALL_BYTES = (1_000, 20_000)
LARGE_BYTES = 500_000_000
MIXED_BYTES = 200_000_000
CLOSURE_PATHS = 500
ARGUMENTS_AT_ONCE = 200

_LIBRARIES = (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib/aarch64-linux-gnu"))
_MORE = (Path("/usr/lib"), Path("/usr/bin"))


@dataclass(frozen=True, slots=True)
class Sample:
    """Store paths by their full names."""

    name: str
    paths: tuple[str, ...]


class Samples:
    """Made once each, in one private store; *folder* is scratch."""

    def __init__(self, nix: PrivateStore, folder: Path) -> None:
        self._nix = nix
        self._folder = folder

    @cached_property
    def small(self) -> Sample:
        """1,000 paths of 1 to 20 KB of words."""
        return Sample("1,000 small paths", self.words(SMALL_PATHS, "small"))

    @cached_property
    def documents(self) -> Sample:
        """One path of many tiny files."""
        return Sample("/usr/share/doc", (self._nix.add(Path("/usr/share/doc")),))

    @cached_property
    def large(self) -> Sample:
        """One path of 500 MB: a tar of libraries and programs."""
        return Sample("one path of 500 MB", (self._tar("large.tar", LARGE_BYTES),))

    @cached_property
    def mixed(self) -> Sample:
        """200 MB: libraries, Python's files, and small paths."""
        python = self._nix.add(Path("/usr/lib/python3"))
        tar = self._tar("mixed.tar", MIXED_BYTES)
        return Sample("mixed, 200 MB", (tar, python, *self.small.paths[:100]))

    @cached_property
    def closure(self) -> Sample:
        """The top of a closure of 500 derivations, each referring to some before it."""
        return Sample("closure of 500", tuple(self._nix.build(_closure(CLOSURE_PATHS))))

    def words(self, count: int, name: str) -> tuple[str, ...]:
        """That many paths, each a file of words."""
        folder = self._folder / name
        folder.mkdir()
        chance = random.Random(name)
        vocabulary = [f"{chance.randrange(1 << 20):x}" for _ in range(5000)]
        files = []
        for number in range(count):
            file = folder / f"{name}-{number}"
            words = " ".join(chance.choices(vocabulary, k=SMALL_BYTES[1] // 5))
            file.write_text(words[: chance.randint(*SMALL_BYTES)])
            files.append(file)
        return self._add(files)

    def _add(self, files: Sequence[Path]) -> tuple[str, ...]:
        paths: list[str] = []
        for start in range(0, len(files), ARGUMENTS_AT_ONCE):
            some = map(str, files[start : start + ARGUMENTS_AT_ONCE])
            paths += self._nix.run("nix-store", "--add", *some).split()
        return tuple(paths)

    def _tar(self, name: str, size: int) -> str:
        file = self._folder / name
        with tarfile.open(file, "w") as tar:
            for each in _files((*_LIBRARIES, *_MORE)):
                if file.stat().st_size >= size:
                    break
                tar.add(each, recursive=False)
        with file.open("r+b") as end:
            end.truncate(min(size, file.stat().st_size))
        path = self._nix.add(file)
        file.unlink()
        return path


def _files(folders: Iterable[Path]) -> Iterable[Path]:
    for folder in folders:
        for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if file.is_file() and not file.is_symlink():
                yield file


def _closure(count: int) -> str:
    lines = []
    for number in range(count):
        needs = " ".join(
            f"d{each}" for each in {number // 2, number - 1, number - 7} if 0 <= each < number
        )
        lines.append(f'd{number} = make "d{number}" [ {needs} ];')
    bindings = "\n".join(lines)
    return f"""
      let
        make = name: needs: derivation {{
          inherit name needs;
          system = builtins.currentSystem;
          builder = "/bin/sh";
          args = [ "-c" "echo $needs > $out" ];
        }};
        {bindings}
      in d{count - 1}
    """
