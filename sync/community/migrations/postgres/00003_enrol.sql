-- +goose Up
-- Devices that have asked to become a gate and wait for a person.
CREATE TABLE enrol (
  code    TEXT PRIMARY KEY,
  site    TEXT NOT NULL,
  gate    TEXT NOT NULL, -- that it wants to be
  request TEXT NOT NULL, -- JSON, as it came
  at      BIGINT NOT NULL
);
-- Client certificates given out, so that those of a revoked device can be named.
CREATE TABLE certificate (
  serial TEXT PRIMARY KEY, -- hex
  gate   BIGINT NOT NULL REFERENCES gate (id),
  public BYTEA NOT NULL,    -- of the device
  at     BIGINT NOT NULL,
  until  BIGINT NOT NULL
);
-- +goose Down
DROP TABLE certificate;
DROP TABLE enrol;
