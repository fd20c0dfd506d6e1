package mirrorlist

// appendList appends the answer as a mirrorlist: one URL a line, and no newline
// after the last.
func (t *Table) appendList(b []byte, q *question, picks []pick) []byte {
	for i := range picks {
		if i > 0 {
			b = append(b, '\n')
		}
		b = t.appendURL(b, q, picks[i])
	}
	return b
}

// appendURL appends the URL that a pick stands for.
func (t *Table) appendURL(b []byte, q *question, p pick) []byte {
	b = append(b, t.mirrors[p.mirror].bases[q.tree].url(q.want)...)
	return append(b, q.suffix...)
}
