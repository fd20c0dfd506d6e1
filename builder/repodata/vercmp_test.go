package repodata

import (
	"cmp"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"meridian/internal/testworld"
)

// Every pair of these is compared as rpm compares it.
func TestVersionsAreComparedAsByRPM(t *testing.T) {
	rpm := testworld.Need(t, "rpm")
	versions := []string{"0", "1", "01", "1.0", "1.00", "1.0.1", "1.10", "1.9", "2.34", "2.4", "2.2.5", "2.3.4", "a", "b", "ab", "1a", "1.a",
		"a1", "1_0", "1..0", "1.", "1~", "1~rc1", "1~rc1~git", "1~~", "~", "^", "1^", "1^git", "1^git~x", "1~rc^x", "1.0^", "1.0^x", "é", "1é",
		"PRIVATE", "20240101", "99999999999999999999", "100000000000000000000"}
	// Braces and backslashes mean something to macros: there are none in it.
	list := "'" + strings.Join(versions, "','") + "'"
	cmd := exec.Command(rpm, "--eval", "%{lua: local v = {"+list+"}; for _, a in ipairs(v) do for _, b in ipairs(v) do print(rpm.vercmp(a, b) .. ' ') end end}")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("rpm: %v\n%s", err, out)
	}
	want := strings.Fields(string(out))
	if len(want) != len(versions)*len(versions) {
		t.Fatalf("rpm compared %d pairs, want %d", len(want), len(versions)*len(versions))
	}
	for i, a := range versions {
		for j, b := range versions {
			got := fmt.Sprint(cmp.Compare(compareVersions([]byte(a), []byte(b)), 0))
			if w := want[i*len(versions)+j]; got != w {
				t.Errorf("%q and %q: %s, rpm says %s", a, b, got, w)
			}
		}
	}
}
