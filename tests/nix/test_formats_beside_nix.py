"""Keys, signatures and narinfos: what Nix writes we read, and what we write is the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from narpost.nix.narinfo import NarInfo
from narpost.nix.signing import PublicKey, SecretKey
from narpost.nix.store_path import StoreDir
from support.private_store import NixFailed, PrivateStore, derivation, tree

LIBRARY = derivation("library", "mkdir -p $out/lib; echo code > $out/lib/a.so")
SEVERAL = derivation(
    "several",
    "mkdir $out $dev; echo $out > $dev/link; echo $references > $out/needs",
    references=[LIBRARY],
    attributes='outputs = [ "out" "dev" ];',
)
FIXED = derivation(
    "fixed.txt",
    "echo hi > $out",
    attributes='outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash ='
    ' "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";',
)
VARIED = [
    LIBRARY,
    f"({SEVERAL}).out",
    f"({SEVERAL}).dev",
    FIXED,
    tree(),
    derivation("program", references=[LIBRARY, f"({SEVERAL}).dev"]),
    derivation("self", "echo $out > $out"),
    derivation("empty-file", ": > $out"),
    derivation("empty-folder", "mkdir $out"),
    derivation("link", "ln -s nowhere $out"),
    derivation("large", "head -c 3000000 /dev/urandom > $out"),
    derivation("odd+-._?=9name", "echo odd > $out"),
]


def build_varied(store: PrivateStore, folder: Path) -> list[str]:
    """Build all of `VARIED`, and add a folder that nothing built."""
    (folder / "added").mkdir()
    (folder / "added" / "note").write_text("added by hand\n")
    return [
        *store.build(f"[ {' '.join(f'({each})' for each in VARIED)} ]"),
        store.add(folder / "added"),
    ]


def make_key(store: PrivateStore, name: str, folder: Path) -> Path:
    """A secret key of Nix's making; the public one lies beside it, ending with `.public`."""
    secret, public = folder / name, folder / f"{name}.public"
    store.run("nix-store", "--generate-binary-cache-key", name, str(secret), str(public))
    return secret


def copied_narinfos(store: PrivateStore, cache: Path, query: str, paths: list[str]) -> list[str]:
    """Copy the closures of *paths* to a new cache, and return all narinfos that Nix wrote there."""
    derivers = store.run("nix-store", "--query", "--deriver", *paths).split()
    derivations = [deriver for deriver in derivers if deriver != "unknown-deriver"]
    store.run("nix", "copy", "--to", f"file://{cache}{query}", *paths)
    store.run("nix", "copy", "--to", f"file://{cache}{query}", "--derivation", *derivations)
    return [narinfo.read_text() for narinfo in sorted(cache.glob("*.narinfo"))]


def sign_narinfos(cache: Path, secret: SecretKey, store_dir: StoreDir) -> None:
    """Give each narinfo of *cache* our signature."""
    for file in cache.glob("*.narinfo"):
        narinfo = NarInfo.parse(file.read_text(), store_dir)
        signature = secret.sign(narinfo.info.fingerprint(store_dir))
        signed = replace(narinfo, info=replace(narinfo.info, signatures=(signature,)))
        file.write_text(signed.render(store_dir))


def test_nix_reads_a_secret_key_of_ours(private_store: PrivateStore) -> None:
    """Nix finds in our secret key the public one that we find."""
    secret = SecretKey.generate("ours.example.org-1")

    public = private_store.run("nix", "key", "convert-secret-to-public", stdin=secret.render())

    assert public.strip() == secret.public.render()


def test_we_read_the_key_files_of_nix_store(private_store: PrivateStore, tmp_path: Path) -> None:
    """Both files of `nix-store --generate-binary-cache-key` are read, and written alike."""
    secret_file = make_key(private_store, "theirs.example.org-1", tmp_path)
    secret_text = secret_file.read_text()
    public_text = secret_file.with_name(f"{secret_file.name}.public").read_text()

    secret, public = SecretKey.parse(secret_text), PublicKey.parse(public_text)

    assert secret.public == public
    assert (secret.render(), public.render()) == (secret_text, public_text)


def test_we_read_a_key_of_the_new_command(private_store: PrivateStore) -> None:
    """`nix key generate-secret` writes the same form."""
    text = private_store.run("nix", "key", "generate-secret", "--key-name", "new.example.org-1")

    secret = SecretKey.parse(text)

    assert (secret.name, secret.render()) == ("new.example.org-1", text.strip())


def test_we_sign_as_nix_store_sign_does(private_store: PrivateStore, tmp_path: Path) -> None:
    """For each kind of path, our signature is that of Nix byte for byte."""
    paths = build_varied(private_store, tmp_path)
    key_file = make_key(private_store, "theirs.example.org-1", tmp_path)
    private_store.run("nix", "store", "sign", "--recursive", "--key-file", str(key_file), *paths)

    narinfos = copied_narinfos(private_store, tmp_path / "cache", "", paths)

    secret = SecretKey.parse(key_file.read_text())
    store_dir = StoreDir(str(private_store.store_dir))
    infos = [NarInfo.parse(text, store_dir).info for text in narinfos]
    signed = [info for info in infos if info.signatures]
    assert {store_dir.render(info.path) for info in signed} == set(paths)
    for info in signed:
        assert info.signatures == (secret.sign(info.fingerprint(store_dir)),)


def test_nix_accepts_what_we_signed(private_store: PrivateStore, tmp_path: Path) -> None:
    """A client that trusts our key refuses a path without our signature, and takes it with."""
    [path] = private_store.build(derivation("self", "echo $out > $out"))
    cache, secret = tmp_path / "cache", SecretKey.generate("ours.example.org-1")
    private_store.run("nix", "copy", "--to", f"file://{cache}", path)
    private_store.delete(path)
    client = private_store.client("client", f"file://{cache}", [secret.public.render()])

    with pytest.raises(NixFailed, match="not signed by any of the keys"):
        client.run("nix-store", "--realise", path)
    sign_narinfos(cache, secret, StoreDir(str(private_store.store_dir)))
    client.run("nix-store", "--realise", path)

    assert client.is_valid(path)


@pytest.mark.parametrize("compression", ["none", "xz", "zstd", "bzip2", "gzip"])
def test_we_write_each_narinfo_as_nix_did(
    private_store: PrivateStore, tmp_path: Path, compression: str
) -> None:
    """A narinfo of `nix copy`, read and written by us, is the same byte for byte."""
    paths = build_varied(private_store, tmp_path)
    store_dir = StoreDir(str(private_store.store_dir))
    query = f"?compression={compression}"

    narinfos = copied_narinfos(private_store, tmp_path / "cache", query, paths)

    assert len(narinfos) > len(paths)
    for text in narinfos:
        narinfo = NarInfo.parse(text, store_dir)
        assert narinfo.render(store_dir) == text
        assert narinfo.compression == compression
