// A gateway and a worker in Go, based only on net/http and nats.go, to compare costs. The gateway
// validates one parameter, sends the request to a queue group and forwards the answer. The worker
// answers each message in its own goroutine. There are no logs, metrics or limits, no deadlines
// except one timeout, and no guarantees for lost messages.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	subject = "bench.go"
	path    = "/v1/echo/"
	idMax   = 1024
	timeout = 10 * time.Second
)

type echo struct {
	ID string `json:"id"`
}

func connect(url, ca string) *nats.Conn {
	connection, err := nats.Connect(url, nats.Secure(), nats.RootCAs(ca))
	if err != nil {
		panic(err)
	}
	return connection
}

func work(url, ca string) {
	connection := connect(url, ca)
	_, err := connection.QueueSubscribe(subject, "bench", func(message *nats.Msg) {
		go func() {
			var request echo
			if err := json.Unmarshal(message.Data, &request); err != nil {
				return
			}
			answer, err := json.Marshal(request)
			if err == nil {
				err = message.Respond(answer)
			}
			if err != nil {
				panic(err)
			}
		}()
	})
	if err != nil || connection.Flush() != nil {
		panic("no subscription")
	}
	fmt.Println("listening")
	select {}
}

func serve(url, ca, certificate, key string) {
	connection := connect(url, ca)
	handler := func(w http.ResponseWriter, r *http.Request) {
		id := strings.TrimPrefix(r.URL.Path, path)
		if r.Method != http.MethodGet || id == r.URL.Path || len(id) > idMax {
			http.NotFound(w, r)
			return
		}
		payload, err := json.Marshal(echo{id})
		if err != nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		answer, err := connection.Request(subject, payload, timeout)
		if err != nil {
			http.Error(w, "no answer", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(answer.Data)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("listening", listener.Addr())
	server := http.Server{Handler: http.HandlerFunc(handler)}
	panic(server.ServeTLS(listener, certificate, key))
}

// Usage: peer gateway URL CA CERTIFICATE KEY, or peer worker URL CA.
func main() {
	fmt.Println("version", runtime.Version(), "nats.go", nats.Version)
	switch arguments := os.Args[1:]; {
	case len(arguments) == 5 && arguments[0] == "gateway":
		serve(arguments[1], arguments[2], arguments[3], arguments[4])
	case len(arguments) == 3 && arguments[0] == "worker":
		work(arguments[1], arguments[2])
	default:
		panic("gateway URL CA CERTIFICATE KEY, or worker URL CA")
	}
}
