"""Binary caches: objects in a bucket or folder."""
