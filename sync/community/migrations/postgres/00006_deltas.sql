-- +goose Up
-- What of each row is published, and what changed between two versions.
CREATE TABLE registry_sum (
  site TEXT NOT NULL,
  pass BIGINT NOT NULL,
  sum  BYTEA NOT NULL, -- SHA-256 of the row as published
  PRIMARY KEY (site, pass)
);
CREATE TABLE registry_delta (
  site         TEXT NOT NULL,
  from_version BIGINT NOT NULL,
  to_version   BIGINT NOT NULL,
  hash         TEXT NOT NULL, -- SHA-256 of data, hex
  data         BYTEA NOT NULL,
  PRIMARY KEY (site, to_version)
);
CREATE INDEX registry_delta_hash ON registry_delta (site, hash);
-- +goose Down
DROP TABLE registry_delta;
DROP TABLE registry_sum;
