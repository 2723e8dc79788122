// Command noop is the least that an admission webhook in Go can be: net/http, TLS, the whole review decoded,
// "allowed" answered. It must never look at what is in the review.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
)

const maxBody = 4 << 20

type request struct {
	UID    string          `json:"uid"`
	Object json.RawMessage `json:"object"`
}

type review struct {
	APIVersion string  `json:"apiVersion"`
	Kind       string  `json:"kind"`
	Request    request `json:"request"`
}

type response struct {
	UID     string `json:"uid"`
	Allowed bool   `json:"allowed"`
}

type answer struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Response   response `json:"response"`
}

// admit decodes the review and the object in it, and allows.
func admit(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return
	}
	var asked review
	if err := json.Unmarshal(body, &asked); err != nil {
		http.Error(w, "the body is no review", http.StatusBadRequest)
		return
	}
	var object map[string]any
	if err := json.Unmarshal(asked.Request.Object, &object); err != nil {
		http.Error(w, "the object is no JSON object", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	said := answer{asked.APIVersion, asked.Kind, response{asked.Request.UID, true}}
	if err := json.NewEncoder(w).Encode(said); err != nil {
		log.Print(err)
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "address")
	certificate := flag.String("certificate", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	flag.Parse()
	http.HandleFunc("POST /validate", admit)
	http.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	log.Fatal(http.ListenAndServeTLS(*listen, *certificate, *key, nil))
}
