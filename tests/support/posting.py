"""A build machine that posts to a real bucket through a proxy which does harm."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from narpost.nix.cache_names import narinfo_key
from narpost.nix.signing import PublicKey
from support.fault_proxy import Fault, FaultProxy, Stall
from support.machine import Machine, RunningDaemon
from support.s3 import BucketCache, S3Bucket, credentials


@dataclass(frozen=True, slots=True)
class Posting:
    """What *machine* posts to *bucket* goes by way of *proxy*; the tests look behind its back."""

    machine: Machine
    bucket: S3Bucket
    proxy: FaultProxy

    def section(self, parameters: Mapping[str, str] | None = None) -> str:
        """The configuration of the cache, with more *parameters* in its URL."""
        by_proxy = replace(self.bucket.server, endpoint=self.proxy.endpoint)
        url = replace(self.bucket, server=by_proxy).url(parameters).render()
        key = self.machine.secret_key
        return f'[[cache]]\nname = "bucket"\nurl = "{url}"\nsecret-key-files = ["{key}"]\n'

    @property
    def cache(self) -> BucketCache:
        """What readers see."""
        return BucketCache(self.bucket, self.machine.store_dir)

    @contextmanager
    def daemon(self) -> Iterator[RunningDaemon]:
        """Run a daemon that may write to the bucket."""
        variables = {"AWS_EC2_METADATA_DISABLED": "true"} | credentials(self.bucket.server)
        with self.machine.daemon(variables) as daemon:
            yield daemon

    def narinfo_keys(self, paths: Sequence[str]) -> list[str]:
        """The names of what makes *paths* visible."""
        return [narinfo_key(self.machine.store_dir.parse(path)) for path in paths]

    def wait_until_felt(self, fault: Fault, daemon: RunningDaemon, lines: int = 0) -> None:
        """Wait until *daemon* writes more than so many *lines*, because of *fault*.

        While a stall lasts, it has nothing to write.
        """

        def is_felt() -> bool:
            is_told = isinstance(fault.action, Stall) or len(daemon.log()) > lines
            return bool(fault.met) and is_told

        self.machine.wait_until(is_felt, "the fault is felt")

    def assert_nothing_is_lost_or_half_visible(self, paths: Sequence[str]) -> None:
        """Each of *paths* is queued or posted, and what is posted is whole."""
        # In this order, since a path is posted before its link goes.
        queued = self.machine.queued()
        assert set(paths) <= queued | self.cache.paths()
        self._assert_cache_keeps_its_promise()

    def assert_posted(self, paths: Sequence[str]) -> None:
        """All of *paths*, and nothing else, is to be seen in the bucket, and is whole."""
        assert self.cache.paths() == set(paths)
        self._assert_cache_keeps_its_promise()

    def _assert_cache_keeps_its_promise(self) -> None:
        key = PublicKey.parse(self.machine.public_key.read_text())
        assert self.cache.broken_promises(key) == []
