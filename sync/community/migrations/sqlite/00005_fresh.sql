-- +goose Up
-- Entries that came ahead of a backlog: verified, and replaced when their turn comes.
CREATE TABLE fresh (
  gate  INTEGER NOT NULL REFERENCES gate (id),
  epoch TEXT NOT NULL,
  seq   INTEGER NOT NULL,
  line  BLOB NOT NULL,
  at    INTEGER NOT NULL, -- received, UTC ms
  PRIMARY KEY (gate, epoch, seq)
);
-- +goose Down
DROP TABLE fresh;
