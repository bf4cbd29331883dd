-- +goose Up
-- Persons who were erased. A gate that was offline may still bring entries of them.
CREATE TABLE erasure (
  site TEXT NOT NULL,
  pass INTEGER NOT NULL,
  at   INTEGER NOT NULL, -- entries from before go, UTC ms
  by   TEXT NOT NULL,
  PRIMARY KEY (site, pass)
) WITHOUT ROWID;
-- How far each log was searched for them.
CREATE TABLE erasure_mark (
  site TEXT NOT NULL,
  pass INTEGER NOT NULL,
  log  INTEGER NOT NULL REFERENCES log (id),
  next INTEGER NOT NULL,
  PRIMARY KEY (site, pass, log)
) WITHOUT ROWID;
-- What other programs may query, as on PostgreSQL.
CREATE VIEW entries AS
  SELECT g.site, g.name AS gate, l.epoch, e.seq, strftime('%Y-%m-%dT%H:%M:%fZ', e.at / 1000.0, 'unixepoch') AS time, e.at, e.kind, e.lane, e.presentation,
    e.of, e.actor, e.pass, e.household, e.category, e.outcome, e.rule, e.reason, e.result
  FROM entry e JOIN log l ON l.id = e.log JOIN gate g ON g.id = l.gate;
-- +goose Down
DROP VIEW entries;
DROP TABLE erasure_mark;
DROP TABLE erasure;
