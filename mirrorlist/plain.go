package mirrorlist

// appendList appends the answer as a mirrorlist: one URL a line, and no newline
// after the last.
func (t *Table) appendList(b []byte, q *question, picks []pick) []byte {
	bases, suffix := t.ways[q.tree].urls[q.want], q.suffix
	for i := range picks {
		if i > 0 {
			b = append(b, '\n')
		}
		b = append(append(b, bases[picks[i].mirror]...), suffix...)
	}
	return b
}

// appendURL appends the URL that a pick stands for.
func (t *Table) appendURL(b []byte, q *question, p pick) []byte {
	return append(append(b, t.ways[q.tree].urls[q.want][p.mirror]...), q.suffix...)
}
