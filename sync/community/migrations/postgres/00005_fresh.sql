-- +goose Up
-- Entries that came ahead of a backlog: verified, and replaced when their turn comes.
CREATE TABLE fresh (
  gate  BIGINT NOT NULL REFERENCES gate (id),
  epoch TEXT NOT NULL,
  seq   BIGINT NOT NULL,
  line  BYTEA NOT NULL,
  at    BIGINT NOT NULL, -- received, UTC ms
  PRIMARY KEY (gate, epoch, seq)
);
-- +goose Down
DROP TABLE fresh;
