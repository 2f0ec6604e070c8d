"""Catching up: what was built here and never queued, since the hook was not set or power failed."""

from narpost.nix.store_path import StorePath
from narpost.queue.ledger import Ledger
from narpost.queue.spool import Spool
from narpost.store.store import Store


def catch_up(store: Store, spool: Spool, ledger: Ledger) -> list[StorePath]:
    """Queue what this machine has built and was not known at the last look; returns that.

    Queued first and known after: a crash between the two queues it once more, and the caches
    have it then.
    """
    built = store.built_paths()
    missed = sorted(path for path in built - ledger.known() if not ledger.has_settled(path))
    spool.add(missed)
    ledger.know(built)
    ledger.save()
    return missed
