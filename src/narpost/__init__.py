"""narpost posts every Nix and Lix build to a binary cache, outside of the build loop."""

__version__ = "0.1.0"
