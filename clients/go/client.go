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
	o := Options{}
	if options != nil {
		o = *options
	}
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
		conn := newConn(path, o.Reconnect)
		err := conn.open()
		for giveUp := time.Now().Add(o.Reconnect); errors.Is(err, syscall.EAGAIN) && time.Now().Before(giveUp); err = conn.open() {
			select { // More come at once than the kernel queues.
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if err == nil {
			c := &Client{conn: conn, receivers: map[string]*receiver{}}
			conn.mu.Lock()
			conn.handlers["command.execute"] = c.execute
			conn.mu.Unlock()
			return c, nil
		}
		if failure == nil || !nobodyListens(err) {
			failure = err
		}
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
	var mu sync.Mutex
	var told []json.RawMessage
	running := false
	return c.conn.on(notification, func(params json.RawMessage) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, params)
		if running {
			return
		}
		running = true
		go func() {
			for {
				mu.Lock()
				if len(told) == 0 {
					running = false
					mu.Unlock()
					return
				}
				first := told[0]
				told = told[1:]
				mu.Unlock()
				listener(first)
			}
		}()
	})
}

// Number is one that no other caller has.
type Number struct {
	Type string `json:"type"`
	Seq  int64  `json:"seq"`
	ID   string `json:"id"`
}

// Next gives the next number of a type. NextOnce can be repeated.
func (c *Client) Next(ctx context.Context, kind string) (number Number, err error) {
	err = c.Call(ctx, "sequence.next", map[string]any{"type": kind}, &number)
	return
}

// NextOnce gives the same number for the same requestID, and so is repeated over a restart of the daemon.
func (c *Client) NextOnce(ctx context.Context, kind, requestID string) (number Number, err error) {
	err = c.Call(ctx, "sequence.next", map[string]any{"type": kind, "requestId": requestID}, &number)
	return
}

// Block is a contiguous block of numbers.
type Block struct {
	Type    string `json:"type"`
	First   int64  `json:"first"`
	Last    int64  `json:"last"`
	FirstID string `json:"firstId"`
	LastID  string `json:"lastId"`
}

// NextBlock gives as many numbers in one piece.
func (c *Client) NextBlock(ctx context.Context, kind string, count int) (block Block, err error) {
	err = c.Call(ctx, "sequence.reserve", map[string]any{"type": kind, "count": count}, &block)
	return
}

// Batch is a batch of work. Times are milliseconds since the epoch.
type Batch struct {
	BatchID     string            `json:"batchId"`
	Queue       string            `json:"queue"`
	EnqueueSeq  int64             `json:"enqueueSeq"`
	Payloads    []json.RawMessage `json:"payloads"`
	Priority    int               `json:"priority"`
	Key         *string           `json:"key"`
	SourceKey   *string           `json:"sourceKey"`
	State       string            `json:"state"`
	Attempt     int               `json:"attempt"`
	MaxAttempts int               `json:"maxAttempts"`
	EnqueuedAt  int64             `json:"enqueuedAt"`
	AvailableAt int64             `json:"availableAt"`
	Checkpoint  json.RawMessage   `json:"checkpoint"`
	Result      json.RawMessage   `json:"result"`
	LastError   *string           `json:"lastError"`
}

// Enqueued is a batch that was enqueued, or that was there before under its source key.
type Enqueued struct {
	Batch   Batch  `json:"batch"`
	Created bool   `json:"created"`
	Outcome string `json:"outcome"`
}

// Enqueue enqueues one batch. Further params are those of queue.enqueue as they travel, or nil: sourceKey, delayMs ...
func (c *Client) Enqueue(ctx context.Context, queue string, payloads []any, params map[string]any) (enqueued Enqueued, err error) {
	all := map[string]any{"queue": queue, "payloads": payloads}
	for name, value := range params {
		all[name] = value
	}
	err = c.Call(ctx, "queue.enqueue", all, &enqueued)
	return
}

// Batch gives a batch as it is.
func (c *Client) Batch(ctx context.Context, batchID string) (Batch, error) {
	var got struct{ Batch Batch }
	err := c.Call(ctx, "queue.get", map[string]any{"batchId": batchID}, &got)
	return got.Batch, err
}

// WaitFor gives the batch once it is final, or as it is when the time is over.
func (c *Client) WaitFor(ctx context.Context, batchID string, wait time.Duration) (Batch, error) {
	var got struct{ Batch Batch }
	err := c.Call(ctx, "queue.wait", map[string]any{"batchId": batchID, "waitMs": wait.Milliseconds()}, &got)
	return got.Batch, err
}

// Claim is batches that this process holds.
type Claim struct {
	ClaimID      string                     `json:"claimId"`
	LeaseToken   string                     `json:"leaseToken"`
	FencingToken int64                      `json:"fencingToken"`
	Queue        string                     `json:"queue"`
	Owner        string                     `json:"owner"`
	ClaimedAt    int64                      `json:"claimedAt"`
	ExpiresAt    int64                      `json:"expiresAt"`
	RemainingMs  int64                      `json:"remainingMs"`
	Batches      []Batch                    `json:"batches"`
	Parents      map[string]json.RawMessage `json:"parents"`
}

// Lease is a name that this process holds.
type Lease struct {
	Name         string   `json:"name"`
	LeaseID      string   `json:"leaseId"`
	FencingToken int64    `json:"fencingToken"`
	Owner        string   `json:"owner"`
	Mode         string   `json:"mode"`
	Slots        int      `json:"slots"`
	Members      []string `json:"members"`
	AcquiredAt   int64    `json:"acquiredAt"`
	ExpiresAt    int64    `json:"expiresAt"`
	RemainingMs  int64    `json:"remainingMs"`
}

// Reservation is files that this process has to itself.
type Reservation struct {
	ReservationID string   `json:"reservationId"`
	Root          string   `json:"root"`
	Patterns      []string `json:"patterns"`
	Mode          string   `json:"mode"`
	FencingToken  int64    `json:"fencingToken"`
	ExpiresAt     int64    `json:"expiresAt"`
	RemainingMs   int64    `json:"remainingMs"`
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

// Answer is that to a command.
type Answer struct {
	// Status is "success" or "error".
	Status   string          `json:"status"`
	Response json.RawMessage `json:"response"`
	Code     string          `json:"code"`
	Message  string          `json:"message"`
	Details  json.RawMessage `json:"details"`
}

// Send sends a command and waits for its answer, which is nil if none came in time. Further params are those of
// command.create as they travel, or nil: idempotencyKey, ttlMs, target ...
func (c *Client) Send(ctx context.Context, deployment, command string, body any, wait time.Duration, params map[string]any) (commandID string, answer *Answer, err error) {
	all := map[string]any{"deployment": deployment, "command": command, "params": body}
	for name, value := range params {
		all[name] = value
	}
	var created struct{ CommandID string }
	if err = c.Call(ctx, "command.create", all, &created); err != nil || wait <= 0 {
		return created.CommandID, nil, err
	}
	id := map[string]any{"commandId": created.CommandID}
	if err = c.Call(ctx, "command.wait", map[string]any{"commandId": created.CommandID, "waitMs": wait.Milliseconds()}, nil); err != nil {
		return created.CommandID, nil, err
	}
	var answered struct{ Response *Answer }
	err = c.Call(ctx, "command.response", id, &answered)
	return created.CommandID, answered.Response, err
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
