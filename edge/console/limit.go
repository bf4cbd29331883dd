package console

// class says how much of a route one caller may have.
type class int

const (
	pages   class = iota
	files         // what pages are made of
	acts          // the guard's answers
	forms         // changes
	logins        // what costs a hash
	streams       // that last
)
