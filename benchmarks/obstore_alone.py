"""Puts the files of a folder into a bucket by the object-store library, and does nothing else.

obstore_alone.py FOLDER ENDPOINT BUCKET
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import obstore
from obstore.store import S3Store

AT_ONCE = 64


async def main(groups: Sequence[Mapping[str, bytes]], endpoint: str, bucket: str) -> None:
    """One group of objects after another, AT_ONCE objects at a time."""
    store = S3Store(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
    )

    async def lane(objects: Iterator[tuple[str, bytes]]) -> None:
        for key, body in objects:
            await obstore.put_async(store, key, body)

    for group in groups:
        objects = iter(group.items())
        await asyncio.gather(*(lane(objects) for _ in range(AT_ONCE)))


def read(folder: Path) -> list[dict[str, bytes]]:
    """NARs first and then narinfos, as a cache has to be written."""
    return [
        {str(file.relative_to(folder)): file.read_bytes() for file in folder.glob(pattern)}
        for pattern in ("nar/*", "*.narinfo")
    ]


if __name__ == "__main__":
    asyncio.run(main(read(Path(sys.argv[1])), *sys.argv[2:]))
    # A thread of the library that still runs would abort an interpreter that is taken down.
    os._exit(0)
