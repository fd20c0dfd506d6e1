package stats

import (
	"encoding/csv"
	"io"
	"strconv"
)

// WriteCSV writes the rows: a line with the names of the columns, then one for
// each row, with "count", and for Mirrors "bytes", behind the labels.
func (r *Result) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	head := append(append([]string{}, r.By...), "count")
	bytes := r.Table == Mirrors.Name
	if bytes {
		head = append(head, "bytes")
	}
	if err := out.Write(head); err != nil {
		return err
	}
	for _, row := range r.Rows {
		line := append(append([]string{}, row.Labels...), strconv.FormatUint(row.Count, 10))
		if bytes {
			line = append(line, strconv.FormatUint(row.Bytes, 10))
		}
		if err := out.Write(line); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
