"""The errors that we raise: each says what failed and on what, and what to do.

There are few on purpose. What a caller does next depends on the kind: `Passing` is tried
again, `Permanent` is set aside, and the rest is told to the person who asked.
"""


class NarpostError(Exception):
    """One sentence that says what failed and on what; *hint* says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(NarpostError):
    """What the person gave us cannot be right: an argument, a setting, a key file."""


class MalformedError(UsageError):
    """Text that does not follow its format, whether typed by a person or read from a file."""


class Passing(NarpostError):
    """A fault that may end by itself: a cache, a network, a daemon that is away."""


class CacheUnreachable(Passing):
    """The cache did not answer, or answered with a failure of its own."""


class CacheBusy(CacheUnreachable):
    """The cache asks us to go slower: 429, or 503 SlowDown."""


class CacheRefused(Passing):
    """The cache refuses us: no such bucket, wrong credentials, access denied.

    *is_about_one_object* where it may be only the object that we may not have.
    """

    is_about_one_object = False


class StoreUnreachable(Passing):
    """The Nix daemon cannot be reached, or a connection to it broke."""


class Permanent(NarpostError):
    """A fault of one path that no repetition mends."""


class PathVanished(Permanent):
    """The store no longer has this path."""


class PathCorrupt(Permanent):
    """The bytes on disk are not those that Nix registered."""


class ObjectRefused(Permanent):
    """The cache takes other paths, and not this one."""


class StoreRefused(Permanent):
    """The Nix daemon answered an operation on this path with an error."""
