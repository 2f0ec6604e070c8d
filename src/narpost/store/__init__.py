"""The Nix store, read through Nix itself over its worker protocol."""
