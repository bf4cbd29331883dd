-- +goose Up
-- Devices that have asked to become a gate and wait for a person.
CREATE TABLE enrol (
  code    TEXT PRIMARY KEY,
  site    TEXT NOT NULL,
  gate    TEXT NOT NULL, -- that it wants to be
  request TEXT NOT NULL, -- JSON, as it came
  at      INTEGER NOT NULL
) WITHOUT ROWID;
-- Client certificates given out, so that those of a revoked device can be named.
CREATE TABLE certificate (
  serial TEXT PRIMARY KEY, -- hex
  gate   INTEGER NOT NULL REFERENCES gate (id),
  public BLOB NOT NULL,    -- of the device
  at     INTEGER NOT NULL,
  until  INTEGER NOT NULL
) WITHOUT ROWID;
-- +goose Down
DROP TABLE certificate;
DROP TABLE enrol;
