"""The process that posts what is queued."""
