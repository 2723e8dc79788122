// Command load posts one body over and over from a number of clients, for a time or a count, and prints a line of
// JSON: how many answers came, what they were, and how long they took. Every answer is looked at: one that is not
// as expected ends the run with an error, so that no figure is ever about failures.
//
// Connections are HTTP/1.1 and kept, one a client, as the API server speaks to webhooks; to the API server it speaks
// HTTP/1.1 too, one connection a client, so that clients do not wait for each other.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

type result struct {
	Count     int     `json:"count"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"perSecond"`
	Mean      float64 `json:"mean"`
	P50       float64 `json:"p50"`
	P95       float64 `json:"p95"`
	P99       float64 `json:"p99"`
	Max       float64 `json:"max"`
}

type options struct {
	url, ca, certificate, key, body, contains string
	status, clients, count, number            int
	seconds                                   float64
}

func parse() options {
	var o options
	flag.StringVar(&o.url, "url", "", "where to post")
	flag.StringVar(&o.ca, "ca", "", "PEM file of the server's authority")
	flag.StringVar(&o.certificate, "certificate", "", "PEM file of a client certificate")
	flag.StringVar(&o.key, "key", "", "PEM file of its key")
	flag.StringVar(&o.body, "body", "", "file with what is posted; %d in it is a number, another in each request, where -number is given")
	flag.IntVar(&o.number, "number", 0, "the first number; 0: the body is posted as it is")
	flag.StringVar(&o.contains, "contains", "", "what each answer must hold")
	flag.IntVar(&o.status, "status", 200, "the status each answer must have")
	flag.IntVar(&o.clients, "clients", 1, "how many ask at once")
	flag.IntVar(&o.count, "count", 0, "after how many requests to end; 0: no such end")
	flag.Float64Var(&o.seconds, "seconds", 0, "after how long to end; 0: no such end")
	flag.Parse()
	return o
}

func (o options) transport() (*http.Transport, error) {
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	pool.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}}
	if o.certificate != "" {
		pair, err := tls.LoadX509KeyPair(o.certificate, o.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 1, DisableCompression: true}, nil
}

// connect makes a client with a connection of its own. The first answer is not counted, as it has the handshake.
func (o options) connect(body []byte) (*http.Client, error) {
	transport, err := o.transport()
	if err != nil {
		return nil, err
	}
	ours := &http.Client{Transport: transport, Timeout: 60 * time.Second}
	if o.number == 0 {
		_, err = o.ask(ours, body)
	}
	return ours, err
}

// keepAsking asks until told to stop.
func (o options) keepAsking(ctx context.Context, ours *http.Client, body []byte, budget, number *atomic.Int64) ([]time.Duration, error) {
	var taken []time.Duration
	for ctx.Err() == nil && (o.count == 0 || budget.Add(-1) >= 0) {
		now := body
		if o.number > 0 {
			now = bytes.ReplaceAll(body, []byte("%d"), fmt.Appendf(nil, "%d", number.Add(1)-1))
		}
		spent, err := o.ask(ours, now)
		if err != nil {
			return nil, err
		}
		taken = append(taken, spent)
	}
	return taken, nil
}

func (o options) ask(client *http.Client, body []byte) (time.Duration, error) {
	request, err := http.NewRequest(http.MethodPost, o.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	begun := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	answer, err := io.ReadAll(response.Body)
	spent := time.Since(begun)
	_ = response.Body.Close()
	if err != nil {
		return 0, err
	}
	if response.StatusCode != o.status || !bytes.Contains(answer, []byte(o.contains)) {
		return 0, fmt.Errorf("status %d where %d with %q was expected: %.600s", response.StatusCode, o.status, o.contains, answer)
	}
	return spent, nil
}

func (o options) run() (result, error) {
	if o.count == 0 && o.seconds == 0 {
		return result{}, errors.New("say -count or -seconds")
	}
	body, err := os.ReadFile(o.body)
	if err != nil {
		return result{}, err
	}
	var (
		budget, number atomic.Int64
		all            []time.Duration
		failed         error
		lock           sync.Mutex
		group          sync.WaitGroup
	)
	clients := make([]*http.Client, o.clients)
	for i := range clients {
		if clients[i], err = o.connect(body); err != nil {
			return result{}, err
		}
		defer clients[i].CloseIdleConnections()
	}
	budget.Store(int64(o.count))
	number.Store(int64(o.number))
	ctx := context.Background()
	if o.seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.seconds*float64(time.Second)))
		defer cancel()
	}
	begun := time.Now()
	for _, ours := range clients {
		group.Go(func() {
			taken, err := o.keepAsking(ctx, ours, body, &budget, &number)
			lock.Lock()
			defer lock.Unlock()
			all = append(all, taken...)
			if err != nil {
				failed = err
			}
		})
	}
	group.Wait()
	if failed != nil {
		return result{}, failed
	}
	if len(all) == 0 {
		return result{}, fmt.Errorf("no answer within %g seconds", o.seconds)
	}
	return summary(all, time.Since(begun).Seconds()), nil
}

// summary has latencies in milliseconds.
func summary(all []time.Duration, seconds float64) result {
	slices.Sort(all)
	var sum time.Duration
	for _, one := range all {
		sum += one
	}
	milliseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	at := func(share float64) float64 { return milliseconds(all[int(share*float64(len(all)-1))]) }
	return result{
		Count: len(all), Seconds: seconds, PerSecond: float64(len(all)) / seconds,
		Mean: milliseconds(sum) / float64(len(all)), P50: at(0.5), P95: at(0.95), P99: at(0.99), Max: at(1),
	}
}

func main() {
	found, err := parse().run()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}
