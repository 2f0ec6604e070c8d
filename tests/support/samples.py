"""Expressions to build: one of each kind of path that Nix tells apart, and graphs of them."""

from support.private_store import derivation, tree

LIBRARY = derivation("library", "mkdir -p $out/lib; echo code > $out/lib/a.so")
SEVERAL = derivation(
    "several",
    "mkdir $out $dev; echo $out > $dev/link; echo $references > $out/needs; echo doc > $doc",
    references=[LIBRARY],
    attributes='outputs = [ "out" "dev" "doc" ];',
)
FIXED = derivation(
    "fixed.txt",
    "echo hi > $out",
    attributes='outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash ='
    ' "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";',
)
SELF = derivation("self", "echo $out > $out")
PROGRAM = derivation("program", references=[LIBRARY, f"({SEVERAL}).dev", SELF])
KINDS = [LIBRARY, f"({SEVERAL}).doc", FIXED, SELF, PROGRAM, tree()]

VARIED = f"[ {' '.join(f'({each})' for each in KINDS)} ]"


def lattice(depth: int, width: int) -> str:
    """An expression for the top row of a graph where each path refers to the whole row below."""
    row = "[ ]"
    for level in range(depth):
        node = (
            f'derivation {{ name = "{level}-${{toString n}}"; system = builtins.currentSystem;'
            ' builder = "/bin/sh"; args = [ "-euc" "echo $name $references > $out" ];'
            f' PATH = "/bin:/usr/bin"; references = below; }}'
        )
        row = f"(let below = {row}; in builtins.genList (n: {node}) {width})"
    return row
