"""AWS's credential chain, as `nix copy` uses it: environment, profiles, roles, SSO, metadata."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from narpost.errors import CacheRefused, UsageError

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.credentials import Credentials as BotoCredentials
    from obstore.store import S3Credential

# boto3 renews what expires; now and then we ask it whether it has. The object-store library lets go
# of credentials five minutes before their end, so this leaves five minutes between two questions.
_TRUSTED_FOR = timedelta(minutes=10)


class Credentials:
    """The credentials of *profile*, or of the default chain; called anew when they may be stale."""

    def __init__(self, profile: str | None, environment: Mapping[str, str]) -> None:
        self._profile = profile
        # The chain begins with these two, unless a profile is named: no need to ask boto3 then.
        self._key = environment.get("AWS_ACCESS_KEY_ID")
        self._secret = environment.get("AWS_SECRET_ACCESS_KEY")
        self._token = environment.get("AWS_SESSION_TOKEN")
        self._region = environment.get("AWS_DEFAULT_REGION")

    @property
    def region(self) -> str | None:
        """The region that profile or environment name."""
        if self._region and self._profile is None:
            return self._region
        with _translated():
            region: str | None = self._session.region_name
            return region

    # Not a coroutine: the library sends the parts of a large object from threads of its own, where
    # no event loop runs that could await one.
    def __call__(self) -> "S3Credential":
        """Fetch them; this may read files, or ask a service of AWS."""
        return self._fetch()

    def check(self) -> None:
        """See that there are any; none is `CacheRefused`."""
        self._fetch()

    def _fetch(self) -> "S3Credential":
        if self._key and self._secret and self._profile is None:
            return {
                "access_key_id": self._key,
                "secret_access_key": self._secret,
                "token": self._token,
                "expires_at": None,
            }
        from botocore.credentials import RefreshableCredentials

        found = self._found
        with _translated():
            frozen = found.get_frozen_credentials()
        if not isinstance(found, RefreshableCredentials):
            # They lie in a file, where somebody may put others: read it anew the next time.
            for cached in ("_found", "_session"):
                self.__dict__.pop(cached, None)
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _TRUSTED_FOR,
        }

    @cached_property
    def _session(self) -> "Session":
        # boto3 takes a third of a second to import: only those who need it wait for it.
        from boto3.session import Session

        with _translated():
            return Session(profile_name=self._profile)

    @cached_property
    def _found(self) -> "BotoCredentials":
        with _translated():
            found = self._session.get_credentials()
        if found is None:
            raise CacheRefused(
                "there are no AWS credentials",
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials "
                "of the user that runs the daemon",
            )
        return found


class Uploads:
    """Uploads in parts to *bucket* that were begun and not finished; boto3 is loaded for them."""

    def __init__(
        self, credentials: Credentials, bucket: str, parameters: Mapping[str, str]
    ) -> None:
        self._credentials = credentials
        self._bucket = bucket
        self._parameters = parameters

    def end(self, keys: Iterable[str]) -> None:
        """Abort those of *keys*, whoever began them: they are sent anew."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = self._client()
            for key in keys:
                found = client.list_multipart_uploads(Bucket=self._bucket, Prefix=key)
                for upload in found.get("Uploads", ()):
                    client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
        except (BotoCoreError, ClientError) as error:
            raise CacheRefused(
                f"cannot end uploads that were cut off in s3://{self._bucket}: {error}",
                "the credentials need s3:ListBucketMultipartUploads on the bucket, and "
                "s3:AbortMultipartUpload on its objects",
            ) from error

    def _client(self) -> Any:  # boto3 has no types
        from boto3.session import Session

        secret = self._credentials()
        return Session().client(
            "s3",
            endpoint_url=endpoint(self._parameters),
            region_name=region(self._credentials, self._parameters),
            aws_access_key_id=secret["access_key_id"],
            aws_secret_access_key=secret["secret_access_key"],
            aws_session_token=secret.get("token"),
        )


@contextmanager
def _translated() -> Iterator[None]:
    """Turn boto3's errors into ours."""
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    try:
        yield
    except ProfileNotFound as error:
        raise UsageError(
            f"there is no AWS profile {error.kwargs['profile']!r}",
            "add it to ~/.aws/credentials of the user that runs the daemon",
        ) from error
    except BotoCoreError as error:
        raise CacheRefused(
            f"cannot get AWS credentials: {error}",
            "mend ~/.aws/config and ~/.aws/credentials of the user that runs the daemon",
        ) from error


def endpoint(parameters: Mapping[str, str]) -> str | None:
    """The server's address from a store URL's *endpoint* and *scheme*; none for AWS itself."""
    host = parameters.get("endpoint")
    if not host or "://" in host:
        return host or None
    return f"{parameters.get('scheme', 'https')}://{host}"


def region(credentials: Credentials, parameters: Mapping[str, str]) -> str:
    """The region of a store URL, of the profile or environment, or Nix's default."""
    return parameters.get("region") or credentials.region or "us-east-1"


def is_plain_http(parameters: Mapping[str, str]) -> bool:
    """Whether the server is spoken to without TLS."""
    return (endpoint(parameters) or "").startswith("http://")
