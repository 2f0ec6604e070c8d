"""Who we are to an S3 server, by whatever of AWS's credential chain says so; and who may not."""

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from narpost.cache import aws
from narpost.cache.aws import Credentials
from narpost.cache.bucket import Bucket, Put
from narpost.errors import CacheRefused, CacheUnreachable, NarpostError, UsageError
from narpost.nix.store_url import StoreUrl
from narpost.wiring import open_bucket
from support import private_store as private_stores
from support.machine import Done, Machine
from support.private_store import NixFailed, PrivateStore, derivation
from support.programs import require
from support.radosgw import S3Server
from support.s3 import S3Bucket, credentials, write_credentials

TYPE = "application/x-nix-nar"
LARGE_BYTES = (21 << 20) + 7
# The object-store library lets go of credentials that are good for less.
LIBRARY_RESERVE = timedelta(minutes=5)

LIBRARY = derivation("library", "mkdir -p $out/lib; echo code > $out/lib/a.so")
PROGRAM = derivation("program", references=[LIBRARY])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A build machine that all tests here post from, each to a bucket of its own."""
    require(private_stores.missing_programs(), "a private Nix store")
    folder = tmp_path_factory.mktemp("machine")
    return Machine.set_up(PrivateStore.create(folder / "nix"), folder / "machine")


@pytest.fixture(scope="module")
def program(machine: Machine) -> str:
    """A path that was built, and that refers to another."""
    return build(machine, PROGRAM)


@dataclass(frozen=True, slots=True)
class Client:
    """Whoever pushes: the home folder with the profiles, and the environment."""

    home: Path
    environment: Mapping[str, str]

    @classmethod
    def create(
        cls,
        home: Path,
        profiles: Mapping[str, S3Server] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "Client":
        """A client in the new folder *home*."""
        home.mkdir()
        write_credentials(home, profiles or {})
        return cls(home, environment or {})

    def push(self, machine: Machine, url: StoreUrl, path: str) -> Done:
        """Post *path* by the real program, signed."""
        signing = {"secret-key": str(machine.secret_key)}
        target = replace(url, parameters={**url.parameters, **signing}).render()
        variables = {"HOME": str(self.home), "AWS_EC2_METADATA_DISABLED": "true"}
        return machine.narpost(
            "push", "--to", target, path, check=False, variables=variables | dict(self.environment)
        )


def build(machine: Machine, expression: str) -> str:
    """Build without the hook: what it queues could not be deleted."""
    without_hook = ("--option", "post-build-hook", "")
    command = ("nix-build", "--no-out-link", *without_hook, "--expr", expression)
    return machine.store.run(*command).strip()


def nobody(server: S3Server) -> S3Server:
    """A user whom the server does not know."""
    return replace(server, access_key="nobody-at-all")


def impostor(server: S3Server) -> S3Server:
    """The server's own user, with a secret that is not the user's."""
    return replace(server, secret_key="0123456789" * 4)


def unused_address() -> str:
    """An address on this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def put_and_get(bucket: Bucket) -> bytes | None:
    """Use the bucket as a cache does at first."""

    async def use() -> bytes | None:
        await bucket.probe()
        await bucket.put("key", b"body", TYPE)
        return await bucket.get("key")

    return asyncio.run(use())


def narinfo_names(bucket: S3Bucket) -> set[str]:
    """The hash parts of all paths that the bucket shows."""
    names = bucket.keys()
    return {key.removesuffix(".narinfo") for key in names if key.endswith(".narinfo")}


def hash_parts(machine: Machine, path: str) -> set[str]:
    """The hash parts of the closure of *path*."""
    closure = machine.store.run("nix-store", "--query", "--requisites", path).split()
    return {Path(each).name[:32] for each in closure}


def write_config(home: Path, text: str) -> None:
    """Write `~/.aws/config`."""
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text(text)


def contents(paths: list[str]) -> dict[str, bytes]:
    """What is in each file of these store paths."""
    files = [file for path in paths for file in (Path(path), *Path(path).rglob("*"))]
    return {str(file): file.read_bytes() for file in files if file.is_file()}


async def asked(provider: aws.Credentials) -> datetime | None:
    """Until when the credentials are good; the provider may be a coroutine or plain."""
    answer = provider()
    return (answer if isinstance(answer, dict) else await answer)["expires_at"]


def test_takes_the_default_profile(s3_bucket: S3Bucket, aws_home: Path) -> None:
    """The manual's way: the user's default AWS profile."""
    write_credentials(aws_home, {"other": nobody(s3_bucket.server), "default": s3_bucket.server})

    assert put_and_get(open_bucket(s3_bucket.url())) == b"body"


def test_takes_what_the_profile_says_now(s3_server: S3Server, aws_home: Path) -> None:
    """Keys that somebody put in the place of others are found without a new start."""
    write_credentials(aws_home, {"default": nobody(s3_server)})
    found = Credentials(None, {})
    before = found()["access_key_id"]
    write_credentials(aws_home, {"default": s3_server})

    after = found()["access_key_id"]

    assert before == nobody(s3_server).access_key
    assert after == s3_server.access_key


def test_takes_the_profile_of_the_url(s3_bucket: S3Bucket, aws_home: Path) -> None:
    """The URL's profile goes before the default one."""
    write_credentials(aws_home, {"default": nobody(s3_bucket.server), "ci": s3_bucket.server})

    assert put_and_get(open_bucket(s3_bucket.url({"profile": "ci"}))) == b"body"


def test_takes_the_environment(
    s3_bucket: S3Bucket, aws_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everywhere in AWS, the environment goes before the default profile."""
    write_credentials(aws_home, {"default": nobody(s3_bucket.server)})
    for name, value in credentials(s3_bucket.server).items():
        monkeypatch.setenv(name, value)

    assert put_and_get(open_bucket(s3_bucket.url())) == b"body"


def test_takes_the_profile_of_the_environment(
    s3_bucket: S3Bucket, aws_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_PROFILE chooses among the profiles."""
    write_credentials(aws_home, {"default": nobody(s3_bucket.server), "ci": s3_bucket.server})
    monkeypatch.setenv("AWS_PROFILE", "ci")

    assert put_and_get(open_bucket(s3_bucket.url())) == b"body"


def test_takes_what_a_program_of_the_profile_says(s3_bucket: S3Bucket, aws_home: Path) -> None:
    """A profile may name a program that knows the credentials, as SSO tools are called."""
    user = s3_bucket.server
    answer = {
        "Version": 1,
        "AccessKeyId": user.access_key,
        "SecretAccessKey": user.secret_key,
    }
    program = aws_home / "tell-credentials"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o700)
    write_config(aws_home, f"[default]\ncredential_process = {program}\n")

    assert put_and_get(open_bucket(s3_bucket.url())) == b"body"


def test_a_profile_that_is_missing_is_named(s3_bucket: S3Bucket, aws_home: Path) -> None:
    """A profile that nobody wrote is a mistake of the person who named it."""
    write_credentials(aws_home, {"default": s3_bucket.server})

    with pytest.raises(UsageError, match="'absent'") as caught:
        open_bucket(s3_bucket.url({"profile": "absent"}))

    assert "~/.aws/credentials" in caught.value.hint


def test_a_missing_profile_of_the_environment_is_named(
    s3_bucket: S3Bucket, aws_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_PROFILE can be wrong as the URL can."""
    write_credentials(aws_home, {"default": s3_bucket.server})
    monkeypatch.setenv("AWS_PROFILE", "absent")

    with pytest.raises(UsageError, match="absent"):
        open_bucket(s3_bucket.url())


def test_no_credentials_at_all_are_said_to_be_missing(s3_bucket: S3Bucket) -> None:
    """Where nothing of the chain says anything, the hint tells where to write it."""
    with pytest.raises(CacheRefused, match="no AWS credentials") as caught:
        open_bucket(s3_bucket.url())

    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.parametrize(
    "config",
    [
        "[default\naws_access_key_id = a\n",
        "[default]\naws_access_key_id = only-half\n",
        "[default]\ncredential_process = /bin/false\n",
        "[default]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = absent\n",
    ],
    ids=["no-such-syntax", "no-secret", "failing-program", "role-without-source"],
)
def test_credentials_that_cannot_be_read_are_our_error(
    s3_bucket: S3Bucket, aws_home: Path, config: str
) -> None:
    """What boto3 cannot make sense of is told in our way, and not by a trace."""
    write_config(aws_home, config)

    with pytest.raises(NarpostError) as caught:
        put_and_get(open_bucket(s3_bucket.url()))

    assert caught.value.hint


@pytest.mark.parametrize("user", [nobody, impostor])
def test_wrong_credentials_are_refused(
    s3_bucket: S3Bucket, aws_home: Path, user: Callable[[S3Server], S3Server]
) -> None:
    """A wrong key is no absence: the first look tells that the server does not accept it."""
    write_credentials(aws_home, {"default": user(s3_bucket.server)})

    with pytest.raises(CacheRefused, match="does not accept our credentials"):
        asyncio.run(open_bucket(s3_bucket.url()).probe())


def test_a_bucket_that_does_not_exist_is_named(s3_bucket: S3Bucket, aws_home: Path) -> None:
    """To write to it, or to look at it first, is refused; it is not a missing object."""
    write_credentials(aws_home, {"default": s3_bucket.server})
    bucket = open_bucket(replace(s3_bucket, name="no-such-bucket").url())

    for use in (bucket.probe(), bucket.put("key", b"body", TYPE)):
        with pytest.raises(CacheRefused, match="s3://no-such-bucket does not exist"):
            asyncio.run(use)


def test_a_server_that_is_down_has_no_absences(s3_bucket: S3Bucket, aws_home: Path) -> None:
    """Nothing that is asked of it is answered, so each question is an error."""
    write_credentials(aws_home, {"default": s3_bucket.server})
    bucket = open_bucket(s3_bucket.url({"endpoint": unused_address()}))

    for use in (
        bucket.probe(),
        bucket.size("key"),
        bucket.get("key"),
        bucket.put("key", b"body", TYPE),
        bucket.put_new("key", b"body", TYPE),
        bucket.names(pages=1),
    ):
        with pytest.raises(CacheUnreachable):
            asyncio.run(use)


def test_credentials_outlast_the_reserve_of_the_library(
    s3_bucket: S3Bucket, aws_home: Path
) -> None:
    """The library keeps what we give it, and does not ask again for each request."""
    write_credentials(aws_home, {"default": s3_bucket.server})
    begun = datetime.now(UTC)

    given = asyncio.run(asked(aws.Credentials(None, {})))

    assert given is not None
    assert given >= begun + LIBRARY_RESERVE + timedelta(minutes=1)


@pytest.fixture
def hiding(s3_bucket: S3Bucket, aws_home: Path) -> S3Bucket:
    """A bucket in the hands of a user who may get and put objects, and may not list them."""
    user = s3_bucket.server.as_new_user(f"{s3_bucket.name}-user")
    s3_bucket.allow(user.access_key, ["s3:GetObject", "s3:PutObject"])
    write_credentials(aws_home, {"default": user})
    return replace(s3_bucket, server=user)


def test_a_bucket_that_hides_what_is_missing_refuses_at_first(hiding: S3Bucket) -> None:
    """Without the probe, a 403 is a refusal, for whatever it may stand."""
    bucket = open_bucket(hiding.url())

    for use in (bucket.get("missing"), bucket.size("missing")):
        with pytest.raises(CacheRefused, match="access denied"):
            asyncio.run(use)


def test_the_probe_learns_that_a_bucket_hides_what_is_missing(hiding: S3Bucket) -> None:
    """After it, what is missing is missing, and all else is as everywhere."""
    bucket = open_bucket(hiding.url())

    stored = put_and_get(bucket)

    assert stored == b"body"
    assert asyncio.run(bucket.get("missing")) is None
    assert asyncio.run(bucket.size("missing")) is None
    assert asyncio.run(bucket.put_new("key", b"other", TYPE)) is Put.EXISTS
    assert asyncio.run(bucket.names(pages=1)) is None


def test_a_large_file_needs_no_more_rights(hiding: S3Bucket, tmp_path: Path) -> None:
    """To get and to put is enough for an upload in parts."""
    file = tmp_path / "large"
    file.write_bytes(bytes(LARGE_BYTES))
    bucket = open_bucket(hiding.url())

    asyncio.run(bucket.put("nar/large", file, TYPE))

    assert asyncio.run(bucket.size("nar/large")) == LARGE_BYTES


def test_credentials_that_end_are_no_absence_where_missing_is_hidden(hiding: S3Bucket) -> None:
    """That a 403 can mean "missing" does not make "who are you?" mean it."""
    bucket = open_bucket(hiding.url())
    put_and_get(bucket)

    hiding.server.remove_user()

    with pytest.raises(CacheRefused, match="does not accept our credentials"):
        asyncio.run(bucket.get("key"))


def test_who_may_not_write_is_told_what_is_needed(s3_bucket: S3Bucket, aws_home: Path) -> None:
    """A put that is refused names the right that it takes."""
    reader = s3_bucket.server.as_new_user(f"{s3_bucket.name}-reader")
    s3_bucket.allow(reader.access_key, ["s3:GetObject"])
    write_credentials(aws_home, {"default": reader})

    with pytest.raises(CacheRefused, match=r"cannot write key at .*: access denied") as caught:
        put_and_get(open_bucket(s3_bucket.url()))

    assert "s3:PutObject" in caught.value.hint


@dataclass(frozen=True, slots=True)
class Way:
    """A way to say who we are."""

    profiles: tuple[str, ...]
    in_environment: bool
    parameters: Mapping[str, str]


WAYS = {
    "default-profile": Way(("default",), in_environment=False, parameters={}),
    "named-profile": Way(("ci",), in_environment=False, parameters={"profile": "ci"}),
    "environment": Way((), in_environment=True, parameters={}),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_push_posts_by_each_way(
    machine: Machine, program: str, s3_bucket: S3Bucket, tmp_path: Path, way: Way
) -> None:
    """The real program posts a closure, whichever part of the chain knows the credentials."""
    user = s3_bucket.server
    client = Client.create(
        tmp_path / "home",
        dict.fromkeys(way.profiles, user),
        credentials(user) if way.in_environment else {},
    )

    done = client.push(machine, s3_bucket.url(way.parameters), program)

    assert done.returncode == 0, done.stderr
    assert narinfo_names(s3_bucket) == hash_parts(machine, program)
    assert user.secret_key not in done.stdout + done.stderr


def test_push_posts_to_a_bucket_that_hides_what_is_missing(
    machine: Machine, program: str, hiding: S3Bucket, s3_bucket: S3Bucket, aws_home: Path
) -> None:
    """Who may not list posts all the same, twice as well as once."""
    client = Client(aws_home, {})

    first = client.push(machine, hiding.url(), program)
    second = client.push(machine, hiding.url(), program)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert narinfo_names(s3_bucket) == hash_parts(machine, program)
    assert "nothing to post" in second.stdout


@dataclass(frozen=True, slots=True)
class Complaint:
    """How a push that cannot work ends, and what it says."""

    exit_code: int
    error: str
    hint: str


COMPLAINTS = {
    "missing-profile": Complaint(2, "there is no AWS profile 'absent'", "~/.aws/credentials"),
    "no-credentials": Complaint(3, "there are no AWS credentials", "AWS_ACCESS_KEY_ID"),
    "wrong-secret": Complaint(3, "does not accept our credentials", "~/.aws/credentials"),
    "wrong-access-key": Complaint(3, "does not accept our credentials", "~/.aws/credentials"),
    "no-bucket": Complaint(3, "s3://no-such-bucket does not exist", "create the bucket"),
    "server-down": Complaint(3, "cannot reach s3://", "network"),
}


@pytest.fixture(scope="module")
def failed_pushes(
    machine: Machine,
    program: str,
    s3_server: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Mapping[str, Done]:
    """What each push that cannot work came to: all at once, since each tries more than once."""
    folder = tmp_path_factory.mktemp("homes")
    bucket = S3Bucket.create(s3_server)
    known = Client.create(folder / "known", {"default": s3_server})
    pushes = {
        "missing-profile": (known, bucket.url({"profile": "absent"})),
        "no-credentials": (Client.create(folder / "empty"), bucket.url()),
        "wrong-secret": (
            Client.create(folder / "impostor", {"default": impostor(s3_server)}),
            bucket.url(),
        ),
        "wrong-access-key": (
            Client.create(folder / "nobody", {"default": nobody(s3_server)}),
            bucket.url(),
        ),
        "no-bucket": (known, replace(bucket, name="no-such-bucket").url()),
        "server-down": (known, bucket.url({"endpoint": unused_address()})),
    }
    with ThreadPoolExecutor(len(pushes)) as threads:
        ends = {
            name: threads.submit(client.push, machine, url, program)
            for name, (client, url) in pushes.items()
        }
    return {name: end.result() for name, end in ends.items()}


@pytest.mark.parametrize("case", COMPLAINTS)
def test_push_says_in_one_sentence_why_it_cannot(
    failed_pushes: Mapping[str, Done], case: str
) -> None:
    """The exit code, what failed and on what, and what to do."""
    done, complaint = failed_pushes[case], COMPLAINTS[case]

    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    hints = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]

    assert done.returncode == complaint.exit_code, done.stderr
    assert len(errors) == len(hints) == 1
    assert complaint.error in errors[0]
    assert complaint.hint in hints[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("case", COMPLAINTS)
def test_a_push_that_fails_tells_no_secret(
    failed_pushes: Mapping[str, Done], s3_server: S3Server, machine: Machine, case: str
) -> None:
    """Neither the server's secrets nor our signing key are in anything that is written."""
    secrets = {
        s3_server.secret_key,
        impostor(s3_server).secret_key,
        machine.secret_key.read_text().strip().partition(":")[2],
    }

    written = failed_pushes[case].stdout + failed_pushes[case].stderr

    assert {secret for secret in secrets if secret in written} == set()


def test_real_nix_substitutes_what_was_posted(
    machine: Machine, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """The whole circle: built, posted, deleted, and got back over HTTP with signatures checked."""
    path = build(machine, derivation("circle", references=[LIBRARY]))
    client = Client.create(tmp_path / "home", {"default": s3_bucket.server})
    posted = client.push(machine, s3_bucket.url(), path)
    s3_bucket.allow("*", ["s3:GetObject"])
    closure = machine.store.run("nix-store", "--query", "--requisites", path).split()
    before = contents(closure)
    machine.store.delete(path)

    public_key = machine.public_key.read_text().strip()
    reader = machine.store.client("circle", s3_bucket.web_url, [public_key])
    reader.run("nix-store", "--realise", "-j0", path)

    assert posted.returncode == 0, posted.stderr
    assert contents(closure) == before
    machine.store.run("nix-store", "--verify-path", *closure)


def test_real_nix_wants_the_key_that_signed(
    machine: Machine, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """The circle breaks for a client that trusts another key: it is our signature that counts."""
    path = build(machine, derivation("distrusted", references=[LIBRARY]))
    client = Client.create(tmp_path / "home", {"default": s3_bucket.server})
    client.push(machine, s3_bucket.url(), path)
    s3_bucket.allow("*", ["s3:GetObject"])
    machine.store.delete(path)
    other, other_public = tmp_path / "other", tmp_path / "other.public"
    machine.narpost("keygen", "other.example.org-1", other, other_public)

    reader = machine.store.client("distrusting", s3_bucket.web_url, [other_public.read_text()])

    with pytest.raises(NixFailed, match="not signed by any of the keys"):
        reader.run("nix-store", "--realise", "-j0", path)
