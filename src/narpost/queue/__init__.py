"""The queue: links below gcroots, and what is remembered about them."""
