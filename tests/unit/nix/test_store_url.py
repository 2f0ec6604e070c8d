"""Store URLs, as `nix copy --to` takes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narpost.errors import MalformedError
from narpost.nix.store_url import PARAMETERS, StoreUrl, nearest


def parameters(scheme: str) -> st.SearchStrategy[dict[str, str]]:
    """Any values for some of the parameters of *scheme*."""
    return st.dictionaries(st.sampled_from(sorted(PARAMETERS[scheme])), st.text(max_size=20))


buckets = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True)
folders = st.lists(st.text("abc.-_ ?#%&+=:@é/", min_size=1), max_size=4).map(
    lambda parts: "/" + "/".join(parts).strip("/")
)
store_urls = st.builds(StoreUrl, st.just("s3"), buckets, parameters("s3")) | st.builds(
    StoreUrl, st.just("file"), folders, parameters("file")
)


def test_reads_a_bucket_and_its_parameters() -> None:
    """The URL in the manual's example, for a server that is not of AWS."""
    url = StoreUrl.parse("s3://example-nix-cache?scheme=https&endpoint=minio.example.com:9000")

    assert (url.scheme, url.location) == ("s3", "example-nix-cache")
    assert url.parameters == {"scheme": "https", "endpoint": "minio.example.com:9000"}


def test_reads_a_folder() -> None:
    """A folder is an absolute path, after the two slashes of the scheme."""
    url = StoreUrl.parse("file:///srv/cache?compression=zstd&secret-key=/etc/nix/key.private")

    assert (url.scheme, url.location) == ("file", "/srv/cache")
    assert url.parameters == {"compression": "zstd", "secret-key": "/etc/nix/key.private"}


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("s3://bucket/", "bucket"),
        ("s3://bucket?", "bucket"),
        ("s3://my.bucket_1-2", "my.bucket_1-2"),
        ("file:///srv/cache/", "/srv/cache"),
        ("file:///", "/"),
        ("file:///srv/my%20cache", "/srv/my cache"),
        ("file:///srv/what%3F", "/srv/what?"),
        ("file:///srv/number#1", "/srv/number#1"),
    ],
)
def test_reads_locations_at_the_edge(text: str, location: str) -> None:
    """A slash at the end, an empty query and percent signs mean what they do elsewhere."""
    assert StoreUrl.parse(text).location == location


@pytest.mark.parametrize(
    "text",
    [
        "s3://example-nix-cache?region=eu-west-1",
        "s3://example-nix-cache?endpoint=https://minio.example.com:9000&profile=ci",
        "file:///srv/cache?secret-keys=/etc/nix/a.private",
        "file:///srv/my%20cache",
    ],
)
def test_writes_what_it_read(text: str) -> None:
    """A URL in its usual spelling comes out as it went in."""
    assert StoreUrl.parse(text).render() == text


@given(store_urls)
def test_parsing_undoes_rendering(url: StoreUrl) -> None:
    """Whatever is in folder or values, spaces and signs of URLs too, the text leads back to it."""
    assert StoreUrl.parse(url.render()) == url


def test_is_shown_without_its_parameters() -> None:
    """What people read names the place; the rest is in the config."""
    url = StoreUrl.parse("s3://example-nix-cache?region=eu-west-1&profile=ci")

    assert str(url) == "s3://example-nix-cache"


@pytest.mark.parametrize(
    "text",
    ["", "bucket", "/srv/cache", "s3:bucket", "s3:/bucket", "://bucket", "S3://bucket", "ftp://x"],
)
def test_refuses_what_is_no_url_of_a_cache(text: str) -> None:
    """The hint says how the URL of a cache begins."""
    with pytest.raises(MalformedError, match="not the URL of a cache") as caught:
        StoreUrl.parse(text)

    assert "s3:// or file://" in caught.value.hint


@pytest.mark.parametrize(
    "bucket",
    ["", "ab", "a" * 64, "Bucket", "-bucket", "bucket-", "bucket/nix", "user:word@bucket", "b et"],
)
def test_refuses_what_no_server_takes_for_a_bucket(bucket: str) -> None:
    """A prefix inside of a bucket is no bucket either, since Nix knows none."""
    with pytest.raises(MalformedError, match="does not name a bucket"):
        StoreUrl.parse(f"s3://{bucket}")


@pytest.mark.parametrize("folder", ["", "srv/cache", "./cache", "localhost/srv/cache", "~/cache"])
def test_refuses_a_folder_that_is_not_absolute(folder: str) -> None:
    """Two slashes too few are the common mistake, and the hint shows them."""
    with pytest.raises(MalformedError, match="does not name a folder") as caught:
        StoreUrl.parse(f"file://{folder}")

    assert "file:///srv/cache" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("s3://bucket?regoin=eu-west-1", "region"),
        ("s3://bucket?secret-key-file=/etc/key", "secret-key"),
        ("s3://bucket?Region=eu-west-1", "region"),
        ("file:///srv/cache?compresion=xz", "compression"),
        ("file:///srv/cache?want-massquery=1", "want-mass-query"),
    ],
)
def test_an_unknown_parameter_names_the_nearest(text: str, known: str) -> None:
    """Nix ignores it, and so leaves paths unsigned for a typing error (nix#12491)."""
    with pytest.raises(MalformedError, match="unknown parameter") as caught:
        StoreUrl.parse(text)

    assert caught.value.hint.startswith(f"did you mean {known}?")


def test_a_parameter_far_from_all_lists_what_is_known() -> None:
    """No guess is better than a wild one."""
    with pytest.raises(MalformedError) as caught:
        StoreUrl.parse("file:///srv/cache?zzz=1")

    assert caught.value.hint.startswith("known are: compression, ")


def test_a_folder_has_no_region() -> None:
    """What one scheme knows is still unknown to the other."""
    with pytest.raises(MalformedError, match="unknown parameter 'region'"):
        StoreUrl.parse("file:///srv/cache?region=eu-west-1")


def test_nearest_sorts_what_is_known() -> None:
    """The list reads the same each time, whatever the order of the set."""
    assert nearest("bta", {"gamma", "beta", "alpha"}) == (
        "did you mean beta? known are: alpha, beta, gamma"
    )
