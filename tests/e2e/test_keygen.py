"""`narpost keygen`: a pair that Nix takes, and that nobody overwrites."""

import stat
from pathlib import Path

import pytest

from support.machine import Done, Machine


def keygen(machine: Machine, *arguments: str | Path) -> Done:
    """Run it without asking that it ends well."""
    return machine.narpost("keygen", *arguments, check=False)


def test_a_pair_is_written(machine: Machine) -> None:
    """Both files bear the name, and only the owner may read the secret one."""
    secret, public = machine.folder / "new.private", machine.folder / "new.public"

    done = keygen(machine, "new.example.org-1", secret, public)

    assert (done.returncode, done.stderr) == (0, "")
    assert secret.read_text().startswith("new.example.org-1:")
    assert public.read_text().startswith("new.example.org-1:")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text().partition(":")[2] not in done.stdout


def test_nix_takes_the_pair(machine: Machine) -> None:
    """Nix signs with the secret key, and finds the public one in it."""
    with machine.secret_key.open() as secret:
        convert = ("nix", "key", "convert-secret-to-public")
        public = machine.store.run(*convert, stdin=secret.read())
    path = machine.add("note", "signed")

    machine.run("nix", "store", "sign", "--key-file", machine.secret_key, path)
    verified = machine.run(
        "nix", "store", "verify", "--sigs-needed", "1", "--trusted-public-keys", public, path
    )

    assert public.strip() == machine.public_key.read_text().strip()
    assert verified.returncode == 0


@pytest.mark.parametrize("there", ["secret", "public", "both", "a dangling link"])
def test_a_key_is_never_overwritten(machine: Machine, there: str) -> None:
    """Whichever file is there already stays as it is, and no half of a pair is left."""
    secret, public = machine.folder / "new.private", machine.folder / "new.public"
    if there in {"secret", "both"}:
        secret.write_text("old")
    if there in {"public", "both"}:
        public.write_text("old")
    if there == "a dangling link":
        secret.symlink_to("nowhere")
    before = {file: file.is_symlink() or file.read_text() for file in machine.folder.glob("new.*")}

    done = keygen(machine, "new.example.org-1", secret, public)

    error, hint = done.stderr.splitlines()
    assert done.returncode == 2
    assert error.startswith("error: ")
    assert "is there already" in error
    assert hint.startswith("hint: ")
    after = {file: file.is_symlink() or file.read_text() for file in machine.folder.glob("new.*")}
    assert after == before
    assert not (machine.folder / "nowhere").exists()


@pytest.mark.parametrize("name", ["", "a:b", "a b", "a\nb"])
def test_a_name_that_cannot_be_is_refused(machine: Machine, name: str) -> None:
    """A key's name has no colon and no space; nothing is written."""
    secret, public = machine.folder / "new.private", machine.folder / "new.public"

    done = keygen(machine, name, secret, public)

    assert done.returncode == 2
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
    assert not secret.exists()
    assert not public.exists()


def test_a_folder_that_is_not_there_is_told(machine: Machine) -> None:
    """Exit code 2, one sentence and a hint."""
    nowhere = machine.folder / "nowhere"

    done = keygen(machine, "new.example.org-1", nowhere / "private", nowhere / "public")

    assert done.returncode == 2
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]


def test_one_file_cannot_be_both(machine: Machine) -> None:
    """The same name for both files is refused, and the secret does not stay behind."""
    one = machine.folder / "new"

    done = keygen(machine, "new.example.org-1", one, one)

    assert done.returncode == 2
    assert not one.exists()
