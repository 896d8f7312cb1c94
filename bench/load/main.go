// Command load asks a server over kept-alive HTTP/1.1 connections, one request after the other on
// each, for a fixed time, and prints what came of it as JSON. Times are microseconds.
//
// A request is a file that holds it as it goes over the wire; connections take turns through them.
// Only requests that end within the time are counted, and none of the warm-up's.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// report is what is printed. Served counts every answer, the warm-up's and the last ones' too:
// what the server's processor time is divided by.
type report struct {
	Requests   int     `json:"requests"`
	Served     int     `json:"served"`
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error"`
	Reconnects int     `json:"reconnects"`
	Seconds    float64 `json:"seconds"`
	P50        float64 `json:"p50"`
	P99        float64 `json:"p99"`
	P999       float64 `json:"p999"`
	Processor  float64 `json:"processor"` // of this program, as a part of one core
}

func main() {
	addresses := flag.String("addresses", "", "host:port, several separated by commas")
	folder := flag.String("requests", "", "folder of files, each a request")
	connections := flag.Int("connections", 1, "connections")
	seconds := flag.Float64("seconds", 1, "how long is measured")
	warm := flag.Float64("warm", 0.2, "how long is asked before that, in seconds")
	flag.Parse()
	requests, err := read(*folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	begin := time.Now().Add(time.Duration(*warm * float64(time.Second)))
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	workers := make([]*worker, *connections)
	hosts := strings.Split(*addresses, ",")
	var all sync.WaitGroup
	for number := range workers {
		one := &worker{address: hosts[number%len(hosts)], requests: requests, next: number}
		workers[number] = one
		all.Add(1)
		go func() {
			defer all.Done()
			one.run(begin, end)
		}()
	}
	all.Wait()
	made := summed(workers)
	made.Seconds = *seconds
	made.Processor = processor() / time.Since(begin.Add(-time.Duration(*warm*1e9))).Seconds()
	if err := json.NewEncoder(os.Stdout).Encode(made); err != nil {
		os.Exit(2)
	}
}

func read(folder string) ([][]byte, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	requests := make([][]byte, 0, len(names))
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		requests = append(requests, content)
	}
	if len(requests) == 0 {
		return nil, fmt.Errorf("no request in %q", folder)
	}
	return requests, nil
}

func summed(workers []*worker) report {
	var made report
	var waits []time.Duration
	for _, one := range workers {
		waits = append(waits, one.waits...)
		made.Served += one.served
		made.Errors += one.errors
		made.Reconnects += one.reconnects
		if made.FirstError == "" {
			made.FirstError = one.firstError
		}
	}
	sort.Slice(waits, func(a, b int) bool { return waits[a] < waits[b] })
	made.Requests = len(waits)
	made.P50, made.P99, made.P999 = at(waits, 0.5), at(waits, 0.99), at(waits, 0.999)
	return made
}

// at returns a quantile in microseconds, 0 for nothing.
func at(waits []time.Duration, part float64) float64 {
	if len(waits) == 0 {
		return 0
	}
	return float64(waits[int(part*float64(len(waits)-1))].Nanoseconds()) / 1000
}

// processor returns the seconds of processor time that this program used.
func processor() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}
