"""Posting: plan a closure, pack its paths, publish them."""
