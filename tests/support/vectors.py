"""What a real Nix 2.8 wrote: keys, narinfos and the signatures in them.

The keys were made by `nix-store --generate-binary-cache-key` for these tests and serve nothing
else; the narinfos by `nix store sign` and `nix copy --to 'file://…?compression=zstd'`.
"""

SECRET_KEY = (
    "cache.example.org-1:"
    "cAtkeHPwZNxhAogElzQkYrV5a+Cqx1P4bUqfZw8mg+O9AjLnv6OqmjjOtW+ucQ/NDeqjG441QoNoKSMaVh07vA=="
)
PUBLIC_KEY = "cache.example.org-1:vQIy57+jqpo4zrVvrnEPzQ3qoxuONUKDaCkjGlYdO7w="
OTHER_PUBLIC_KEY = "other.example.org-1:2h8NncVvnrAzsbx2uL4EN1S5CZB0GIHbtPmDUvgGE2U="

# Built, refers to itself and to another path, signed once.
HELLO_NARINFO = """\
StorePath: /nix/store/1j5vnm9a3r56jrsylgkynrpf2b0hmsmp-hello
URL: nar/14rrb20rqay1jzglbb1yw0js1nwx0p0g7ra7vvfy055gnf360c1p.nar.zst
Compression: zstd
FileHash: sha256:14rrb20rqay1jzglbb1yw0js1nwx0p0g7ra7vvfy055gnf360c1p
FileSize: 227
NarHash: sha256:0aj3qfbwfwlyq8bw99givdjb6536s5qmavx7ym1ib34ia3lbnrgc
NarSize: 568
References: 1j5vnm9a3r56jrsylgkynrpf2b0hmsmp-hello 8vm37iv2pdf3dwawalhbhns0a3iprjz8-dep
Deriver: 4zqsvcm264y601vh4cwci0wf5xy5366x-hello.drv
Sig: cache.example.org-1:\
wTFMKPAE3ftiTlH3azGDNqFU6IOiupQn1z+DNW+ohOJZ46HJAXyU+62vtpEhpxQTmyNCp0ya8+bG8k/yKD6yCg==
"""

# Added, so that it has a content address and no deriver; no references, signed twice.
PLAIN_NARINFO = """\
StorePath: /nix/store/456pycc1lss0n91chzn7ajp8isy5p1lx-plain.txt
URL: nar/1b0xb76m4yk0dw1vvidkpmvpylqsj5dsfhfm89kylqndkaxpihs0.nar.zst
Compression: zstd
FileHash: sha256:1b0xb76m4yk0dw1vvidkpmvpylqsj5dsfhfm89kylqndkaxpihs0
FileSize: 89
NarHash: sha256:0rkk4zsq8w7xx0fhgclz9abv3njxyxc6vfbsxpcnmp3ff9rymiss
NarSize: 120
References:\x20
Sig: cache.example.org-1:\
MG+W2xHvXFywhEQGGl7ROWXWQwNwje+FspQLUxmyGz6FQxgTILbrL5MExPkxXNIZ6jUt3Sp+8u7JJXyLifx3BQ==
Sig: other.example.org-1:\
LARXquBRnSg3nfX2fRa7Yyx48AILkfp9JKw9Gtd0tD5JyVK2hBpFuy6toH15yUE7OG8wR+R8UdB5I4hpEdHYCw==
CA: fixed:r:sha256:0rkk4zsq8w7xx0fhgclz9abv3njxyxc6vfbsxpcnmp3ff9rymiss
"""
