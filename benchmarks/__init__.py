"""What we claim to be fast, beside others and beside the limit."""
