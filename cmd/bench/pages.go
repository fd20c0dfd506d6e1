package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"meridian/mirrorlist/geo/geotest"
)

var pages = section{
	name:  "pages",
	about: "lists while many people look at pages: ratio of the times, in one run",
	run:   runPages,
}

// pageRounds take turns: lists alone, then lists beside pages.
const (
	pageRounds   = 8
	listsEach    = 8_000
	pagesAtOnce  = 8
	pagesPerTurn = 100_000 // more than there is time for: the turn ends them
)

func runPages(ctx context.Context, b *bench) (err error) {
	program, err := b.build(ctx, "cmd/mirrorlist", false)
	if err != nil {
		return err
	}
	w, err := newWorld()
	if err != nil {
		return err
	}
	p, err := w.serve(ctx, program)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	clients := geotest.Clients(10_000, 15)
	lists := requests(w.addr, clients)
	// Each from a network of its own, so that no bound of one network holds them.
	looks := pageRequests(w.addr, clients)
	var middle, late []float64
	seen := 0
	for range pageRounds {
		alone, err := generate(ctx, w.addr, lists, listsEach)
		if err != nil {
			return err
		}
		turn, stop := context.WithCancel(ctx)
		g, loaded := errgroup.WithContext(turn)
		counts := make([]int, pagesAtOnce)
		for i := range pagesAtOnce {
			g.Go(func() error {
				for n := range pagesPerTurn {
					at := (i*1237 + n*connections) % (len(looks) - connections)
					if _, err := generate(loaded, w.addr, looks[at:at+connections], connections); err != nil {
						if turn.Err() != nil {
							return nil
						}
						return err
					}
					counts[i] += connections
				}
				return nil
			})
		}
		beside, err := generate(ctx, w.addr, lists, listsEach)
		stop()
		if err := errors.Join(err, g.Wait()); err != nil {
			return err
		}
		for _, n := range counts {
			seen += n
		}
		ratio := func(part int) float64 {
			return float64(beside[len(beside)*part/100]) / float64(max(time.Microsecond, alone[len(alone)*part/100]))
		}
		middle, late = append(middle, ratio(50)), append(late, ratio(99))
	}
	b.note("pages answered meanwhile", value{float64(seen), "pages"})
	b.note("half of the lists, beside pages / alone", value{median(middle), "×"})
	b.note("99 % of the lists, beside pages / alone", value{median(late), "×"})
	return nil
}

// pageRequests ask for pages in turn.
func pageRequests(host string, clients []netip.Addr) (out [][]byte) {
	paths := []string{"/", "/?sort=bandwidth&order=desc", "/map", "/api/v1/mirrors?limit=100", "/isos"}
	for i, c := range clients {
		out = append(out, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: %s\r\n\r\n", paths[i%len(paths)], host, c))
	}
	return out
}
