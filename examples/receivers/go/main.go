// A receiver of webhooks with nothing but the standard library.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const tolerance = 5 * time.Minute

type event struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

func main() {
	// Anything shorter or cut off would let others sign too. DecodeString reads over line breaks: hence the comparison.
	secret := os.Getenv("WEBHOOK_SECRET")
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) < 24 || secret != "whsec_"+base64.StdEncoding.EncodeToString(key) {
		log.Fatal("WEBHOOK_SECRET is not whsec_ and the base64 of at least 24 bytes")
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8000"
	}
	var seen sync.Map // in real life: a table with the id as its primary key

	http.HandleFunc("/webhooks", func(w http.ResponseWriter, r *http.Request) {
		// The signature covers the bytes as they came: read them all before parsing.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 2<<20))
		if err != nil || !isSigned(key, r.Header, body, time.Now()) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		// At least once means that an event may come again: its id tells.
		_, again := seen.LoadOrStore(r.Header.Get("webhook-id"), true)
		w.WriteHeader(http.StatusNoContent) // first the answer,
		if !again {
			go handle(body) // then the work
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}

// https://github.com/standard-webhooks/standard-webhooks: one signature for each secret that is live.
func isSigned(key []byte, header http.Header, body []byte, now time.Time) bool {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if age := now.Sub(time.Unix(seconds, 0)); err != nil || age > tolerance || age < -tolerance {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, signature := range strings.Fields(header.Get("webhook-signature")) {
		if hmac.Equal([]byte(signature), []byte(expected)) {
			return true
		}
	}
	return false
}

func handle(body []byte) {
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		log.Print(err)
		return
	}
	fmt.Println("processed", e.ID, e.Type)
}
