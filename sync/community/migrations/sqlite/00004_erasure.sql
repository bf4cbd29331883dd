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
-- +goose Down
DROP TABLE erasure_mark;
DROP TABLE erasure;
