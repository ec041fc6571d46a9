package main

import (
	"bufio"
	"fmt"
	"os"
	"sync"

	"go.temporal.io/sdk/activity"
)

// The steps of the saga, in order. The plan is the bench's: of 30 ids two are refused at charge, one at book.
var placeNames = []string{"reserve", "charge", "book"}

func refuses(index uint64, place int) bool {
	switch index % 30 {
	case 9, 19:
		return place == 1
	case 29:
		return place == 2
	}
	return false
}

type effectKey struct {
	run   uint32
	index uint64
	place int
}

type effect struct{ done, undone int }

// books is what the participants keep, in memory: effects by order and place. An operation that comes again does
// nothing, so each effect is counted once however often Temporal asks.
type books struct {
	lock    sync.Mutex
	effects map[effectKey]effect
}

func newBooks() *books { return &books{effects: map[effectKey]effect{}} }

func keyOf(id string, place int) (effectKey, error) {
	key := effectKey{place: place}
	if _, err := fmt.Sscanf(id, "r%d-%d", &key.run, &key.index); err != nil {
		return key, fmt.Errorf("the id %q is none of the bench: %w", id, err)
	}
	return key, nil
}

// do says whether it was done; the plan may refuse it.
func (b *books) do(key effectKey) bool {
	if refuses(key.index, key.place) {
		return false
	}
	b.lock.Lock()
	defer b.lock.Unlock()
	known := b.effects[key]
	if known.done == 0 {
		known.done++
		b.effects[key] = known
	}
	return true
}

func (b *books) undo(key effectKey) {
	b.lock.Lock()
	defer b.lock.Unlock()
	known := b.effects[key]
	if known.undone < known.done {
		known.undone++
		b.effects[key] = known
	}
}

// write leaves the effects of one run in a file, a line each, as the gate reads it, and forgets them: earlier runs
// are never asked about again.
func (b *books) write(run uint32, path string) error {
	b.lock.Lock()
	defer b.lock.Unlock()
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	lines := bufio.NewWriter(file)
	for key, count := range b.effects {
		if key.run == run {
			fmt.Fprintf(lines, "%d %d %d %d 0\n", key.index, key.place, count.done, count.undone)
		}
	}
	if err := lines.Flush(); err != nil {
		return err
	}
	return file.Close()
}

// serveLedger answers `ledger RUN PATH` on standard input until it ends.
func serveLedger(books *books) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var run uint32
		var path string
		if _, err := fmt.Sscanf(lines.Text(), "ledger %d %s", &run, &path); err != nil {
			return fmt.Errorf("only `ledger RUN PATH` is understood: %w", err)
		}
		if err := books.write(run, path); err != nil {
			return err
		}
		fmt.Println("written")
	}
	return lines.Err()
}

func activityNamed(name string) activity.RegisterOptions {
	return activity.RegisterOptions{Name: name}
}
