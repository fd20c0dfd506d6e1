package syncer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const lockDir = StateDir + "/lock"

// ErrLocked is wrapped by the error of a publication to a tier0 that somebody
// else is publishing to.
var ErrLocked = errors.New("locked")

// An owner is who holds a lock, in enough detail to know whether he is still
// alive when it is looked at on the same machine.
type owner struct {
	Host    string    `json:"host"`
	User    string    `json:"user"`
	PID     int       `json:"pid"`
	Started string    `json:"started,omitempty"` // of the process, as the kernel counts
	Boot    string    `json:"boot,omitempty"`    // of the kernel
	Space   string    `json:"space,omitempty"`   // of process numbers
	Machine string    `json:"machine,omitempty"`
	Source  string    `json:"source"`
	Taken   time.Time `json:"taken"` // by the owner's clock: for people

	// Asked: before it ends, the owner looks whether somebody asked it to go on.
	Asked bool `json:"asked,omitempty"`
}

func me(source string, now time.Time) owner {
	o := owner{PID: os.Getpid(), Source: source, Taken: now}
	o.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		o.User = u.Username
	}
	o.Started = processStart(o.PID)
	o.Boot = line("/proc/sys/kernel/random/boot_id")
	o.Machine = line("/etc/machine-id")
	o.Space, _ = os.Readlink("/proc/self/ns/pid")
	return o
}

func line(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}

// processStart is when a process began, in the kernel's own unit; "" when there
// is no such process, or no kernel that tells. Numbers of processes are used
// again, this with the number is not.
func processStart(pid int) string {
	stat := line(fmt.Sprintf("/proc/%d/stat", pid))
	// The second field is the name, in parentheses that it may hold itself.
	i := strings.LastIndexByte(stat, ')')
	if f := strings.Fields(stat[i+1:]); i > 0 && len(f) > 19 {
		return f[19]
	}
	return ""
}

// gone says why the owner cannot be alive any more; "" when that is not known.
// No clock is asked: it may be wrong, here or there.
func (o *owner) gone(name string, self *owner) string {
	if o.Host != self.Host || o.Machine != self.Machine || o.Machine == "" {
		return ""
	}
	switch {
	case o.Boot != self.Boot && o.Boot != "" && self.Boot != "":
		return "the machine was restarted since"
	case o.Space != self.Space:
		return "" // a container: its processes are not to be seen from here
	case o.Started != "" && processStart(o.PID) != o.Started:
		return "the process has ended"
	case o.Started == "" && errors.Is(syscall.Kill(o.PID, 0), syscall.ESRCH):
		return "the process has ended"
	case o.PID == self.PID && o.Started == self.Started:
		if _, here := mine.Load(name); !here {
			return "this process could not remove it when it was done"
		}
	}
	return ""
}

// mine are the names of the locks that are held in this process. A daemon that
// could not remove one would otherwise be kept out by itself.
var mine sync.Map

func (o *owner) String() string {
	return fmt.Sprintf("%s on %s (process %d), from %s", o.User, o.Host, o.PID, o.Source)
}

func (o *owner) age(now time.Time) string {
	d := now.Sub(o.Taken).Round(time.Second)
	if d < 0 {
		return fmt.Sprintf("taken at %s, which is still to come: the clocks differ", o.Taken.Format(time.RFC3339))
	}
	return fmt.Sprintf("taken %v ago", d)
}

// A held lock keeps other publishers from a tier0, as long as its file is there.
type held struct {
	tier tier
	name string
}

// acquire writes a lock into a tier0, or says who has one there. It returns those
// of the named files that the tier0 has, as they were before. A lock whose owner
// is known to be gone is removed, and so is the one that the user names in
// broken; notes say so.
//
// rsync has no way to make a file only if there is none, so every publisher
// writes one of its own and then looks for others, which is [held.alone]: of two
// that come together, both see the other's and at least one goes away.
func acquire(ctx context.Context, t tier, self owner, broken string, names []string) (h *held, files map[string][]byte, notes []string, err error) {
	files, others, err := t.look(ctx, names)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		why := ""
		if name == broken {
			why = "it was named to be broken"
		} else if o, err := parseOwner(others[name]); err == nil {
			why = o.gone(name, &self)
		}
		if why == "" {
			continue
		}
		if _, err := t.remove(ctx, []string{path.Join(lockDir, name)}, false); err != nil {
			return nil, nil, nil, err
		}
		notes = append(notes, fmt.Sprintf("removed lock %s: %s", name, why))
		delete(others, name)
	}
	if err := lockedBy(others, self.Taken); err != nil {
		return nil, nil, nil, err
	}
	b, err := json.MarshalIndent(self, "", "  ")
	if err != nil {
		return nil, nil, nil, err
	}
	h = &held{t, rand.Text()[:12]}
	mine.Store(h.name, true)
	if _, err := t.write(ctx, []small{{name: path.Join(lockDir, h.name), data: append(b, '\n'), private: true}}); err != nil {
		mine.Delete(h.name)
		return nil, nil, nil, err
	}
	return h, files, notes, nil
}

// alone is an error when somebody else has a lock too, or ours is not there. It
// returns the state of the tier0 as it is now that nobody else changes it.
func (h *held) alone(ctx context.Context, now time.Time) (state []byte, err error) {
	files, others, err := h.tier.look(ctx, []string{stateFile})
	if err != nil {
		return nil, err
	}
	if _, ok := others[h.name]; !ok {
		return nil, errors.New("the lock that was written is not there; is this destination writable and readable?")
	}
	delete(others, h.name)
	return files[stateFile], lockedBy(others, now)
}

func parseOwner(b []byte) (*owner, error) {
	o := new(owner)
	if err := json.Unmarshal(b, o); err != nil {
		return nil, err
	}
	return o, nil
}

// A lockedError is [ErrLocked] with who holds the lock; nil where that cannot be
// read.
type lockedError struct {
	name  string
	owner *owner
	now   time.Time
}

func (e *lockedError) Unwrap() error { return ErrLocked }

func (e *lockedError) Error() string {
	who := "somebody unknown"
	if e.owner != nil {
		who = e.owner.String() + ", " + e.owner.age(e.now)
	}
	return fmt.Sprintf("%v by %s; wait for it, or, if you know that nobody works there any more, add -break-lock %s", ErrLocked, who, e.name)
}

func lockedBy(locks map[string][]byte, now time.Time) error {
	for _, name := range slices.Sorted(maps.Keys(locks)) {
		o, err := parseOwner(locks[name])
		if err != nil {
			o = nil
		}
		return &lockedError{name, o, now}
	}
	return nil
}

// read reads files, and is an error when the lock is gone: somebody broke it, or
// the tier0 is not the one that it was.
func (h *held) read(ctx context.Context, names []string) (map[string][]byte, error) {
	files, locks, err := h.tier.look(ctx, names)
	if err != nil {
		return nil, err
	}
	if _, ok := locks[h.name]; !ok {
		return nil, errors.New("the lock of this publication vanished; somebody broke it, or replaced the destination")
	}
	return files, nil
}

func (h *held) release(ctx context.Context) error {
	mine.Delete(h.name)
	// Also after an interruption: what else would remove it?
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	_, err := h.tier.remove(ctx, []string{path.Join(lockDir, h.name)}, false)
	return err
}
