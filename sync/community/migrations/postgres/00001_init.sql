-- +goose Up
CREATE TABLE gate (
  id    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  site  TEXT NOT NULL,
  name  TEXT NOT NULL,
  added BIGINT NOT NULL,
  status    TEXT NOT NULL DEFAULT '',
  status_at BIGINT NOT NULL DEFAULT 0,
  UNIQUE (site, name)
);
CREATE TABLE gate_key (
  gate   BIGINT NOT NULL REFERENCES gate (id),
  public BYTEA NOT NULL,
  name   TEXT NOT NULL,
  age    TEXT NOT NULL,
  state  TEXT NOT NULL CHECK (state IN ('approved', 'pending', 'revoked')),
  since  BIGINT NOT NULL,
  by     TEXT NOT NULL,
  PRIMARY KEY (gate, public)
);
CREATE TABLE log (
  id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  gate     BIGINT NOT NULL REFERENCES gate (id),
  epoch    TEXT NOT NULL,
  public   BYTEA NOT NULL,
  size     BIGINT NOT NULL,
  edges    BYTEA NOT NULL,
  head     BYTEA NOT NULL,
  receipt  BYTEA NOT NULL,
  parent   TEXT NOT NULL,
  forked   BIGINT NOT NULL,
  first_at BIGINT NOT NULL,
  last_at  BIGINT NOT NULL,
  purged   BIGINT NOT NULL DEFAULT 0,
  purges   BIGINT NOT NULL DEFAULT 0,
  UNIQUE (gate, epoch)
);
CREATE TABLE leaf (
  log    BIGINT NOT NULL REFERENCES log (id),
  first  BIGINT NOT NULL,
  hashes BYTEA NOT NULL,
  root   BYTEA,
  PRIMARY KEY (log, first)
);
CREATE TABLE block (
  log   BIGINT NOT NULL REFERENCES log (id),
  first BIGINT NOT NULL,
  count BIGINT NOT NULL,
  until BIGINT NOT NULL,
  key   BYTEA NOT NULL,
  blinds BYTEA,
  data  BYTEA NOT NULL,
  PRIMARY KEY (log, first, until)
) PARTITION BY RANGE (until);
CREATE TABLE entry (
  log          BIGINT NOT NULL,
  seq          BIGINT NOT NULL,
  at           BIGINT NOT NULL,
  kind         TEXT NOT NULL,
  lane         TEXT,
  presentation BIGINT,
  of           BIGINT,
  actor        TEXT,
  pass         BIGINT,
  household    BIGINT,
  category     TEXT,
  outcome      TEXT,
  rule         TEXT,
  reason       TEXT,
  result       TEXT,
  PRIMARY KEY (log, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE delta (
  log    BIGINT NOT NULL,
  seq    BIGINT NOT NULL,
  at     BIGINT NOT NULL,
  deltas TEXT NOT NULL,
  change TEXT NOT NULL,
  PRIMARY KEY (log, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE peer_mark (
  gate BIGINT NOT NULL REFERENCES gate (id),
  log  BIGINT NOT NULL REFERENCES log (id),
  next BIGINT NOT NULL,
  PRIMARY KEY (gate, log)
);
CREATE TABLE alert (
  gate   BIGINT NOT NULL REFERENCES gate (id),
  kind   TEXT NOT NULL,
  about  TEXT NOT NULL,
  text   TEXT NOT NULL,
  first  BIGINT NOT NULL,
  last   BIGINT NOT NULL,
  times  BIGINT NOT NULL,
  PRIMARY KEY (gate, kind, about)
);
CREATE TABLE deletion (
  log   BIGINT NOT NULL REFERENCES log (id),
  first BIGINT NOT NULL,
  count BIGINT NOT NULL,
  at    BIGINT NOT NULL,
  why   TEXT NOT NULL,
  by    TEXT NOT NULL,
  PRIMARY KEY (log, first)
);
CREATE TABLE registry (
  site     TEXT PRIMARY KEY,
  version  BIGINT NOT NULL,
  rows     BIGINT NOT NULL,
  identity TEXT NOT NULL,
  at       BIGINT NOT NULL
);
CREATE TABLE roster (
  site TEXT NOT NULL,
  pass BIGINT NOT NULL,
  row  TEXT NOT NULL,
  version BIGINT NOT NULL,
  PRIMARY KEY (site, pass)
);
CREATE TABLE local_change (
  site   TEXT NOT NULL,
  pass   BIGINT NOT NULL,
  at     BIGINT NOT NULL,
  status TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (site, pass)
);
CREATE TABLE contains (
  log       BIGINT NOT NULL REFERENCES log (id),
  received  BIGINT NOT NULL,
  published BIGINT NOT NULL,
  PRIMARY KEY (log)
);
CREATE TABLE command (
  number  BIGINT PRIMARY KEY,
  site    TEXT NOT NULL,
  gate    TEXT NOT NULL,
  payload TEXT NOT NULL,
  name    TEXT NOT NULL,
  actor   TEXT NOT NULL,
  issued  BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  sent    BIGINT NOT NULL,
  status  TEXT NOT NULL,
  text    TEXT NOT NULL
);
CREATE TABLE chunk (
  site  TEXT NOT NULL,
  first BIGINT NOT NULL,
  plain BYTEA NOT NULL,
  hash  TEXT NOT NULL,
  data  BYTEA NOT NULL,
  version BIGINT NOT NULL,
  PRIMARY KEY (site, first)
);
CREATE INDEX chunk_hash ON chunk (site, hash);
CREATE TABLE policy (
  site    TEXT NOT NULL,
  version BIGINT NOT NULL,
  hash    TEXT NOT NULL,
  policy  TEXT NOT NULL,
  name    TEXT NOT NULL,
  payload BYTEA NOT NULL,
  at      BIGINT NOT NULL,
  PRIMARY KEY (site, version)
);
-- For what has no partition of its own: entries older than those, and those that
-- outlive the retention of most.
CREATE TABLE entry_rest PARTITION OF entry DEFAULT;
CREATE TABLE block_rest PARTITION OF block DEFAULT;
CREATE TABLE delta_rest PARTITION OF delta DEFAULT;
-- Packed already: trying again would only cost time.
ALTER TABLE block ALTER data SET STORAGE EXTERNAL;
ALTER TABLE leaf ALTER hashes SET STORAGE EXTERNAL;
ALTER TABLE chunk ALTER data SET STORAGE EXTERNAL;
-- What other programs may query: names and times instead of numbers.
CREATE VIEW entries AS
  SELECT g.site, g.name AS gate, l.epoch, e.seq, to_timestamp(e.at / 1000.0) AS time, e.at, e.kind, e.lane, e.presentation, e.of, e.actor,
    e.pass, e.household, e.category, e.outcome, e.rule, e.reason, e.result
  FROM entry e JOIN log l ON l.id = e.log JOIN gate g ON g.id = l.gate;
-- +goose Down
DROP VIEW entries;
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
