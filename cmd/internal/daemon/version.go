package daemon

import (
	"runtime/debug"
	"strings"
)

// release is what whoever builds without git, as in a container, says that the
// source is: go build -ldflags '-X meridian/cmd/internal/daemon.release=NAME'.
var release string

// Version names the source this program was built from: what its builder said
// that it is, a tag when it was built from one, else the commit, with "+dirty"
// after a commit with changes that were not committed, or "unknown".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	return version(release, info)
}

func version(release string, info *debug.BuildInfo) string {
	if release != "" {
		return release
	}
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
