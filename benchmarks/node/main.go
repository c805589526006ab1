// A JSON-RPC node that is never the limit: a recorded or made-up EVM chain, served from memory. Standard library only.
//
//	go build -o node *.go
//	node -recording FILE                           the chain of a recording
//	node -blocks N -logs N -tokens N -holders N    a made-up chain: small blocks whose blooms and links are right
//	     -latency-ms N -requests-per-second N -range-max N -results-max N -batch-max N     as a remote endpoint is
//
// It prints its port, then serves until it is ended. GET / tells what was served since it was last asked; GET /truth
// what an indexer of every Transfer must have found on a made-up chain.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const requestBytesMax = 16 << 20

// limits are those of a remote endpoint; 0 is none.
type limits struct {
	latency           time.Duration
	requestsPerSecond float64
	rangeMax          int
	resultsMax        int
	batchMax          int
}

// served counts since it was last asked for.
type served struct {
	mutex    sync.Mutex
	Requests int            `json:"requests"`
	Bytes    int            `json:"bytes"`
	Calls    int            `json:"calls"`
	Logs     int            `json:"logs"`
	Refused  map[string]int `json:"refused"`
	Methods  map[string]int `json:"methods"`
	Ranges   []span         `json:"ranges"`
	Batches  []int          `json:"batches"`
}

// span is one answered or refused eth_getLogs: how many blocks, and whether it was within the limits.
type span struct {
	Blocks int  `json:"blocks"`
	Ok     bool `json:"ok"`
}

func (s *served) take() []byte {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	text, _ := json.Marshal(s)
	s.Requests, s.Bytes, s.Calls, s.Logs = 0, 0, 0, 0
	s.Refused, s.Methods, s.Ranges, s.Batches = map[string]int{}, map[string]int{}, nil, nil
	return text
}

func (s *served) refuse(why string) {
	s.mutex.Lock()
	s.Refused[why]++
	s.mutex.Unlock()
}

// bucket admits so many requests a second, with a burst of a tenth of a second's worth.
type bucket struct {
	mutex sync.Mutex
	rate  float64
	level float64
	at    time.Time
}

func (b *bucket) admits() bool {
	if b.rate <= 0 {
		return true
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	now := time.Now()
	b.level = min(max(1, b.rate/10), b.level+now.Sub(b.at).Seconds()*b.rate)
	b.at = now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

type server struct {
	chain   chain
	limits  limits
	served  *served
	bucket  *bucket
	buffers sync.Pool
	filters sync.Map
	filter  atomic.Int64
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		if r.URL.Path == "/truth" {
			w.Write(s.chain.truth())
			return
		}
		w.Write(s.served.take())
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, requestBytesMax))
	if err != nil {
		http.Error(w, "the request is too large", http.StatusRequestEntityTooLarge)
		return
	}
	if s.limits.latency > 0 {
		time.Sleep(s.limits.latency)
	}
	if !s.bucket.admits() {
		s.served.refuse("rate")
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return
	}
	buffer := s.buffers.Get().(*[]byte)
	answer := s.answer(body, (*buffer)[:0])
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.Write(answer)
	s.served.mutex.Lock()
	s.served.Requests++
	s.served.Bytes += len(answer)
	s.served.mutex.Unlock()
	*buffer = answer
	s.buffers.Put(buffer)
}

func main() {
	recording := flag.String("recording", "", "JSON Lines as gapless.sources.evm.recording reads them")
	blocks := flag.Int("blocks", 1000, "of the made-up chain, block 0 included")
	logs := flag.Int("logs", 100, "Transfer events in each made-up block but the first")
	tokens := flag.Int("tokens", 2, "contracts that emit them")
	holders := flag.Int("holders", 5000, "addresses they move between")
	latency := flag.Float64("latency-ms", 0, "before each answer")
	rate := flag.Float64("requests-per-second", 0, "more are answered with 429")
	rangeMax := flag.Int("range-max", 0, "blocks of one eth_getLogs")
	resultsMax := flag.Int("results-max", 0, "logs of one eth_getLogs")
	batchMax := flag.Int("batch-max", 0, "calls of one request")
	flag.Parse()
	var served chain
	if *recording != "" {
		recorded, err := load(*recording)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		served = recorded
	} else {
		served = invent(*blocks, *logs, *tokens, *holders)
	}
	s := &server{
		chain:   served,
		limits:  limits{time.Duration(*latency * float64(time.Millisecond)), *rate, *rangeMax, *resultsMax, *batchMax},
		served:  newServed(),
		bucket:  &bucket{rate: *rate, at: time.Now()},
		buffers: sync.Pool{New: func() any { b := make([]byte, 0, 1<<16); return &b }},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	http.Serve(listener, s)
}

func newServed() *served {
	return &served{Refused: map[string]int{}, Methods: map[string]int{}}
}
