-- How each entry stands with each cache. Times are seconds since the epoch.
CREATE TABLE IF NOT EXISTS entry (
    path   TEXT NOT NULL,
    cache  TEXT NOT NULL,
    state  TEXT NOT NULL,
    tries  INTEGER NOT NULL,
    due_at REAL NOT NULL,
    reason TEXT NOT NULL,
    kept_at REAL NOT NULL,
    PRIMARY KEY (path, cache)
) STRICT, WITHOUT ROWID;

-- What was posted: for status, and for those who wait.
CREATE TABLE IF NOT EXISTS posting (
    path       TEXT NOT NULL,
    cache      TEXT NOT NULL,
    nar_bytes  INTEGER NOT NULL,
    file_bytes INTEGER NOT NULL,
    posted_at  REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS posting_by_path ON posting (path, cache);
CREATE INDEX IF NOT EXISTS posting_by_time ON posting (posted_at);

-- Entries that every cache has confirmed.
CREATE TABLE IF NOT EXISTS settled (
    path       TEXT PRIMARY KEY,
    settled_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- What each cache was seen to have, so that it need not be asked again at once.
CREATE TABLE IF NOT EXISTS seen (
    path    TEXT NOT NULL,
    url     TEXT NOT NULL,
    seen_at REAL NOT NULL,
    PRIMARY KEY (url, path)
) STRICT, WITHOUT ROWID;

-- How each cache does since when, in the words of the screen.
CREATE TABLE IF NOT EXISTS health (
    cache     TEXT PRIMARY KEY,
    condition TEXT NOT NULL,
    reason    TEXT NOT NULL,
    since     REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- What this machine had built at the last look, for catching up.
CREATE TABLE IF NOT EXISTS known (
    path TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
