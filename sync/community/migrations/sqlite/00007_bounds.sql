-- +goose Up
-- When retention was last enforced, by the clocks of the machine that did it: a clock
-- that leaps must not destroy what is young.
CREATE TABLE retention (
  id   INTEGER PRIMARY KEY CHECK (id = 1),
  at   INTEGER NOT NULL, -- UTC ms
  mono INTEGER NOT NULL, -- ms since the machine's start
  boot TEXT NOT NULL,    -- which start that was
  held INTEGER NOT NULL, -- since when the time is not believed; 0 = it is
  why  TEXT NOT NULL
);
-- Which entry a local change was: those of one gate's log hold in its order, whatever
-- its clock said.
ALTER TABLE local_change ADD COLUMN log INTEGER NOT NULL DEFAULT 0;
ALTER TABLE local_change ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
-- The lists of the keys that gates trust the server by, as they were signed.
CREATE TABLE trust (
  number  INTEGER PRIMARY KEY,
  payload TEXT NOT NULL,
  at      INTEGER NOT NULL
);
-- +goose Down
DROP TABLE trust;
ALTER TABLE local_change DROP COLUMN seq;
ALTER TABLE local_change DROP COLUMN log;
DROP TABLE retention;
