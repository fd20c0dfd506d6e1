//go:build !linux

package hugepages

// advise does nothing: other systems are not asked for huge pages like that.
func advise([]byte) {}
