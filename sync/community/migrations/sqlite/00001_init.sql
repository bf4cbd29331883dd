-- +goose Up
CREATE TABLE gate (
  id    INTEGER PRIMARY KEY,
  site  TEXT NOT NULL,
  name  TEXT NOT NULL,
  added INTEGER NOT NULL,
  status    TEXT NOT NULL DEFAULT '',
  status_at INTEGER NOT NULL DEFAULT 0,
  UNIQUE (site, name)
);
CREATE TABLE gate_key (
  gate   INTEGER NOT NULL REFERENCES gate (id),
  public BLOB NOT NULL,
  name   TEXT NOT NULL,
  age    TEXT NOT NULL,
  state  TEXT NOT NULL CHECK (state IN ('approved', 'pending', 'revoked')),
  since  INTEGER NOT NULL,
  by     TEXT NOT NULL,
  PRIMARY KEY (gate, public)
) WITHOUT ROWID;
CREATE TABLE log (
  id       INTEGER PRIMARY KEY,
  gate     INTEGER NOT NULL REFERENCES gate (id),
  epoch    TEXT NOT NULL,
  public   BLOB NOT NULL,
  size     INTEGER NOT NULL,
  edges    BLOB NOT NULL,
  head     BLOB NOT NULL,
  receipt  BLOB NOT NULL,
  parent   TEXT NOT NULL,
  forked   INTEGER NOT NULL,
  first_at INTEGER NOT NULL,
  last_at  INTEGER NOT NULL,
  purged   INTEGER NOT NULL DEFAULT 0,
  purges   INTEGER NOT NULL DEFAULT 0,
  UNIQUE (gate, epoch)
);
CREATE TABLE leaf (
  log    INTEGER NOT NULL REFERENCES log (id),
  first  INTEGER NOT NULL,
  hashes BLOB NOT NULL,
  root   BLOB,
  PRIMARY KEY (log, first)
) WITHOUT ROWID;
CREATE TABLE block (
  log   INTEGER NOT NULL REFERENCES log (id),
  first INTEGER NOT NULL,
  count INTEGER NOT NULL,
  until INTEGER NOT NULL,
  key   BLOB NOT NULL,
  blinds BLOB,
  data  BLOB NOT NULL,
  PRIMARY KEY (log, first)
);
CREATE TABLE entry (
  log          INTEGER NOT NULL,
  seq          INTEGER NOT NULL,
  at           INTEGER NOT NULL,
  kind         TEXT NOT NULL,
  lane         TEXT,
  presentation INTEGER,
  of           INTEGER,
  actor        TEXT,
  pass         INTEGER,
  household    INTEGER,
  category     TEXT,
  outcome      TEXT,
  rule         TEXT,
  reason       TEXT,
  result       TEXT,
  PRIMARY KEY (log, seq)
) WITHOUT ROWID;
CREATE TABLE delta (
  log    INTEGER NOT NULL,
  seq    INTEGER NOT NULL,
  at     INTEGER NOT NULL,
  deltas TEXT NOT NULL,
  change TEXT NOT NULL,
  PRIMARY KEY (log, seq)
) WITHOUT ROWID;
CREATE TABLE peer_mark (
  gate INTEGER NOT NULL REFERENCES gate (id),
  log  INTEGER NOT NULL REFERENCES log (id),
  next INTEGER NOT NULL,
  PRIMARY KEY (gate, log)
) WITHOUT ROWID;
CREATE TABLE alert (
  gate   INTEGER NOT NULL REFERENCES gate (id),
  kind   TEXT NOT NULL,
  about  TEXT NOT NULL,
  text   TEXT NOT NULL,
  first  INTEGER NOT NULL,
  last   INTEGER NOT NULL,
  times  INTEGER NOT NULL,
  PRIMARY KEY (gate, kind, about)
) WITHOUT ROWID;
CREATE TABLE deletion (
  log   INTEGER NOT NULL REFERENCES log (id),
  first INTEGER NOT NULL,
  count INTEGER NOT NULL,
  at    INTEGER NOT NULL,
  why   TEXT NOT NULL,
  by    TEXT NOT NULL,
  PRIMARY KEY (log, first)
) WITHOUT ROWID;
CREATE TABLE registry (
  site     TEXT PRIMARY KEY,
  version  INTEGER NOT NULL,
  rows     INTEGER NOT NULL,
  identity TEXT NOT NULL,
  at       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE roster (
  site TEXT NOT NULL,
  pass INTEGER NOT NULL,
  row  TEXT NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (site, pass)
) WITHOUT ROWID;
CREATE TABLE local_change (
  site   TEXT NOT NULL,
  pass   INTEGER NOT NULL,
  at     INTEGER NOT NULL,
  status TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (site, pass)
) WITHOUT ROWID;
CREATE TABLE contains (
  log       INTEGER NOT NULL REFERENCES log (id),
  received  INTEGER NOT NULL,
  published INTEGER NOT NULL,
  PRIMARY KEY (log)
) WITHOUT ROWID;
CREATE TABLE command (
  number  INTEGER PRIMARY KEY,
  site    TEXT NOT NULL,
  gate    TEXT NOT NULL,
  payload TEXT NOT NULL,
  name    TEXT NOT NULL,
  actor   TEXT NOT NULL,
  issued  INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  sent    INTEGER NOT NULL,
  status  TEXT NOT NULL,
  text    TEXT NOT NULL
);
CREATE TABLE chunk (
  site  TEXT NOT NULL,
  first INTEGER NOT NULL,
  plain BLOB NOT NULL,
  hash  TEXT NOT NULL,
  data  BLOB NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (site, first)
);
CREATE INDEX chunk_hash ON chunk (site, hash);
CREATE TABLE policy (
  site    TEXT NOT NULL,
  version INTEGER NOT NULL,
  hash    TEXT NOT NULL,
  policy  TEXT NOT NULL,
  name    TEXT NOT NULL,
  payload BLOB NOT NULL,
  at      INTEGER NOT NULL,
  PRIMARY KEY (site, version)
);
-- +goose Down
DROP TABLE policy;
DROP TABLE chunk;
DROP TABLE command;
DROP TABLE contains;
DROP TABLE local_change;
DROP TABLE roster;
DROP TABLE registry;
DROP TABLE deletion;
DROP TABLE alert;
DROP TABLE peer_mark;
DROP TABLE delta;
DROP TABLE entry;
DROP TABLE block;
DROP TABLE leaf;
DROP TABLE log;
DROP TABLE gate_key;
DROP TABLE gate;
