// Command peers is the least that a key server in Go can do: a token, a key in memory, AES-256-GCM
// with a random nonce or a signature, and a line of JSON in a file for each request. Standard library
// only. It has no grants, no versions, no states, no log that proves itself: a lower bound.
//
// With -sync no answer leaves before its line is on the disk; lines that wait go there together.
package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

const bodyLimit = 16 << 20

// record is the line of a request.
type record struct {
	At      time.Time `json:"at"`
	Actor   string    `json:"actor"`
	Action  string    `json:"action"`
	Key     string    `json:"key"`
	Version int       `json:"version"`
	Items   int       `json:"items"`
	Outcome string    `json:"outcome"`
	Source  string    `json:"source"`
}

type server struct {
	token [32]byte // SHA-256
	keys  *keys
	audit journal
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	path := flag.String("audit", "", "the file of the lines")
	together := flag.Bool("sync", false, "fsync before an answer leaves, for all that wait at once")
	flag.Parse()
	file, err := os.OpenFile(*path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	made, err := newKeys()
	if err != nil {
		log.Fatal(err)
	}
	token := os.Getenv("PLAIN_TOKEN")
	if token == "" {
		log.Fatal("PLAIN_TOKEN is empty")
	}
	house := &server{token: sha256.Sum256([]byte(token)), keys: made, audit: plain{file}}
	if *together {
		house.audit = newGroup(file)
	}
	serving := &http.Server{Addr: *listen, Handler: house.routes(), ReadHeaderTimeout: time.Minute}
	log.Fatal(serving.ListenAndServe())
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	for name, use := range map[string]use{
		"encrypt":           s.keys.encrypt,
		"decrypt":           s.keys.decrypt,
		"generate-data-key": s.keys.dataKey,
		"sign":              s.keys.sign,
		"encrypt/batch":     s.keys.encryptMany,
	} {
		mux.HandleFunc("POST /api/v1/keys/{key}/"+name, s.answer(name, use))
	}
	return mux
}

// use reads a body and returns the answer and how many items it did.
type use func(key string, body []byte) (any, int, error)

var errNoKey = errors.New("no such key")

func (s *server) answer(action string, perform use) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		digest := sha256.Sum256([]byte(token))
		if !found || subtle.ConstantTimeCompare(digest[:], s.token[:]) != 1 {
			http.Error(w, "sign in", http.StatusUnauthorized)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
		if err != nil {
			http.Error(w, "the body can't be read", http.StatusBadRequest)
			return
		}
		key := r.PathValue("key")
		result, items, err := perform(key, body)
		line := record{time.Now().UTC(), "bench", action, key, 1, items, "success", r.RemoteAddr}
		if err != nil {
			line.Outcome = "failed"
		}
		if told := s.tell(line); told != nil {
			http.Error(w, "the audit file can't be written", http.StatusServiceUnavailable)
			return
		}
		switch {
		case errors.Is(err, errNoKey):
			http.Error(w, err.Error(), http.StatusNotFound)
		case err != nil:
			http.Error(w, "the request can't be carried out", http.StatusBadRequest)
		default:
			content, err := json.Marshal(result)
			if err != nil {
				http.Error(w, "the answer can't be written", http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content)
		}
	}
}

func (s *server) tell(line record) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	return s.audit.write(append(text, '\n'))
}
