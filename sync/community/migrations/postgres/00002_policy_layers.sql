-- +goose Up
-- A site has one policy for each of its layers, as signed bundles. Those in the
-- form before are not carried over: they are published again.
DROP TABLE policy;
CREATE TABLE policy (
  site    TEXT NOT NULL,
  layer   TEXT NOT NULL, -- empty = the site's own
  version BIGINT NOT NULL,
  hash    TEXT NOT NULL, -- SHA-256 of payload, hex
  name    TEXT NOT NULL, -- of the file it was made of
  payload BYTEA NOT NULL,
  at      BIGINT NOT NULL, -- published, UTC ms
  PRIMARY KEY (site, layer, version)
);
-- +goose Down
DROP TABLE policy;
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
