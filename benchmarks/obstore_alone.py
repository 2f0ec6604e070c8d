"""Puts the files of a folder into a bucket by the object-store library, and does nothing else.

obstore_alone.py FOLDER ENDPOINT BUCKET
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import obstore
from obstore.store import S3Store

AT_ONCE = 64


async def main(folder: Path, endpoint: str, bucket: str) -> None:
    """NARs first and then narinfos, AT_ONCE at a time."""
    store = S3Store(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
    )

    async def lane(files: Iterator[Path]) -> None:
        for file in files:
            await obstore.put_async(store, str(file.relative_to(folder)), file.read_bytes())

    for files in (iter([*folder.glob("nar/*")]), iter([*folder.glob("*.narinfo")])):
        await asyncio.gather(*(lane(files) for _ in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
