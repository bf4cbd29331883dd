-- +goose Up
-- Persons who were erased. A gate that was offline may still bring entries of them.
CREATE TABLE erasure (
  site TEXT NOT NULL,
  pass BIGINT NOT NULL,
  at   BIGINT NOT NULL, -- entries from before go, UTC ms
  by   TEXT NOT NULL,
  PRIMARY KEY (site, pass)
);
-- How far each log was searched for them.
CREATE TABLE erasure_mark (
  site TEXT NOT NULL,
  pass BIGINT NOT NULL,
  log  BIGINT NOT NULL REFERENCES log (id),
  next BIGINT NOT NULL,
  PRIMARY KEY (site, pass, log)
);
-- +goose Down
DROP TABLE erasure_mark;
DROP TABLE erasure;
