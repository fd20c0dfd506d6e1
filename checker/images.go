package checker

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"meridian/builder/repodata"
	"meridian/checker/state"
)

// An ImageSet is what the origin has in VERSION/isos/ARCH: the images that the
// CHECKSUM beside them names, and that are there.
type ImageSet struct {
	// Sum and Size are of CHECKSUM itself.
	Sum  state.Hash256
	Size int64

	// Files are the images: Location relative to the directory, Size, Checksum.
	Files []repodata.Data
}

// askImages reads CHECKSUM, and asks for the size of each image that it names.
func (l *look) askImages(ctx context.Context) {
	l.images = nil
	r := l.tier0.read(ctx, l.path+checksumFile, stamp{})
	l.reply = r
	if r.outcome != Served {
		return
	}
	files, err := readChecksums(r.body)
	if err != nil {
		l.reply.outcome, l.reply.err = Garbage, err
		return
	}
	set := &ImageSet{Sum: sha256.Sum256(r.body), Size: int64(len(r.body))}
	for _, f := range files {
		at := l.tier0.size(ctx, l.path+f.Location)
		var wrong error
		switch {
		case at.outcome == Missing:
			wrong = fmt.Errorf("it names %s, which is not there", f.Location)
		case at.outcome != Served:
			l.reply = at
			return
		case f.Size >= 0 && at.size >= 0 && f.Size != at.size:
			wrong = fmt.Errorf("it names %s with %d bytes, and there are %d", f.Location, f.Size, at.size)
		default:
			f.Size = at.size
			set.Files = append(set.Files, f)
		}
		if wrong != nil && l.lacks == nil {
			l.lacks, l.proof = wrong, at.evidence(wrong)
		}
	}
	l.reply, l.images = reply{outcome: Served}, set
}

// settleImages takes the set of the first tier0 that has one. Where each has
// something and none has the set, there is none, and nobody is asked for it.
func (o *Origin) settleImages(s *topic, serving map[*tier0]service, now time.Time) {
	var set *ImageSet
	for _, l := range s.looks {
		if set == nil {
			set = l.images
		}
		l.troubled(l.judgeImages(), now)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case set != nil:
		o.images[s.key] = set
		s.truth.Images, s.truth.Absent = nil, false
		for _, f := range set.Files {
			s.truth.Images = append(s.truth.Images, state.Image{Name: f.Location, Size: f.Size, Algorithm: f.Checksum.Type, Digest: f.Checksum.Value})
		}
	case s.missing(serving):
		delete(o.images, s.key)
		s.truth.Images, s.truth.Absent = nil, true
	}
}

// judgeImages says what is wrong with the images on one tier0.
func (l *look) judgeImages() *finding {
	base := l.tier0.base
	switch {
	case l.at.IsZero(), l.reply.outcome == Missing:
		return nil // not every version has images
	case l.reply.outcome == Garbage && !l.reply.broken:
		return &finding{isGarbage, fmt.Sprintf("what %s serves is no %s: %s", base, checksumFile, told(l.reply.err.Error())),
			"write a line for each image: SHA256 (NAME) = DIGITS", l.reply.proof()}
	case l.reply.outcome == Served && l.lacks != nil:
		return &finding{isIncomplete, fmt.Sprintf("the list of images at %s is wrong: %s", base, told(l.lacks.Error())),
			"copy the image, or take it out of " + checksumFile, l.proof}
	}
	return l.unheard()
}
