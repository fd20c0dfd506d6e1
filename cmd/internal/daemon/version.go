package daemon

import (
	"runtime/debug"
	"strings"
)

// Version names the source this program was built from: a tag when it was built
// from one, else the commit, with "+dirty" after a commit with changes that were
// not committed, or "unknown".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return version(info)
}

func version(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit := settings["vcs.revision"]
	if commit == "" {
		return "unknown"
	}
	var b strings.Builder
	b.WriteString(commit[:min(12, len(commit))])
	if settings["vcs.modified"] == "true" {
		b.WriteString("+dirty")
	}
	return b.String()
}
