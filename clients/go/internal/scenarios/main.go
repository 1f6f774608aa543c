// The program that the tests of this client run: scenarios SCENARIO SOCKET ... It speaks in lines of JSON, as
// clients/python/test/scenarios.py does.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	pawl "pawl.example/clients/go"
)

const atATime = 16

type fields map[string]any

var output sync.Mutex

func say(what fields) {
	text, err := json.Marshal(what)
	if err != nil {
		log.Fatal(err)
	}
	output.Lock()
	defer output.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

// said is an error as the tests look at it.
func said(err error) fields {
	var refusal *pawl.Error
	var lost *pawl.ConnectionLostError
	if errors.As(err, &refusal) {
		return fields{"class": fmt.Sprintf("%T", err), "kind": refusal.Kind}
	}
	if errors.As(err, &lost) {
		return fields{"class": "ConnectionLostError", "kind": nil, "mayHaveTakenEffect": lost.MayHaveTakenEffect}
	}
	return fields{"class": fmt.Sprintf("%T", err), "kind": nil, "message": err.Error()}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	scenario, args := os.Args[1], os.Args[2:]
	if scenario == "paths" {
		paths, err := pawl.SocketPaths("")
		if err != nil {
			say(fields{"error": said(err)})
		} else {
			say(fields{"paths": paths})
		}
		return
	}
	client, err := pawl.Connect(ctx, &pawl.Options{Socket: args[0], Reconnect: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	run := map[string]func(context.Context, *pawl.Client, []string) error{
		"numbers": numbers, "calls": calls, "work": work, "lock": lock, "reserve": reserve, "serve": serve, "events": events,
	}[scenario]
	if err := run(ctx, client, args[1:]); err != nil {
		log.Fatal(err)
	}
}

func numbers(ctx context.Context, client *pawl.Client, args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	taken := make([]int64, count)
	indexes := make(chan int)
	var takers sync.WaitGroup
	for i := 0; i < atATime; i++ {
		takers.Add(1)
		go func() {
			defer takers.Done()
			for index := range indexes {
				number, err := client.Next(ctx, args[0])
				if err != nil {
					log.Fatal(err)
				}
				taken[index] = number.Seq
			}
		}()
	}
	for index := range taken {
		indexes <- index
	}
	close(indexes)
	takers.Wait()
	say(fields{"numbers": taken})
	return nil
}

func calls(ctx context.Context, client *pawl.Client, _ []string) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked struct {
			ID     string
			Method string
			Params json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		go func() {
			var result json.RawMessage
			if err := client.Call(ctx, asked.Method, asked.Params, &result); err != nil {
				say(fields{"id": asked.ID, "error": said(err)})
			} else {
				say(fields{"id": asked.ID, "result": result})
			}
		}()
	}
	return lines.Err()
}

type task struct {
	Name  string
	Fail  *string
	Until string
	Odd   bool
}

func taskOf(work *pawl.Work) (t task) {
	if err := json.Unmarshal(work.Payloads[0], &t); err != nil {
		log.Fatal(err)
	}
	return t
}

func work(ctx context.Context, client *pawl.Client, args []string) error {
	handler := func(ctx context.Context, work *pawl.Work) (any, error) {
		t := taskOf(work)
		say(fields{"begun": t.Name})
		if t.Fail != nil {
			return nil, errors.New(*t.Fail)
		}
		if t.Odd {
			return func() {}, nil // No JSON.
		}
		for t.Until != "" {
			if _, err := os.Stat(t.Until); err == nil {
				break
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				say(fields{"stopped": t.Name, "kind": said(work.Lost())["kind"]})
				return nil, ctx.Err()
			}
		}
		return nil, nil
	}
	options := &pawl.WorkOptions{
		Lease:      milliseconds(args[1]),
		OnComplete: func(work *pawl.Work) { say(fields{"completed": taskOf(work).Name}) },
		OnError:    func(err error) { say(fields{"error": said(err)}) },
	}
	say(fields{"ready": true})
	if err := client.Work(ctx, args[0], options, handler); err != nil {
		return err
	}
	say(fields{"ended": true})
	return nil
}

func milliseconds(text string) time.Duration {
	number, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return time.Duration(number) * time.Millisecond
}

func lock(ctx context.Context, client *pawl.Client, args []string) error {
	o := &pawl.LockOptions{TTL: milliseconds(args[1]), Wait: time.Minute}
	return ended(client.Lock(ctx, args[0], o, hold))
}

func reserve(ctx context.Context, client *pawl.Client, args []string) error {
	o := &pawl.LockOptions{TTL: milliseconds(args[1]), Wait: time.Minute}
	return ended(client.Reserve(ctx, args[0], []string{"src/**"}, o, hold))
}

// hold holds until a line comes, or until it is told of a loss.
func hold(ctx context.Context, held *pawl.Held) error {
	say(fields{"held": held.FencingToken})
	line := make(chan bool, 1)
	go func() { line <- bufio.NewScanner(os.Stdin).Scan() }()
	select {
	case <-line:
	case <-ctx.Done():
		say(fields{"told": said(held.Lost())["kind"]})
	}
	return nil
}

func ended(err error) error {
	if errors.Is(err, pawl.ErrLeaseLost) {
		say(fields{"lost": said(err)})
		return nil
	}
	say(fields{"released": true})
	return err
}

func serve(ctx context.Context, client *pawl.Client, args []string) error {
	ctx, stop := context.WithCancel(ctx)
	go func() {
		bufio.NewScanner(os.Stdin).Scan()
		stop()
	}()
	handlers := map[string]pawl.CommandHandler{
		"echo": func(_ context.Context, e *pawl.Envelope) (any, error) { return e.Params, nil },
		"fail": func(_ context.Context, e *pawl.Envelope) (any, error) {
			return nil, &pawl.CommandError{Code: "E_TOLD", Message: "as told", Details: fields{"by": e.Params}}
		},
		"long": func(_ context.Context, e *pawl.Envelope) (any, error) {
			size, err := strconv.Atoi(string(e.Params))
			return strings.Repeat("x", size), err
		},
		"hang": func(_ context.Context, e *pawl.Envelope) (any, error) {
			say(fields{"begun": e.CommandID})
			time.Sleep(200 * time.Millisecond)
			return "late", nil
		},
	}
	say(fields{"ready": true})
	if err := client.Serve(ctx, args[0], nil, handlers); err != nil {
		return err
	}
	say(fields{"ended": true})
	return nil
}

func events(ctx context.Context, client *pawl.Client, args []string) error {
	following, err := client.Events(ctx, args[0])
	if err != nil {
		return err
	}
	say(fields{"ready": true})
	for {
		event, err := following.Next(ctx)
		if err != nil {
			return err
		}
		what := fields{"event": event.Kind}
		if event.ID != "" {
			what["id"] = event.ID
		}
		say(what)
	}
}
