package pawl

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"math/rand"
	"strings"
	"sync"
	"time"
)

const (
	askWait        = 30 * time.Second
	firstWorkPause = 100 * time.Millisecond
	maxWorkPause   = 5 * time.Second
	maxConcurrency = 256
	maxErrorLength = 16_384
	maxAnswerText  = 4096
)

// Work is the batches of one claim, as a handler gets them.
type Work struct {
	Claim   *Claim
	Batches []Batch
	// Payloads are those of all batches, byte for byte as they were enqueued.
	Payloads []json.RawMessage
	// FencingToken is to be sent along with every write: greater than that of every earlier claim in the queue.
	FencingToken int64

	client *Client
	mu     sync.Mutex
	reason error
}

// Lost gives the reason, an ErrClaimLost, if the claim was lost or cancelled: then the handler's context is done.
func (w *Work) Lost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason
}

// Progress tells how far the work is. A checkpoint that is not nil is given to the next holder.
func (w *Work) Progress(ctx context.Context, percent float64, note string, checkpoint any) error {
	params := map[string]any{"claimId": w.Claim.ClaimID, "leaseToken": w.Claim.LeaseToken, "percent": percent}
	if note != "" {
		params["note"] = note
	}
	if checkpoint != nil {
		params["checkpoint"] = checkpoint
	}
	return w.client.Call(ctx, "queue.progress", params, nil)
}

// WorkOptions say how a queue is worked on. The zero value is one claim at a time, for 30 s.
type WorkOptions struct {
	// Concurrency is how many claims are worked on at a time: 1 to 256.
	Concurrency int
	// Lease is how long a claim outlives the last sign of life.
	Lease time.Duration
	Owner string
	// ReleaseOn is "disconnect" by default: a claim ends the moment that this process does. "expiry": with its lease.
	ReleaseOn string
	// Params are further ones of queue.claim, as they travel: maxBatches, boundary, queues, order.
	Params map[string]any
	// OnComplete is told of work that was completed.
	OnComplete func(*Work)
	// OnError is told of trouble: claims that are lost or cannot be had. By default it is logged.
	OnError func(error)
}

// Handler does the work of a claim. Its result, if not nil, is kept with the batches; an error gives them back.
type Handler func(ctx context.Context, work *Work) (result any, err error)

type worker struct {
	client  *Client
	handler Handler
	options WorkOptions
	params  map[string]any
}

// Work works on a queue until ctx is done: claims, renews, completes when the handler returns, gives back with its error
// otherwise. When ctx is done nothing more is claimed, the handlers that run are waited for, and Work returns nil: a
// handler's own context has the values of ctx and is done only when its claim is lost or cancelled. Work fails when the
// daemon refuses for good to give any.
func (c *Client) Work(ctx context.Context, queue string, options *WorkOptions, handler Handler) error {
	w := &worker{client: c, handler: handler}
	if options != nil {
		w.options = *options
	}
	o := &w.options
	setDefaults(&o.Lease, &o.Owner, &o.ReleaseOn)
	if o.Concurrency == 0 {
		o.Concurrency = 1
	}
	if o.Concurrency < 0 || o.Concurrency > maxConcurrency {
		return refuse("invalid_params", "Concurrency is from 1 to %d, not %d.", maxConcurrency, o.Concurrency)
	}
	if o.OnComplete == nil {
		o.OnComplete = func(*Work) {}
	}
	if o.OnError == nil {
		o.OnError = func(err error) { log.Printf("pawl: %v", err) }
	}
	w.params = map[string]any{
		"queue": queue, "owner": o.Owner, "leaseMs": o.Lease.Milliseconds(), "releaseOn": o.ReleaseOn,
		"waitMs": askWait.Milliseconds(),
	}
	for name, value := range o.Params {
		w.params[name] = value
	}
	if w.params["queues"] != nil {
		delete(w.params, "queue")
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var slots sync.WaitGroup
	refusals := make(chan error, o.Concurrency)
	for i := 0; i < o.Concurrency; i++ {
		slots.Add(1)
		go func() {
			defer slots.Done()
			if err := w.slot(ctx, asking); err != nil {
				refusals <- err
				stop()
			}
		}()
	}
	slots.Wait()
	select {
	case err := <-refusals:
		return err
	default:
		return nil
	}
}

func (w *worker) slot(ctx, asking context.Context) error {
	pause := firstWorkPause
	for asking.Err() == nil {
		asked := time.Now()
		var taken struct{ Claim *Claim }
		err := w.client.Call(asking, "queue.claim", w.params, &taken)
		if err == nil {
			pause = firstWorkPause
			if taken.Claim != nil {
				w.perform(ctx, taken.Claim, asked)
			}
			continue
		}
		if asking.Err() != nil {
			return nil
		}
		var lost *ConnectionLostError
		select {
		case <-w.client.conn.closed:
			return err
		default:
		}
		if isForGood(err) {
			return err
		}
		// A daemon that was started again is no news.
		if !errors.As(err, &lost) || !lost.MayHaveTakenEffect {
			w.options.OnError(err)
		}
		select {
		case <-time.After(time.Duration(float64(pause) * (0.5 + rand.Float64()/2))):
		case <-asking.Done():
		}
		if pause *= 2; pause > maxWorkPause {
			pause = maxWorkPause
		}
	}
	return nil
}

// isForGood is true for a refusal that stays the same however often one asks.
func isForGood(err error) bool {
	var refusal *Error
	if !errors.As(err, &refusal) {
		return false
	}
	switch refusal.Kind {
	case "invalid_request", "invalid_params", "method_not_found", "read_only", "forbidden", "exhausted":
		return true
	}
	return false
}

// detached has the values of a context and never ends.
type detached struct{ context.Context }

func (detached) Deadline() (time.Time, bool) { return time.Time{}, false }
func (detached) Done() <-chan struct{}       { return nil }
func (detached) Err() error                  { return nil }

type proofOfClaim struct {
	ClaimID    string `json:"claimId"`
	LeaseToken string `json:"leaseToken"`
}

func (w *worker) perform(ctx context.Context, claim *Claim, asked time.Time) {
	c := w.client
	work := &Work{Claim: claim, Batches: claim.Batches, FencingToken: claim.FencingToken, client: c}
	for _, batch := range claim.Batches {
		work.Payloads = append(work.Payloads, batch.Payloads...)
	}
	ctx, cancel := context.WithCancel(detached{ctx})
	defer cancel()
	stop := func(reason error) {
		work.mu.Lock()
		if work.reason == nil {
			work.reason = reason
		}
		work.mu.Unlock()
		cancel()
	}
	cancelled := func() { stop(refuse("claim_lost", "The claim %s is cancelled.", claim.ClaimID)) }
	g := &grant{
		conn: c.conn, what: "The claim " + claim.ClaimID, lostKind: "claim_lost", lease: w.options.Lease,
		bound: w.options.ReleaseOn == "disconnect", onLost: stop,
		renew: func(ctx context.Context) (time.Duration, error) {
			params := claim.with("leaseMs", w.options.Lease.Milliseconds())
			return c.renew(ctx, "queue.renew", params, cancelled)
		},
	}
	g.start(asked, ms(claim.RemainingMs))
	defer g.end()
	told := func(then func(cause string)) func(json.RawMessage) {
		return func(params json.RawMessage) {
			var of struct{ ClaimID, Cause string }
			if json.Unmarshal(params, &of) == nil && of.ClaimID == claim.ClaimID {
				then(of.Cause)
			}
		}
	}
	defer c.conn.on("claim.lost", told(func(cause string) {
		g.lose(refuse("claim_lost", "The claim %s was lost: %s.", claim.ClaimID, cause))
	}))()
	defer c.conn.on("claim.cancelling", told(func(string) { cancelled() }))()

	result, err := w.handler(ctx, work)
	if err := w.finish(work, g, result, err); err != nil {
		w.options.OnError(err)
	}
}

func (w *worker) finish(work *Work, g *grant, result any, failure error) error {
	if reason := g.lost(); reason != nil && (failure != nil || !g.overdue) {
		return reason
	}
	ctx := context.Background()
	if failure == nil {
		// A claim that is lost by our clock only is completed all the same, if nobody else has taken it.
		params := work.Claim.with("result", result)
		if err := g.endBy(func() error { return w.client.Call(ctx, "queue.complete", params, nil) }); err != nil {
			return err
		}
		w.options.OnComplete(work)
		return nil
	}
	params := work.Claim.with("", nil)
	var postponed *PostponeError
	if errors.As(failure, &postponed) {
		params["delayMs"] = postponed.Delay.Milliseconds()
	} else if work.Lost() == nil {
		params["error"] = textOf(failure, maxErrorLength)
	}
	err := g.endBy(func() error { return w.client.Call(ctx, "queue.abandon", params, nil) })
	if err != nil && !isLoss(err) {
		return err
	}
	// Refused as lost, it was given back by a first try whose answer was lost: it is where it should be.
	return work.Lost()
}

// with gives the proof of the claim and, if it has a value, one more param.
func (c *Claim) with(name string, value any) map[string]any {
	params := map[string]any{"claimId": c.ClaimID, "leaseToken": c.LeaseToken}
	if value != nil {
		params[name] = value
	}
	return params
}

// textOf is the text of an error as the daemon takes it: at most so many characters, without NUL.
func textOf(err error, most int) string {
	text := []rune(strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\x00", "?"), "?"))
	if len(text) > most/2 { // Of UTF-16, which has up to two units for each.
		text = text[:most/2]
	}
	if len(text) == 0 {
		return "unknown"
	}
	return string(text)
}

// Envelope is a command as its receiver gets it.
type Envelope struct {
	CommandID   string          `json:"commandId"`
	Deployment  string          `json:"deployment"`
	Target      string          `json:"target"`
	Command     string          `json:"command"`
	Attempt     int             `json:"attempt"`
	Deadline    *int64          `json:"deadline"`
	ExecutionMs *int64          `json:"executionMs"`
	Params      json.RawMessage `json:"params"`
	Checkpoint  json.RawMessage `json:"checkpoint"`
	LeaseID     string          `json:"leaseId"`
}

// CommandHandler carries a command out and gives its answer; *CommandError chooses the code of an error.
type CommandHandler func(ctx context.Context, envelope *Envelope) (answer any, err error)

// ServeOptions say how commands are carried out.
type ServeOptions struct {
	// Concurrency is how many commands are carried out at a time.
	Concurrency int
	Owner       string
	// Params are further ones of command.serve, as they travel: targets, incarnation, executionMs.
	Params map[string]any
}

// receiver carries out the commands of one deployment.
type receiver struct {
	client   *Client
	handlers map[string]CommandHandler
	params   map[string]any
	refused  chan error
	mu       sync.Mutex
	running  map[string]func()
	idle     sync.WaitGroup
	up       chan struct{}
}

// Serve carries out the commands of a deployment, which the daemon sends over this connection, until ctx is done: then
// nothing more is sent, the handlers that run are waited for, and Serve returns nil. A handler's context is done when
// nobody waits for its answer any more.
func (c *Client) Serve(ctx context.Context, deployment string, options *ServeOptions, handlers map[string]CommandHandler) error {
	o := ServeOptions{}
	if options != nil {
		o = *options
	}
	if o.Concurrency == 0 {
		o.Concurrency = 1
	}
	if o.Owner == "" {
		o.Owner = defaultOwner()
	}
	r := &receiver{client: c, handlers: handlers, refused: make(chan error, 1), running: map[string]func(){}, up: make(chan struct{}, 1)}
	r.params = map[string]any{"deployment": deployment, "owner": o.Owner, "max": o.Concurrency}
	for name, value := range o.Params {
		r.params[name] = value
	}
	c.mu.Lock()
	if c.receivers[deployment] != nil {
		c.mu.Unlock()
		return refuse("invalid_params", "This client serves %q already.", deployment)
	}
	c.receivers[deployment] = r
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.receivers, deployment)
	}()
	defer c.conn.watch(r)()
	defer c.conn.on("command.cancelled", r.cancelled)()
	r.connected()
	for {
		select {
		case <-r.up:
			go r.subscribe(ctx)
			continue
		case err := <-r.refused:
			return err
		case <-c.conn.closed:
			return &ConnectionLostError{Message: "The client was closed.", Method: "command.serve"}
		case <-ctx.Done():
		}
		if c.conn.isUp() {
			r.params["max"] = 0
			ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
			defer cancel()
			_ = c.Call(ctx, "command.serve", r.params, nil)
		}
		r.idle.Wait()
		return nil
	}
}

func (r *receiver) connected() {
	select {
	case r.up <- struct{}{}:
	default:
	}
}

// disconnected: the daemon delivers anew what this connection had.
func (r *receiver) disconnected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, stop := range r.running {
		stop()
	}
}

func (r *receiver) subscribe(ctx context.Context) {
	for pause := firstWorkPause; ctx.Err() == nil; pause *= 2 {
		err := r.client.Call(ctx, "command.serve", r.params, nil)
		if err == nil || errors.Is(err, ErrConnectionLost) {
			return // On the next connection it is asked anew.
		}
		if isForGood(err) {
			select {
			case r.refused <- err:
			default:
			}
			return
		}
		if pause > maxWorkPause {
			pause = maxWorkPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (r *receiver) cancelled(params json.RawMessage) {
	var told struct{ CommandID string }
	if json.Unmarshal(params, &told) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if stop := r.running[told.CommandID]; stop != nil {
		stop()
	}
}

// execute answers a request of the daemon by the receiver of its deployment.
func (c *Client) execute(params json.RawMessage) (answer any, sent func(), err error) {
	sent = func() {}
	var envelope Envelope
	if err = json.Unmarshal(params, &envelope); err != nil {
		return
	}
	c.mu.Lock()
	r := c.receivers[envelope.Deployment]
	c.mu.Unlock()
	if r == nil {
		return nil, sent, refuse("not_found", "This client does not serve %q.", envelope.Deployment)
	}
	handler := r.handlers[envelope.Command]
	if handler == nil {
		why := envelope.Deployment + " does not know " + envelope.Command + "."
		return nil, sent, &CommandError{Code: "UNKNOWN_COMMAND", Message: why}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.mu.Lock()
	r.idle.Add(1)
	r.running[envelope.CommandID] = cancel
	r.mu.Unlock()
	answer, err = handler(ctx, &envelope)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, envelope.CommandID)
	return answer, r.idle.Done, err
}

// answerError is the error object that an error of a handler is answered with.
func answerError(err error) errorObject {
	data := map[string]any{"code": "HANDLER_ERROR"}
	var chosen *CommandError
	if errors.As(err, &chosen) {
		data["code"] = chosen.Code
		if chosen.Details != nil {
			data["details"] = chosen.Details
		}
	}
	text, encodeErr := encode(data)
	if encodeErr != nil {
		text = []byte(`{"code":"HANDLER_ERROR"}`)
	}
	return errorObject{Code: 1, Message: textOf(err, maxAnswerText), Data: text}
}
