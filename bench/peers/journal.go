package main

import (
	"os"
	"sync"
)

// journal takes a line; it is in the file when write returns.
type journal interface{ write(line []byte) error }

// plain leaves lines to the operating system: a power failure loses what it had not written.
type plain struct{ file *os.File }

func (p plain) write(line []byte) error {
	_, err := p.file.Write(line)
	return err
}

// group writes and syncs all that waits at once; while one sync runs, the next group gathers.
type group struct {
	file    *os.File
	lock    sync.Mutex
	wake    *sync.Cond
	lines   []byte
	waiting []chan error
}

func newGroup(file *os.File) *group {
	made := &group{file: file}
	made.wake = sync.NewCond(&made.lock)
	go made.run()
	return made
}

func (g *group) write(line []byte) error {
	done := make(chan error, 1)
	g.lock.Lock()
	g.lines = append(g.lines, line...)
	g.waiting = append(g.waiting, done)
	g.wake.Signal()
	g.lock.Unlock()
	return <-done
}

func (g *group) run() {
	for {
		g.lock.Lock()
		for len(g.waiting) == 0 {
			g.wake.Wait()
		}
		lines, waiting := g.lines, g.waiting
		g.lines, g.waiting = nil, nil
		g.lock.Unlock()
		_, err := g.file.Write(lines)
		if err == nil {
			err = g.file.Sync()
		}
		for _, done := range waiting {
			done <- err
		}
	}
}
