"""Narinfos: read as Nix reads them, written as Nix writes them."""

import pytest
from hypothesis import given

from narpost.errors import MalformedError
from narpost.nix.hashes import Hash
from narpost.nix.narinfo import NarInfo
from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StoreDir, StorePath
from support.nix_values import narinfos
from support.vectors import HELLO_NARINFO, PLAIN_NARINFO

STORE_DIR = StoreDir()
HELLO = StorePath.parse("1j5vnm9a3r56jrsylgkynrpf2b0hmsmp-hello")
DEP = StorePath.parse("8vm37iv2pdf3dwawalhbhns0a3iprjz8-dep")


def with_field(name: str, value: str) -> str:
    """The narinfo of hello, with another *value* in the field *name*."""
    lines = [
        f"{name}: {value}" if line.startswith(f"{name}:") else line
        for line in HELLO_NARINFO.splitlines()
    ]
    return "\n".join(lines) + "\n"


def without_field(name: str) -> str:
    """The narinfo of hello, with no field *name*."""
    lines = [line for line in HELLO_NARINFO.splitlines() if not line.startswith(f"{name}:")]
    return "\n".join(lines) + "\n"


def test_reads_each_field_of_nix() -> None:
    """A narinfo of `nix copy` says where the NAR lies, and all that Nix registered."""
    narinfo = NarInfo.parse(HELLO_NARINFO, STORE_DIR)

    assert narinfo == NarInfo(
        info=PathInfo(
            path=HELLO,
            nar_hash=Hash.parse("sha256:0aj3qfbwfwlyq8bw99givdjb6536s5qmavx7ym1ib34ia3lbnrgc"),
            nar_bytes=568,
            references=(HELLO, DEP),
            deriver=StorePath.parse("4zqsvcm264y601vh4cwci0wf5xy5366x-hello.drv"),
            signatures=(
                "cache.example.org-1:wTFMKPAE3ftiTlH3azGDNqFU6IOiupQn1z+DNW+ohOJZ46HJAXyU"
                "+62vtpEhpxQTmyNCp0ya8+bG8k/yKD6yCg==",
            ),
        ),
        url="nar/14rrb20rqay1jzglbb1yw0js1nwx0p0g7ra7vvfy055gnf360c1p.nar.zst",
        compression="zstd",
        file_hash=Hash.parse("sha256:14rrb20rqay1jzglbb1yw0js1nwx0p0g7ra7vvfy055gnf360c1p"),
        file_bytes=227,
    )


def test_reads_a_content_address_and_several_signatures() -> None:
    """A path that was added has both, and neither deriver nor references."""
    info = NarInfo.parse(PLAIN_NARINFO, STORE_DIR).info

    assert info.content_address == (
        "fixed:r:sha256:0rkk4zsq8w7xx0fhgclz9abv3njxyxc6vfbsxpcnmp3ff9rymiss"
    )
    assert [signature.partition(":")[0] for signature in info.signatures] == [
        "cache.example.org-1",
        "other.example.org-1",
    ]
    assert (info.deriver, info.references) == (None, ())


@pytest.mark.parametrize("text", [HELLO_NARINFO, PLAIN_NARINFO])
def test_writes_what_it_read(text: str) -> None:
    """A narinfo of Nix comes out byte for byte."""
    assert NarInfo.parse(text, STORE_DIR).render(STORE_DIR) == text


@given(narinfos)
def test_parsing_undoes_rendering(narinfo: NarInfo) -> None:
    """Whatever a narinfo holds, its text leads back to it."""
    assert NarInfo.parse(narinfo.render(STORE_DIR), STORE_DIR) == narinfo


@given(narinfos)
def test_rendering_undoes_parsing(narinfo: NarInfo) -> None:
    """Text of ours is written again as it was, in any store."""
    store_dir = StoreDir("/tmp/scratch/nix/store")
    text = narinfo.render(store_dir)

    assert NarInfo.parse(text, store_dir).render(store_dir) == text


def test_file_hash_and_size_may_be_missing() -> None:
    """They are optional for Nix, and other programs leave them out."""
    text = "".join(
        line for line in HELLO_NARINFO.splitlines(True) if not line.startswith(("FileH", "FileS"))
    )

    narinfo = NarInfo.parse(text, STORE_DIR)

    assert (narinfo.file_hash, narinfo.file_bytes) == (None, None)
    assert narinfo.render(STORE_DIR) == text


@pytest.mark.parametrize("text", [without_field("Compression"), with_field("Compression", "")])
def test_an_unnamed_compression_is_bzip2(text: str) -> None:
    """Nix takes it so, since it was once the only one."""
    assert NarInfo.parse(text, STORE_DIR).compression == "bzip2"


@pytest.mark.parametrize(
    "text", [without_field("Deriver"), with_field("Deriver", "unknown-deriver")]
)
def test_the_deriver_may_be_unknown(text: str) -> None:
    """Nix leaves it out, and once wrote a word in its place."""
    assert NarInfo.parse(text, STORE_DIR).info.deriver is None


def test_references_are_sorted() -> None:
    """Their order in the text does not matter, since the fingerprint wants them sorted."""
    text = with_field("References", f"{DEP} {HELLO}")

    assert NarInfo.parse(text, STORE_DIR).info.references == (HELLO, DEP)


def test_a_reference_named_twice_counts_once() -> None:
    """Nix holds them as a set, and so signs each of them once."""
    text = with_field("References", f"{HELLO} {DEP} {HELLO}")

    assert NarInfo.parse(text, STORE_DIR).info.references == (HELLO, DEP)


def test_passes_over_a_field_that_it_does_not_know() -> None:
    """A later Nix may say more."""
    text = HELLO_NARINFO + "Future: yes\nFuture: and again\n"

    assert NarInfo.parse(text, STORE_DIR) == NarInfo.parse(HELLO_NARINFO, STORE_DIR)


@pytest.mark.parametrize("name", ["StorePath", "URL", "NarHash", "NarSize"])
def test_refuses_a_narinfo_that_lacks_a_field(name: str) -> None:
    """Without these Nix cannot use it; an empty one is as good as none."""
    with pytest.raises(MalformedError, match=f"lacks the field {name}"):
        NarInfo.parse(without_field(name), STORE_DIR)
    with pytest.raises(MalformedError, match=f"lacks the field {name}"):
        NarInfo.parse(with_field(name, ""), STORE_DIR)


@pytest.mark.parametrize("name", ["StorePath", "URL", "NarHash", "References", "Deriver"])
def test_refuses_a_field_given_twice(name: str) -> None:
    """Nobody could say which one was meant."""
    line = next(line for line in HELLO_NARINFO.splitlines() if line.startswith(f"{name}:"))

    with pytest.raises(MalformedError, match=f"the field {name} twice"):
        NarInfo.parse(f"{HELLO_NARINFO}{line}\n", STORE_DIR)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("StorePath", "1j5vnm9a3r56jrsylgkynrpf2b0hmsmp-hello"),
        ("StorePath", "/gnu/store/1j5vnm9a3r56jrsylgkynrpf2b0hmsmp-hello"),
        ("StorePath", "/nix/store/1j5vnm9a3r56jrsylgkynrpf2b0hmsmp-hello/bin"),
        ("FileHash", "sha256:14rrb20rqay1jzglbb1yw0js1nwx0p0g7ra7vvfy055gnf360c1"),
        ("FileSize", "-1"),
        ("NarHash", "0aj3qfbwfwlyq8bw99givdjb6536s5qmavx7ym1ib34ia3lbnrgc"),
        ("NarHash", "sha256:"),
        ("NarSize", "-568"),
        ("NarSize", "+568"),
        ("NarSize", "5_68"),
        ("NarSize", "568 "),
        ("NarSize", "0x238"),
        ("NarSize", "٥٦٨"),
        ("NarSize", str(2**63)),
        ("NarSize", "9" * 5000),
        ("References", "hello"),
        ("References", "/nix/store/8vm37iv2pdf3dwawalhbhns0a3iprjz8-dep"),
        ("Deriver", "/nix/store/4zqsvcm264y601vh4cwci0wf5xy5366x-hello.drv"),
    ],
)
def test_refuses_a_field_that_is_not_of_its_form(name: str, value: str) -> None:
    """Paths, hashes and sizes are checked on the way in."""
    with pytest.raises(MalformedError):
        NarInfo.parse(with_field(name, value), STORE_DIR)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "<html>404</html>",
        '{"error": "not found"}',
        HELLO_NARINFO + "\n",
        HELLO_NARINFO + "no field",
        HELLO_NARINFO[: HELLO_NARINFO.index("NarSize") + 4],
    ],
    ids=["empty", "blank", "html", "json", "blank line", "no colon", "cut off"],
)
def test_refuses_text_that_is_no_narinfo(text: str) -> None:
    """An error page or half a narinfo is never taken for one."""
    with pytest.raises(MalformedError, match="a narinfo"):
        NarInfo.parse(text, STORE_DIR)
