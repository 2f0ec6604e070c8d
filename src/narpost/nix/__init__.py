"""Nix's words and formats: bytes in, values out, no I/O."""
