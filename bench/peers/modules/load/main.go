// Command load posts one body over and over from a number of clients, for a time or a count, and prints a line of
// JSON: how many answers came, what they were, and how long they took. Every answer is looked at: one that is not
// as expected ends the run with an error, so that no figure is ever about failures.
//
// Given something to compare with, it posts both in turns of a fraction of a second, first the one and then the other
// and the next time the other way round, over the same connections: whatever else the machine does hits both.
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
	Without   *result `json:"without,omitempty"`
}

// side is one of two things that are posted in turns, and what each answer to it must be.
type side struct {
	url, file, contains string
	status              int
	body                []byte
}

type options struct {
	measured, against      side
	ca, certificate, key   string
	clients, count, number int
	seconds, turn          float64
}

func parse() options {
	var o options
	flag.StringVar(&o.measured.url, "url", "", "where to post")
	flag.StringVar(&o.ca, "ca", "", "PEM file of the server's authority")
	flag.StringVar(&o.certificate, "certificate", "", "PEM file of a client certificate")
	flag.StringVar(&o.key, "key", "", "PEM file of its key")
	flag.StringVar(&o.measured.file, "body", "", "file with what is posted; %d in it is a number, another in each request, where -number is given")
	flag.IntVar(&o.number, "number", 0, "the first number; 0: the body is posted as it is")
	flag.StringVar(&o.measured.contains, "contains", "", "what each answer must hold")
	flag.IntVar(&o.measured.status, "status", 200, "the status each answer must have")
	flag.StringVar(&o.against.url, "against", "", "where to post in turns with it, to compare; needs -seconds")
	flag.StringVar(&o.against.file, "against-body", "", "file with what is posted there")
	flag.StringVar(&o.against.contains, "against-contains", "", "what each answer to that must hold")
	flag.IntVar(&o.against.status, "against-status", 201, "the status that each answer to that must have")
	flag.Float64Var(&o.turn, "turn", 0.2, "how long a turn takes, in seconds")
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
func (o options) connect() (*http.Client, error) {
	transport, err := o.transport()
	if err != nil {
		return nil, err
	}
	ours := &http.Client{Transport: transport, Timeout: 60 * time.Second}
	if o.number == 0 {
		_, err = o.measured.ask(ours, o.measured.body)
	}
	return ours, err
}

// keepAsking asks until told to stop.
func (o options) keepAsking(ctx context.Context, ours *http.Client, what side, budget, number *atomic.Int64) ([]time.Duration, error) {
	var taken []time.Duration
	for ctx.Err() == nil && (o.count == 0 || budget.Add(-1) >= 0) {
		now := what.body
		if o.number > 0 {
			now = bytes.ReplaceAll(now, []byte("%d"), fmt.Appendf(nil, "%d", number.Add(1)-1))
		}
		spent, err := what.ask(ours, now)
		if err != nil {
			return nil, err
		}
		taken = append(taken, spent)
	}
	return taken, nil
}

func (s side) ask(client *http.Client, body []byte) (time.Duration, error) {
	request, err := http.NewRequest(http.MethodPost, s.url, bytes.NewReader(body))
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
	if response.StatusCode != s.status || !bytes.Contains(answer, []byte(s.contains)) {
		return 0, fmt.Errorf("status %d where %d with %q was expected: %.600s", response.StatusCode, s.status, s.contains, answer)
	}
	return spent, nil
}

// all has every client ask, until the time is over or the budget spent, and ends when the last answer is there.
func (o options) all(clients []*http.Client, what side, seconds float64, budget, number *atomic.Int64) ([]time.Duration, error) {
	ctx := context.Background()
	if seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
		defer cancel()
	}
	var (
		found  []time.Duration
		failed error
		lock   sync.Mutex
		group  sync.WaitGroup
	)
	for _, ours := range clients {
		group.Go(func() {
			taken, err := o.keepAsking(ctx, ours, what, budget, number)
			lock.Lock()
			defer lock.Unlock()
			found = append(found, taken...)
			if err != nil {
				failed = err
			}
		})
	}
	group.Wait()
	return found, failed
}

// inTurns measures both sides, each for half of the time.
func (o options) inTurns(clients []*http.Client, budget, number *atomic.Int64) (result, error) {
	sides := []side{o.measured, o.against}
	found, spent := make([][]time.Duration, 2), make([]float64, 2)
	for turn := 0; spent[0]+spent[1] < o.seconds || turn%4 != 0; turn++ {
		which := (turn + turn/2) % 2 // 0 1 1 0
		begun := time.Now()
		taken, err := o.all(clients, sides[which], o.turn, budget, number)
		if err != nil {
			return result{}, err
		}
		found[which] = append(found[which], taken...)
		spent[which] += time.Since(begun).Seconds()
	}
	measured, without := summary(found[0], spent[0]), summary(found[1], spent[1])
	measured.Without = &without
	return measured, nil
}

func (o *options) read() (err error) {
	if o.count == 0 && o.seconds == 0 {
		return errors.New("say -count or -seconds")
	}
	if o.measured.body, err = os.ReadFile(o.measured.file); err != nil || o.against.url == "" {
		return err
	}
	o.against.body, err = os.ReadFile(o.against.file)
	return err
}

func (o options) run() (result, error) {
	if err := o.read(); err != nil {
		return result{}, err
	}
	var budget, number atomic.Int64
	clients := make([]*http.Client, o.clients)
	for i := range clients {
		ours, err := o.connect()
		if err != nil {
			return result{}, err
		}
		clients[i] = ours
		defer ours.CloseIdleConnections()
	}
	budget.Store(int64(o.count))
	number.Store(int64(o.number))
	if o.against.url != "" {
		return o.inTurns(clients, &budget, &number)
	}
	begun := time.Now()
	found, err := o.all(clients, o.measured, o.seconds, &budget, &number)
	if err != nil {
		return result{}, err
	}
	if len(found) == 0 {
		return result{}, fmt.Errorf("no answer within %g seconds", o.seconds)
	}
	return summary(found, time.Since(begun).Seconds()), nil
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
