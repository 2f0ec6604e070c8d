"""What is wrong is told in one sentence and a hint, with the right exit code."""

from pathlib import Path

import pytest

from support.machine import Done, Machine
from support.private_store import derivation

USAGE, UNREACHABLE = 2, 3
UNKNOWN = "0000000000000000000000000000000a-unknown"
# Nobody listens on port 1 of the loopback; where there are no credentials, AWS is not asked.
AWAY = 'url = "s3://bucket?endpoint=127.0.0.1:1&scheme=http&region=us-east-1"\nsign = false\n'
NO_CREDENTIALS = {"AWS_EC2_METADATA_DISABLED": "true"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}


def complaint(done: Done, code: int) -> tuple[str, str]:
    """The error and the hint of a command that ended with *code*, each one line."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    (error,) = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    (hint,) = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    return error, hint


def cache(lines: str) -> str:
    """A section of a cache."""
    return f"[[cache]]\n{lines}\n"


def unsigned(url: str) -> str:
    """A section of a cache that wants no key."""
    return cache(f'url = "{url}"\nsign = false')


WRONG_CONFIGURATIONS = [
    pytest.param("[[cache", "is not TOML", "", id="not TOML"),
    pytest.param("", "no cache is configured", "[[cache]]", id="no cache"),
    pytest.param("[[cache]]", "has no url", "url", id="no url"),
    pytest.param("[cache]", "cache is not a list", "[[cache]]", id="one bracket"),
    pytest.param("cache = 5", "cache is not a list", "[[cache]]", id="a cache that is a number"),
    pytest.param("queue = 5", "queue is not a section", "[queue]", id="a section that is a number"),
    pytest.param("[queu]", "'queu'", "did you mean queue?", id="an unknown section"),
    pytest.param(
        "[queue]\ndirectry = '/'", "'directry'", "did you mean directory?", id="an unknown key"
    ),
    pytest.param(
        "[[cache]]\nsecret-key-file = 'x'",
        "'secret-key-file'",
        "did you mean secret-key-files?",
        id="an unknown key of a cache",
    ),
    pytest.param("[queue]\ndirectory = 5", "directory of queue is 5", '"', id="a number"),
    pytest.param("[queue]\nstate = 'here'", "'here'", "from the root", id="a relative folder"),
    pytest.param(cache("url = 5"), "url of cache 'main' is 5", '"', id="a url that is a number"),
    pytest.param(
        cache('url = "file:///c"\nsign = "no"'), "sign of", "false", id="a claim in quotes"
    ),
    pytest.param(
        cache('url = "file:///c"\nsecret-key-files = "k"'), "secret-key-files", "[", id="no list"
    ),
    pytest.param(
        cache('url = "file:///c"\nupstream-keys = [5]'),
        "upstream-keys",
        "[",
        id="a list of numbers",
    ),
    pytest.param(
        cache('url = "file:///c"\nupstream-keys = ["me"]'),
        "public key",
        "<key name>:<base 64>",
        id="a malformed upstream key",
    ),
    pytest.param(
        cache('url = "file:///c"\nname = "a/b"'), "'a/b'", "letters", id="a name with a slash"
    ),
    pytest.param(
        unsigned("file:///c") + unsigned("file:///d"), "same name", "name of its own", id="twins"
    ),
    pytest.param(
        cache('url = "file:///c"'), "has no secret key", "narpost keygen", id="no key at all"
    ),
    pytest.param(unsigned("nonsense"), "'nonsense'", "s3:// or file://", id="no url at all"),
    pytest.param(unsigned("ftp://host"), "'ftp://host'", "s3://", id="another scheme"),
    pytest.param(unsigned("file://c"), "'file://c'", "file:///", id="a relative cache"),
    pytest.param(unsigned("s3://"), "'s3://'", "s3://my-bucket", id="no bucket"),
    pytest.param(
        unsigned("file:///c?compresion=zstd"),
        "'compresion'",
        "did you mean compression?",
        id="an unknown parameter",
    ),
    pytest.param(
        unsigned("file:///c?secret-key-file=k"),
        "'secret-key-file'",
        "did you mean secret-key?",
        id="an unknown parameter for a key",
    ),
    pytest.param(unsigned("file:///c?compression=lzip"), "'lzip'", "zstd", id="no compression"),
    pytest.param(
        unsigned("file:///c?compression-level=99"), "'99'", "from 1 to 22", id="too high a level"
    ),
    pytest.param(unsigned("file:///c?priority=high"), "'high'", "40", id="no priority"),
    pytest.param(unsigned("file:///c?want-mass-query=so"), "'so'", "true", id="no truth"),
    pytest.param(
        '[nix]\nstore = "cloud"\n' + unsigned("file:///c"), "'cloud'", "auto", id="no store"
    ),
]


@pytest.mark.parametrize(("text", "in_error", "in_hint"), WRONG_CONFIGURATIONS)
def test_a_wrong_configuration_is_refused(
    machine: Machine, text: str, in_error: str, in_hint: str
) -> None:
    """The mistake is named with what to write instead, and nothing was begun."""
    machine.config.write_text(text.replace("file:///c", f"file://{machine.cache}"))

    done = machine.narpost("daemon", "--drain", check=False, variables=CREDENTIALS)

    error, hint = complaint(done, USAGE)
    assert in_error in error
    assert in_hint in hint
    assert not machine.cache.exists()
    assert not machine.state.exists()


@pytest.mark.parametrize("arguments", [["daemon"], ["push", "/x"], ["wait"], ["status"]])
@pytest.mark.parametrize("is_missing", [True, False])
def test_every_command_refuses_a_wrong_configuration(
    machine: Machine, arguments: list[str], is_missing: bool
) -> None:
    """Whichever command reads it first: a configuration that is missing, or of unknown keys."""
    machine.config.write_text("[nonsense]")
    if is_missing:
        machine.config.unlink()
    path = machine.add("note", "pushed")

    done = machine.narpost(*(path if each == "/x" else each for each in arguments), check=False)

    error, _hint = complaint(done, USAGE)
    assert str(machine.config) in error


@pytest.mark.parametrize("is_folder", [True, False], ids=["a folder", "not text"])
def test_a_configuration_that_cannot_be_read_is_refused(machine: Machine, is_folder: bool) -> None:
    """A folder in its place, and a file that is not text."""
    machine.config.unlink()
    if is_folder:
        machine.config.mkdir()
    else:
        machine.config.write_bytes(b"\xff\xfe")

    done = machine.narpost("daemon", "--drain", check=False)

    error, _hint = complaint(done, USAGE)
    assert error.startswith(f"cannot read the configuration {machine.config}")


@pytest.mark.parametrize(
    ("data", "in_error"),
    [
        pytest.param(b"", "not a secret key", id="empty"),
        pytest.param(b"open sesame\n", "not a secret key", id="text"),
        pytest.param(b"\xff\xfe\x00", "not text", id="bytes"),
        pytest.param(b":AAAA\n", "not a secret key", id="no name"),
        pytest.param(b"name:QUJD\n", "3 bytes", id="cut off"),
        pytest.param(b"name:" + b"A" * 86 + b"==\n", "do not belong together", id="two halves"),
    ],
)
def test_a_malformed_key_file_is_refused(machine: Machine, data: bytes, in_error: str) -> None:
    """The file is named, and none of what it holds is shown."""
    machine.secret_key.write_bytes(data)

    done = machine.narpost("daemon", "--drain", check=False)

    error, _hint = complaint(done, USAGE)
    assert str(machine.secret_key) in error
    assert in_error in error
    assert not machine.cache.exists()


@pytest.mark.parametrize("is_folder", [True, False], ids=["a folder", "missing"])
def test_a_key_file_that_cannot_be_read_is_refused(machine: Machine, is_folder: bool) -> None:
    """A key file that is missing, or a folder, is named with the way to make one."""
    machine.secret_key.unlink()
    if is_folder:
        machine.secret_key.mkdir()

    done = machine.narpost("daemon", "--drain", check=False)

    error, hint = complaint(done, USAGE)
    assert error.startswith(f"cannot read the secret key file {machine.secret_key}")
    assert "narpost keygen" in hint


def test_a_public_key_is_no_secret_key(machine: Machine) -> None:
    """The two files of a pair were swapped: that is said."""
    machine.secret_key.write_text(machine.public_key.read_text())

    done = machine.narpost("daemon", "--drain", check=False)

    error, _hint = complaint(done, USAGE)
    assert "a public key was given where a secret one belongs" in error


def test_a_secret_key_is_no_upstream_key_and_is_not_shown(machine: Machine) -> None:
    """A secret where a public key belongs is refused without a word of it."""
    secret = machine.secret_key.read_text().strip()
    machine.configure(f'{machine.cache_section()}upstream-keys = ["{secret}"]\n')

    done = machine.narpost("daemon", "--drain", check=False)

    error, _hint = complaint(done, USAGE)
    assert "a secret key was given where a public one belongs" in error
    assert secret.partition(":")[2][:16] not in done.stdout + done.stderr


def test_keys_and_no_signing_contradict_each_other(machine: Machine) -> None:
    """With both a key and `sign = false`, nobody can tell what was meant."""
    machine.configure(f"{machine.cache_section()}sign = false\n")

    error, _hint = complaint(machine.narpost("daemon", "--drain", check=False), USAGE)

    assert "secret keys and says sign = false" in error


def test_a_secret_key_that_others_can_read_is_warned_of(machine: Machine) -> None:
    """One line says how to mend it, and the work is done all the same."""
    machine.secret_key.chmod(0o644)
    path = machine.add("note", "posted")

    done = machine.narpost("push", path)

    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: ")
    assert warning.endswith(f"chmod 600 {machine.secret_key}")
    assert machine.posted() == {path}


def test_a_queue_outside_of_gcroots_is_refused(machine: Machine) -> None:
    """Nix would not keep what is queued there; the folder is not even made."""
    outside = machine.folder / "outside"
    machine.config.write_text(f'[queue]\ndirectory = "{outside}"\n{machine.cache_section()}')

    done = machine.narpost("daemon", "--drain", check=False)

    error, hint = complaint(done, USAGE)
    assert str(outside) in error
    assert str(machine.store.state_dir / "gcroots") in hint
    assert not outside.exists()


def test_a_queue_that_is_a_link_out_of_gcroots_is_refused(machine: Machine) -> None:
    """Nix does not follow a link to a folder, so what lay there would not be kept."""
    (machine.folder / "outside").mkdir()
    machine.queue.rmdir()
    machine.directory.rmdir()
    machine.directory.symlink_to(machine.folder / "outside")

    done = machine.narpost("daemon", "--drain", check=False)

    error, _hint = complaint(done, USAGE)
    assert str(machine.queue) in error
    assert list((machine.folder / "outside").iterdir()) == []


def test_a_file_in_the_place_of_the_queue_is_refused(machine: Machine) -> None:
    """It is named, and left as it is."""
    machine.queue.rmdir()
    machine.queue.write_text("a file")

    done = machine.narpost("daemon", "--drain", check=False)

    error, _hint = complaint(done, USAGE)
    assert str(machine.queue) in error
    assert machine.queue.read_text() == "a file"


@pytest.mark.parametrize("place", ["state", "packed", "main", "nowhere"])
def test_a_state_folder_that_cannot_be_written_is_refused(machine: Machine, place: str) -> None:
    """A file lies where state or one of its folders belongs, or no folder can be made there."""
    path = machine.add("note", "waits")
    state = Path("/proc/nowhere") if place == "nowhere" else machine.state
    machine.config.write_text(
        f'[queue]\ndirectory = "{machine.directory}"\nstate = "{state}"\n{machine.cache_section()}'
    )
    in_the_way = {"state": state, "packed": state / "packed", "main": state / "packed" / "main"}
    if place in in_the_way:
        in_the_way[place].parent.mkdir(parents=True, exist_ok=True)
        in_the_way[place].write_text("in the way")

    done = machine.narpost("push", path, check=False)

    error, hint = complaint(done, USAGE)
    assert str(state) in error
    assert "state" in hint
    assert machine.queued() == set()


def test_a_file_in_the_place_of_the_cache_is_refused(machine: Machine) -> None:
    """A cache is a folder."""
    machine.cache.write_text("a file")

    error, _hint = complaint(machine.narpost("daemon", "--drain", check=False), USAGE)

    assert str(machine.cache) in error


@pytest.mark.parametrize(
    ("text", "in_error"),
    [("StoreDir: /elsewhere/store\n", "/elsewhere/store"), ("nonsense\n", "nix-cache-info")],
)
def test_a_cache_for_another_store_is_refused(machine: Machine, text: str, in_error: str) -> None:
    """Paths of one store are of no use in another; the cache is left as it is."""
    path = machine.add("note", "waits")
    machine.cache.mkdir()
    (machine.cache / "nix-cache-info").write_text(text)

    done = machine.narpost("push", path, check=False)

    error, _hint = complaint(done, USAGE)
    assert in_error in error
    assert [file.name for file in machine.cache.iterdir()] == ["nix-cache-info"]
    assert (machine.cache / "nix-cache-info").read_text() == text


def test_a_running_daemon_ends_at_a_cache_for_another_store(machine: Machine) -> None:
    """What no time mends ends the daemon with 2, so that systemd shows it as failed."""
    machine.cache.mkdir()
    (machine.cache / "nix-cache-info").write_text("StoreDir: /elsewhere/store\n")

    error, _hint = complaint(machine.narpost("daemon", check=False), USAGE)

    assert "/elsewhere/store" in error


@pytest.mark.parametrize(
    ("argument", "in_error"),
    [
        ("STORE", "is not in the store"),
        ("STORE/", "is not the name of a store path"),
        ("STORE/short", "is not the name of a store path"),
        ("STORE/.links", "is not the name of a store path"),
        ("STORE/../../etc", "is not the name of a store path"),
        (f"STORE/{UNKNOWN.replace('0', 'e')}", "is not the name of a store path"),
        (f"STORE/{UNKNOWN}'\n", "is not the name of a store path"),
        ("/etc/passwd", "is not in the store"),
        ("./nothing", "there is no"),
        ("dangling", "there is no"),
        ("circle", "there is no"),
        ("", "is not in the store"),
        ("\udcff", "there is no"),
    ],
)
def test_what_is_no_store_path_is_refused(machine: Machine, argument: str, in_error: str) -> None:
    """Each kind of wrong PATH is named, and nothing is queued."""
    (machine.folder / "dangling").symlink_to("nowhere")
    (machine.folder / "circle").symlink_to("circle")
    path = argument.replace("STORE", str(machine.store.store_dir))

    done = machine.narpost("push", path, check=False)

    error, _hint = complaint(done, USAGE)
    assert in_error in error
    assert machine.queued() == set()


def test_a_wait_for_what_is_no_store_path_is_refused(machine: Machine) -> None:
    """As for push: exit code 2, an error and a hint."""
    done = machine.narpost("wait", "/etc/passwd", check=False)

    error, _hint = complaint(done, USAGE)
    assert "is not in the store" in error


def test_a_path_that_the_store_does_not_have_is_refused(machine: Machine) -> None:
    """A good name is not enough; with one such path, none of the others is queued."""
    there = machine.add("note", "there")
    missing = f"{machine.store.store_dir}/{UNKNOWN}"

    done = machine.narpost("push", there, missing, check=False)

    error, _hint = complaint(done, USAGE)
    assert missing in error
    assert machine.queued() == set()
    assert not machine.cache.exists()


@pytest.mark.parametrize(
    ("arguments", "in_error"),
    [
        (["--unsigned"], "--unsigned goes with --to"),
        (["--to", "nonsense"], "'nonsense'"),
        (["--to", "file:///c"], "no secret key"),
        (["--to", "file:///c?secret-key=/nowhere"], "/nowhere"),
        (["--to", "file:///c?secret-kay=/nowhere", "--unsigned"], "'secret-kay'"),
    ],
)
def test_a_wrong_url_of_a_push_is_refused(
    machine: Machine, arguments: list[str], in_error: str
) -> None:
    """What `--to` lacks is told, and neither cache nor queue of its own is left behind."""
    path = machine.add("note", "pushed")
    machine.config.unlink()
    arguments = [each.replace("file:///c", f"file://{machine.cache}") for each in arguments]
    before = set(machine.directory.iterdir())

    done = machine.narpost("push", *arguments, path, check=False)

    error, _hint = complaint(done, USAGE)
    assert in_error in error
    assert not machine.cache.exists()
    assert set(machine.directory.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["daemon", "--dran"],
        ["wait", "--timeout", "soon"],
        ["keygen", "only-a-name"],
    ],
)
def test_a_wrong_command_line_is_refused(machine: Machine, arguments: list[str]) -> None:
    """An unknown command or option, and a value that is none: exit code 2 and no traceback."""
    done = machine.narpost(*arguments, check=False)

    assert done.returncode == USAGE
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert sum(line.lower().startswith("error: ") for line in done.stderr.splitlines()) == 1


STORES_AWAY = [
    pytest.param("daemon", {}, "cannot reach the Nix daemon", id="no socket"),
    pytest.param("unix:///nowhere", {}, "cannot reach the Nix daemon", id="another socket"),
    pytest.param("auto", {"PATH": "/nowhere"}, "nix-daemon", id="no program"),
    pytest.param("auto", {"NIX_CONFIG": "nonsense"}, "nonsense", id="a broken nix.conf"),
]


@pytest.mark.parametrize(("store", "variables", "in_error"), STORES_AWAY)
def test_a_push_from_a_store_that_cannot_be_reached_is_told(
    machine: Machine, store: str, variables: dict[str, str], in_error: str
) -> None:
    """Exit code 3, and nothing is queued."""
    path = machine.add("note", "pushed")
    machine.configure(f'[nix]\nstore = "{store}"\n', machine.cache_section())

    done = machine.narpost("push", path, check=False, variables=variables)

    error, _hint = complaint(done, UNREACHABLE)
    assert in_error in error
    assert machine.queued() == set()


def test_a_drain_of_a_store_that_cannot_be_reached_is_told(machine: Machine) -> None:
    """Exit code 3, as for a cache; what is queued stays so."""
    machine.build(derivation("waits"))
    before = machine.queued()

    done = machine.narpost("daemon", "--drain", check=False, variables={"PATH": "/nowhere"})

    error, _hint = complaint(done, UNREACHABLE)
    assert "nix-daemon" in error
    assert machine.queued() == before


@pytest.mark.parametrize(
    ("variables", "in_error"),
    [(NO_CREDENTIALS, "no AWS credentials"), (CREDENTIALS, "s3://bucket")],
    ids=["no credentials", "nobody listens"],
)
def test_a_cache_that_cannot_be_reached_is_told(
    machine: Machine, variables: dict[str, str], in_error: str
) -> None:
    """Exit code 3, and what waits for that cache stays queued."""
    (path,) = machine.build(derivation("waits"))
    machine.configure(cache(AWAY))

    done = machine.narpost("daemon", "--drain", check=False, variables=variables)

    error, _hint = complaint(done, UNREACHABLE)
    assert in_error in error
    assert path in machine.queued()
