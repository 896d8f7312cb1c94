package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	patience  = 30 * time.Second // against hanging
	refusals  = 20               // in a row: the server has gone
	errorText = 300
)

// worker is one connection and what came of it.
type worker struct {
	address    string
	requests   [][]byte
	next       int
	connection net.Conn
	reader     *bufio.Reader
	waits      []time.Duration
	served     int
	errors     int
	firstError string
	reconnects int
}

func (w *worker) run(begin, end time.Time) {
	defer w.close()
	for row := 0; row < refusals; {
		started := time.Now()
		if !started.Before(end) {
			return
		}
		err := w.ask(w.requests[w.next%len(w.requests)])
		w.next++
		now := time.Now()
		if err != nil {
			row++
			w.errors++
			if w.firstError == "" {
				w.firstError = err.Error()
			}
			w.close()
			continue
		}
		row = 0
		w.served++
		if !started.Before(begin) && !now.After(end) {
			w.waits = append(w.waits, now.Sub(started))
		}
	}
}

// ask sends a request and reads its whole answer.
func (w *worker) ask(request []byte) error {
	if w.connection == nil {
		connection, err := net.DialTimeout("tcp", w.address, patience)
		if err != nil {
			return err
		}
		w.connection, w.reader = connection, bufio.NewReaderSize(connection, 64<<10)
	}
	if err := w.connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := w.connection.Write(request); err != nil {
		return err
	}
	stays, err := w.answer()
	if err == nil && !stays {
		w.reconnects++
		w.close()
	}
	return err
}

func (w *worker) close() {
	if w.connection != nil {
		w.connection.Close()
		w.connection = nil
	}
}

// answer reads an answer and tells whether the connection stays open. Anything but 200 is an error.
func (w *worker) answer() (bool, error) {
	line, err := w.line()
	if err != nil {
		return false, err
	}
	version, rest, _ := strings.Cut(line, " ")
	good := strings.HasPrefix(rest, "200")
	length, chunked, stays := -1, false, version == "HTTP/1.1"
	for {
		line, err := w.line()
		if err != nil {
			return false, err
		}
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "content-length"):
			if length, err = strconv.Atoi(value); err != nil {
				return false, err
			}
		case strings.EqualFold(name, "transfer-encoding"):
			chunked = strings.EqualFold(value, "chunked")
		case strings.EqualFold(name, "connection"):
			stays = stays && !strings.EqualFold(value, "close")
		}
	}
	if !good {
		start, _ := w.reader.Peek(min(errorText, w.reader.Buffered()))
		return false, fmt.Errorf("%s %s", rest, start)
	}
	if chunked {
		return stays, w.chunks()
	}
	if length < 0 {
		_, err := io.Copy(io.Discard, w.reader)
		return false, err
	}
	_, err = w.reader.Discard(length)
	return stays, err
}

func (w *worker) chunks() error {
	for {
		line, err := w.line()
		if err != nil {
			return err
		}
		text, _, _ := strings.Cut(line, ";")
		size, err := strconv.ParseInt(strings.TrimSpace(text), 16, 32)
		if err != nil {
			return err
		}
		// The end of a chunk is a line of its own; no server here sends trailers.
		if _, err := w.reader.Discard(int(size) + 2); err != nil {
			return err
		}
		if size == 0 {
			return nil
		}
	}
}

func (w *worker) line() (string, error) {
	line, err := w.reader.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			return "", errors.New("a line of the answer is too long")
		}
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}
