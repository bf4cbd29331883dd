package journal

// Hold takes the reserve again, when there is room again on a medium that was full.
func (j *Journal) Hold() error {
	j.purging.Lock()
	defer j.purging.Unlock()
	return j.reserve()
}
