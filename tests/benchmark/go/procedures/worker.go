// A worker in Go, based only on nats.go and go-mssqldb, to compare costs. It calls the procedure
// fjord_test.first_articles and replies with its rows in JSON: with the first row on the subject
// bench.procedures.row, and with an array on bench.procedures.rows. As in fjord's worker, each
// call has a time limit, and the driver resets the connection with a flag in the first packet of
// the next request. There are no logs, metrics, limits or guarantees for lost messages.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	_ "github.com/microsoft/go-mssqldb"
	"github.com/nats-io/nats.go"
)

const (
	subject   = "bench.procedures."
	procedure = "fjord_test.first_articles"
	timeout   = 10 * time.Second
)

type request struct {
	Count int64 `json:"count"`
}

// appendValue appends a column's value as JSON. A decimal is returned as text by the driver.
func appendValue(answer []byte, value any) ([]byte, error) {
	switch value := value.(type) {
	case nil:
		return append(answer, "null"...), nil
	case int64:
		return strconv.AppendInt(answer, value, 10), nil
	case []byte:
		return append(answer, value...), nil
	case time.Time:
		answer = append(answer, '"')
		return append(value.AppendFormat(answer, time.RFC3339Nano), '"'), nil
	default:
		text, err := json.Marshal(value)
		return append(answer, text...), err
	}
}

func rows(database *sql.DB, payload []byte, isRow bool) ([]byte, error) {
	var given request
	if err := json.Unmarshal(payload, &given); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	found, err := database.QueryContext(limited, procedure, sql.Named("count", given.Count))
	if err != nil {
		return nil, err
	}
	defer found.Close()
	columns, err := found.Columns()
	if err != nil {
		return nil, err
	}
	values, targets := make([]any, len(columns)), make([]any, len(columns))
	names := make([][]byte, len(columns))
	for i, column := range columns {
		targets[i] = &values[i]
		if names[i], err = json.Marshal(column); err != nil {
			return nil, err
		}
	}
	var answer []byte
	count := 0
	for ; found.Next(); count++ {
		if err := found.Scan(targets...); err != nil {
			return nil, err
		}
		if count > 0 {
			answer = append(answer, ',')
		} else if !isRow {
			answer = append(answer, '[')
		}
		for i, value := range values {
			separator := byte(',')
			if i == 0 {
				separator = '{'
			}
			answer = append(append(append(answer, separator), names[i]...), ':')
			if answer, err = appendValue(answer, value); err != nil {
				return nil, err
			}
		}
		answer = append(answer, '}')
	}
	if isRow && count != 1 {
		return nil, errors.New("not one row")
	}
	if !isRow {
		if count == 0 {
			answer = append(answer, '[')
		}
		answer = append(answer, ']')
	}
	return answer, found.Err()
}

// Usage: procedures URL CA CONNECTIONS, with the connection string of the database in
// FJORD_BENCH_DATABASE.
func main() {
	fmt.Println("version", runtime.Version(), "nats.go", nats.Version)
	if len(os.Args) != 4 {
		panic("URL CA CONNECTIONS")
	}
	connections, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	database, err := sql.Open("sqlserver", os.Getenv("FJORD_BENCH_DATABASE"))
	if err != nil {
		panic(err)
	}
	database.SetMaxOpenConns(connections)
	database.SetMaxIdleConns(connections)
	connection, err := nats.Connect(os.Args[1], nats.Secure(), nats.RootCAs(os.Args[2]))
	if err != nil {
		panic(err)
	}
	for _, kind := range []string{"row", "rows"} {
		isRow := kind == "row"
		_, err := connection.QueueSubscribe(subject+kind, "bench", func(message *nats.Msg) {
			go func() {
				answer, err := rows(database, message.Data, isRow)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				if err := message.Respond(answer); err != nil {
					panic(err)
				}
			}()
		})
		if err != nil {
			panic(err)
		}
	}
	if err := connection.Flush(); err != nil {
		panic(err)
	}
	fmt.Println("listening")
	select {}
}
