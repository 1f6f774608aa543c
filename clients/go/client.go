// Package pawl is a client of pawld: numbers that never repeat, work that one process holds, leases, commands.
//
//	client, err := pawl.Connect(ctx, nil)
//	defer client.Close()
//	number, err := client.Next(ctx, "FR")
//	err = client.Lock(ctx, "deploy", nil, func(ctx context.Context, lease *pawl.Held) error {
//		return deploy(ctx, lease.FencingToken)
//	})
//	err = client.Work(ctx, "mail", nil, func(ctx context.Context, work *pawl.Work) (any, error) {
//		return nil, send(ctx, work.Payloads)
//	})
//
// The context of a function is done when what it holds is lost. Calls that may be repeated are, over restarts of the
// daemon; the others fail with *ConnectionLostError.
package pawl

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"syscall"
	"time"
)

// Options say how to connect. The zero value goes by the rule of `pawl socket-path`.
type Options struct {
	// Socket is the path of the daemon's socket.
	Socket string
	// Instance says which daemon of this user, when there is no Socket; otherwise $PAWL_INSTANCE or "default".
	Instance string
	// Reconnect is for how long a call waits for a daemon that went away; 30 s by default.
	Reconnect time.Duration
}

// Client is a connection to a daemon. Its methods may be called by any number of goroutines.
type Client struct {
	conn      *conn
	mu        sync.Mutex
	receivers map[string]*receiver
}

// Connect connects at the first place where a daemon answers. It fails with ErrConnectionLost when none does.
func Connect(ctx context.Context, options *Options) (*Client, error) {
	o := valueOf(options)
	if o.Reconnect == 0 {
		o.Reconnect = 30 * time.Second
	}
	paths := []string{o.Socket}
	if o.Socket == "" {
		var err error
		if paths, err = SocketPaths(o.Instance); err != nil {
			return nil, err
		}
	}
	var failure error
	for _, path := range paths {
		if len(path) > maxSocketPathBytes {
			return nil, refuse("invalid_params", "The socket path %s has %d bytes; the kernel takes at most %d.", path, len(path), maxSocketPathBytes)
		}
		c := &Client{receivers: map[string]*receiver{}}
		c.conn = newConn(path, o.Reconnect, c.execute)
		err := c.conn.open()
		for giveUp := time.Now().Add(o.Reconnect); errors.Is(err, syscall.EAGAIN) && time.Now().Before(giveUp); err = c.conn.open() {
			if !pauseFor(ctx, 20*time.Millisecond) { // More come at once than the kernel queues.
				return nil, ctx.Err()
			}
		}
		if err == nil {
			return c, nil
		}
		failure = err
		if !nobodyListens(err) {
			break
		}
	}
	return nil, &ConnectionLostError{Message: "No daemon can be reached: " + failure.Error() + ". Start one with pawld."}
}

// Close closes for good: what ends with the connection ends.
func (c *Client) Close() { c.conn.close() }

// Call calls any method; docs/protocol.md and rpc.discover have them. Params are a struct or a map, or nil; result is a
// pointer that the result is decoded into, or nil. It fails with *Error, *ConnectionLostError or the error of ctx: nobody
// knows then whether it took effect, but a wait is ended, and what is granted later is given back.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	raw, err := c.conn.call(ctx, method, params)
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal(raw, result)
}

// On has a function called with the params of each notification, one after the other, until stop is called.
func (c *Client) On(notification string, listener func(params json.RawMessage)) (stop func()) {
	last := make(chan struct{})
	close(last)
	return c.conn.on(notification, func(params json.RawMessage) {
		before, told := last, make(chan struct{})
		last = told
		go func() {
			<-before
			listener(params)
			close(told)
		}()
	})
}

// Next gives the next number of a type. NextOnce can be repeated.
func (c *Client) Next(ctx context.Context, kind string) (number NumberedID, err error) {
	err = c.Call(ctx, "sequence.next", map[string]any{"type": kind}, &number)
	return
}

// NextOnce gives the same number for the same requestID, and so is repeated over a restart of the daemon.
func (c *Client) NextOnce(ctx context.Context, kind, requestID string) (number NumberedID, err error) {
	err = c.Call(ctx, "sequence.next", map[string]any{"type": kind, "requestId": requestID}, &number)
	return
}

// Enqueue enqueues one batch. Further params are those of queue.enqueue as they travel, or nil: sourceKey, delayMs ...
func (c *Client) Enqueue(ctx context.Context, queue string, payloads []any, params map[string]any) (enqueued QueueEnqueueResult, err error) {
	err = c.Call(ctx, "queue.enqueue", merged(map[string]any{"queue": queue, "payloads": payloads}, params), &enqueued)
	return
}

// WaitFor gives the batch once it is final, or as it is when the time is over.
func (c *Client) WaitFor(ctx context.Context, batchID string, wait time.Duration) (Batch, error) {
	var got struct{ Batch Batch }
	err := c.Call(ctx, "queue.wait", map[string]any{"batchId": batchID, "waitMs": wait.Milliseconds()}, &got)
	return got.Batch, err
}

// TransactCall is one call of a transaction.
type TransactCall struct {
	Method string `json:"method"`
	Params any    `json:"params,omitempty"`
}

// Transact performs several calls in one transaction, all or none, and gives the result of each. Guards may be nil.
func (c *Client) Transact(ctx context.Context, calls []TransactCall, guards []any) ([]json.RawMessage, error) {
	params := map[string]any{"calls": calls}
	if guards != nil {
		params["guards"] = guards
	}
	var done struct{ Results []json.RawMessage }
	err := c.Call(ctx, "transact", params, &done)
	return done.Results, err
}

// Event is what happened. Of kind "gap": some may be missing, so list anew what you follow.
type Event struct {
	Cursor json.RawMessage `json:"cursor"`
	At     int64           `json:"at"`
	Topic  string          `json:"topic"`
	Kind   string          `json:"kind"`
	ID     string          `json:"id"`
	// Raw has all of it, as it travels.
	Raw json.RawMessage `json:"-"`
}

// Events follows what happens, from when it was made.
type Events struct {
	client *Client
	topics []string
	since  json.RawMessage
	ready  []Event
}

// Events follows topics, such as "queue:mail" or "*", from now on.
func (c *Client) Events(ctx context.Context, topics ...string) (*Events, error) {
	if len(topics) == 0 {
		topics = []string{"*"}
	}
	e := &Events{client: c, topics: topics}
	return e, e.ask(ctx)
}

// Next gives the next event, and waits for it.
func (e *Events) Next(ctx context.Context) (Event, error) {
	for len(e.ready) == 0 {
		if err := e.ask(ctx); err != nil {
			return Event{}, err
		}
	}
	event := e.ready[0]
	e.ready = e.ready[1:]
	return event, nil
}

func (e *Events) ask(ctx context.Context) error {
	params := map[string]any{"topics": e.topics}
	if e.since != nil {
		params["since"], params["waitMs"] = e.since, askWait.Milliseconds()
	}
	var told struct {
		Events []json.RawMessage
		Cursor json.RawMessage
		Gap    bool
	}
	if err := e.client.Call(ctx, "events.watch", params, &told); err != nil {
		return err
	}
	e.since = told.Cursor
	if told.Gap {
		e.ready = append(e.ready, Event{Kind: "gap", Cursor: told.Cursor})
	}
	for _, raw := range told.Events {
		event := Event{Raw: raw}
		if err := json.Unmarshal(raw, &event); err != nil {
			return err
		}
		e.ready = append(e.ready, event)
	}
	return nil
}

// valueOf gives the options, or their zero value.
func valueOf[T any](options *T) (value T) {
	if options != nil {
		value = *options
	}
	return
}

// merged adds the entries of the later maps to the first.
func merged(params map[string]any, more ...map[string]any) map[string]any {
	for _, each := range more {
		for name, value := range each {
			params[name] = value
		}
	}
	return params
}

// pauseFor is false if ctx is done before the time is over.
func pauseFor(ctx context.Context, pause time.Duration) bool {
	select {
	case <-time.After(pause):
		return true
	case <-ctx.Done():
		return false
	}
}
