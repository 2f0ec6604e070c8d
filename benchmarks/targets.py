"""Where the benchmarks post to: folders, and buckets of a real S3 server, near or far."""

import asyncio
import json
import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import boto3

from support.radosgw import S3Server

_CHUNK = 1 << 18
_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Folders:
    """A new folder for each post."""

    folder: Path
    numbers: Iterator[int] = field(default_factory=count)

    def fresh(self) -> str:
        """The URL of a folder that is not there yet; both programs take it."""
        return f"file://{self.folder}/cache-{next(self.numbers)}"


@dataclass(frozen=True, slots=True)
class Buckets:
    """A new bucket for each post, that anybody may write to; *endpoint* may be a slow road."""

    server: S3Server
    endpoint: str
    numbers: Iterator[int] = field(default_factory=count)

    def fresh(self) -> str:
        """The name of a new bucket."""
        name = f"bench-{next(self.numbers)}-{self.endpoint.rpartition(':')[2]}"
        client = self._client()
        client.create_bucket(Bucket=name)
        client.put_bucket_policy(Bucket=name, Policy=_open_to_all(name))
        return name

    def ours(self, bucket: str) -> str:
        """The store URL for narpost."""
        return f"s3://{bucket}?endpoint={self.endpoint}&region=us-east-1"

    def theirs(self, bucket: str) -> str:
        """The store URL for a Nix that has no s3://."""
        return f"{self.endpoint}/{bucket}"

    def environment(self) -> dict[str, str]:
        """Credentials for narpost."""
        return {
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _client(self) -> Any:  # boto3 has no types
        return boto3.client(
            "s3",
            endpoint_url=self.server.endpoint,
            aws_access_key_id=self.server.access_key,
            aws_secret_access_key=self.server.secret_key,
            region_name="us-east-1",
        )


@contextmanager
def far(endpoint: str, seconds: float) -> Iterator[str]:
    """The endpoint of a road to *endpoint* on which an answer takes *seconds* longer."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    process = multiprocessing.Process(
        target=_serve_road, args=(listener, host, int(port), seconds), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        process.terminate()
        process.join()
        listener.close()


def _serve_road(listener: socket.socket, host: str, port: int, seconds: float) -> None:
    async def carry(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: float
    ) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(_CHUNK):
            loop.call_later(late, writer.write, data)
        loop.call_later(late, writer.close)

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(host, port)
        for each in (writer, server_writer):
            each.transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )
        await asyncio.gather(
            carry(reader, server_writer, 0.0), carry(server_reader, writer, seconds)
        )

    async def serve() -> None:
        server = await asyncio.start_server(meet, sock=listener, limit=_CHUNK)
        await server.serve_forever()

    asyncio.run(serve())


def _open_to_all(bucket: str) -> str:
    objects = f"arn:aws:s3:::{bucket}/*"
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": ["s3:GetObject", "s3:PutObject"],
                    "Resource": [objects],
                },
                {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": ["s3:ListBucket"],
                    "Resource": [f"arn:aws:s3:::{bucket}"],
                },
            ],
        }
    )
