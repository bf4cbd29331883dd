// Package chain holds the benchmark of the whole way of an entry, from a gate's
// journal on disk over a stock broker into the community server's database, with
// the receipt back. It needs Mosquitto and PostgreSQL.
package chain
