"""Buckets on the tests' S3 server, and what tells a client who it is."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest
from boto3.session import Session
from botocore.config import Config

from narpost.nix.store_path import StoreDir
from narpost.nix.store_url import StoreUrl
from support.cache_promise import PublishedCache
from support.radosgw import S3Server

REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """The bucket *name* of *server*, whose user owns it."""

    server: S3Server
    name: str

    @classmethod
    def create(cls, server: S3Server) -> Self:
        """Make a bucket, with a name that nobody else has."""
        bucket = cls(server, f"narpost-{uuid.uuid4().hex}")
        with bucket._client() as client:
            client.create_bucket(Bucket=bucket.name)
        return bucket

    def url(self, parameters: Mapping[str, str] | None = None) -> StoreUrl:
        """The bucket as a cache, with more *parameters*."""
        host = self.server.endpoint.removeprefix("http://")
        where = {"endpoint": host, "scheme": "http", "region": REGION}
        return StoreUrl("s3", self.name, where | dict(parameters or {}))

    @property
    def web_url(self) -> str:
        """Where anonymous clients read the bucket, if it lets them."""
        return f"{self.server.endpoint}/{self.name}"

    def keys(self) -> set[str]:
        """The names of all objects."""
        with self._client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
            return {each["Key"] for page in pages for each in page.get("Contents", [])}

    def read(self, key: str) -> bytes:
        """The bytes of an object that is there."""
        with self._client() as client:
            return bytes(client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def begun_uploads(self) -> list[str]:
        """The keys of uploads in parts that were neither completed nor aborted."""
        with self._client() as client:
            found = client.list_multipart_uploads(Bucket=self.name)
            return [upload["Key"] for upload in found.get("Uploads", [])]

    def content_type(self, key: str) -> str:
        """What the server says of an object's type."""
        with self._client() as client:
            return str(client.head_object(Bucket=self.name, Key=key)["ContentType"])

    def allow(self, user: str, actions: Sequence[str]) -> None:
        """Let *user*, or `*` for anybody, take *actions* on the objects, and no others."""
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": ["*" if user == "*" else f"arn:aws:iam:::user/{user}"]},
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{self.name}/*"],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        with self._client() as client:
            client.put_bucket_policy(Bucket=self.name, Policy=policy)

    # boto3 ships no types.
    @contextmanager
    def _client(self) -> Iterator[Any]:
        with pytest.MonkeyPatch.context() as patch:
            hide_credentials(patch, Path(os.devnull))
            session = _session(self.server.access_key, self.server.secret_key)
            config = Config(s3={"addressing_style": "path"})
            client = session.client("s3", endpoint_url=self.server.endpoint, config=config)
            with closing(client):
                yield client


@dataclass(frozen=True, slots=True)
class BucketCache(PublishedCache):
    """The cache in *bucket*."""

    bucket: S3Bucket
    store_dir: StoreDir

    def keys(self) -> set[str]:
        """The names of all objects."""
        return self.bucket.keys()

    def read(self, key: str) -> bytes:
        """The object *key*, which is there."""
        return self.bucket.read(key)


@cache
def _session(access_key: str, secret_key: str) -> Session:
    """Kept, since a session's first client takes twenty times as long as the others."""
    return Session(access_key, secret_key, region_name=REGION)


def hide_credentials(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Let boto3 find nothing but what is in *home*, and never ask AWS's metadata service."""
    for name in os.environ:
        if name.startswith("AWS_"):
            patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def credentials(user: S3Server) -> dict[str, str]:
    """The environment variables of *user*."""
    return {"AWS_ACCESS_KEY_ID": user.access_key, "AWS_SECRET_ACCESS_KEY": user.secret_key}


def write_credentials(home: Path, profiles: Mapping[str, S3Server]) -> None:
    """Write `~/.aws/credentials` with the keys of a user for each profile."""
    folder = home / ".aws"
    folder.mkdir(exist_ok=True)
    (folder / "credentials").write_text(
        "".join(
            f"[{profile}]\n"
            f"aws_access_key_id = {user.access_key}\n"
            f"aws_secret_access_key = {user.secret_key}\n"
            for profile, user in profiles.items()
        )
    )
