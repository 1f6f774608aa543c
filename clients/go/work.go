package pawl

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"time"
)

const (
	askWait        = 30 * time.Second
	firstWorkPause = 100 * time.Millisecond
	maxWorkPause   = 5 * time.Second
	maxConcurrency = 256
	maxErrorLength = 16_384
)

// Work is the batches of one claim, as a handler gets them.
type Work struct {
	*Grant
	Claim   *Claim
	Batches []Batch
	// Payloads are those of all batches, byte for byte as they were enqueued.
	Payloads []json.RawMessage
}

// Progress tells how far the work is. Further params are those of queue.progress as they travel, or nil: note, checkpoint,
// which the next holder is given.
func (w *Work) Progress(ctx context.Context, percent float64, params map[string]any) error {
	_, err := w.conn.call(ctx, "queue.progress", merged(map[string]any{"percent": percent}, params, w.proof))
	return err
}

// WorkOptions say how a queue is worked on. The zero value is one claim at a time, for 30 s.
type WorkOptions struct {
	// Concurrency is how many claims are worked on at a time: 1 to 256.
	Concurrency int
	// Lease is how long a claim outlives the last sign of life.
	Lease time.Duration
	// Params are further ones of queue.claim, as they travel: owner, maxBatches, boundary, order, or queues in place of the
	// one queue. With releaseOn "expiry" a claim ends with its lease; otherwise the moment that this process does.
	Params map[string]any
	// OnComplete is told of work that was completed.
	OnComplete func(*Work)
	// OnError is told of trouble: claims that are lost or cannot be had. By default it is logged.
	OnError func(error)
}

// Handler does the work of a claim. Its result, if not nil, is kept with the batches; an error gives them back.
type Handler func(ctx context.Context, work *Work) (result any, err error)

type worker struct {
	conn    *conn
	handler Handler
	options WorkOptions
	params  map[string]any
}

// Work works on a queue until ctx is done: claims, renews, completes when the handler returns, gives back with its error
// otherwise. When ctx is done nothing more is claimed, the handlers that run are waited for, and Work returns nil: a
// handler's own context has the values of ctx and is done only when its claim is lost or cancelled. Work fails when the
// daemon refuses for good to give any.
func (c *Client) Work(ctx context.Context, queue string, options *WorkOptions, handler Handler) error {
	o := valueOf(options)
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
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
	w := &worker{conn: c.conn, handler: handler, options: o, params: merged(map[string]any{
		"queue": queue, "owner": defaultOwner(), "leaseMs": o.Lease.Milliseconds(), "releaseOn": "disconnect",
		"waitMs": askWait.Milliseconds(), "notify": true,
	}, o.Params)}
	if w.params["queues"] != nil {
		delete(w.params, "queue")
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	refusals := make(chan error, o.Concurrency)
	for i := 0; i < o.Concurrency; i++ {
		go func() {
			err := w.slot(ctx, asking)
			if err != nil {
				stop()
			}
			refusals <- err
		}()
	}
	var refusal error
	for i := 0; i < o.Concurrency; i++ {
		if err := <-refusals; err != nil {
			refusal = err
		}
	}
	return refusal
}

// slot works on one claim after the other, until asking is done.
func (w *worker) slot(ctx, asking context.Context) error {
	pause := firstWorkPause
	for asking.Err() == nil {
		asked := time.Now()
		result, err := w.conn.call(asking, "queue.claim", w.params)
		var taken struct{ Claim json.RawMessage }
		if err == nil {
			err = json.Unmarshal(result, &taken)
		}
		if err == nil {
			pause = firstWorkPause
			if string(taken.Claim) == "null" {
				continue
			}
			if err = w.perform(ctx, taken.Claim, asked); err != nil {
				w.options.OnError(err)
			}
			continue
		}
		if asking.Err() != nil {
			return nil
		}
		if isForGood(err) || w.conn.isClosed() {
			return err
		}
		// A daemon that was started again is no news.
		var lost *ConnectionLostError
		if !errors.As(err, &lost) || !lost.MayHaveTakenEffect {
			w.options.OnError(err)
		}
		pauseFor(asking, spread(pause))
		pause = between(pause, 2*pause, maxWorkPause)
	}
	return nil
}

// detached has the values of a context and never ends.
type detached struct{ context.Context }

func (detached) Deadline() (time.Time, bool) { return time.Time{}, false }
func (detached) Done() <-chan struct{}       { return nil }
func (detached) Err() error                  { return nil }

// perform has the handler do the work of a claim, and ends the claim.
func (w *worker) perform(ctx context.Context, claimed json.RawMessage, asked time.Time) error {
	ctx, cancel := context.WithCancel(detached{ctx})
	defer cancel()
	var claim Claim
	if err := json.Unmarshal(claimed, &claim); err != nil {
		return err
	}
	bound := w.params["releaseOn"] == "disconnect"
	g, err := newGrant(w.conn, claimNoun, "The claim "+claim.ClaimID, claimed, asked, w.options.Lease, bound, cancel)
	if err != nil {
		return err
	}
	defer g.keep()()
	defer w.conn.on("claim.cancelling", func(params json.RawMessage) {
		if g.toldOf(params) != nil {
			g.cancelled()
		}
	})()
	work := &Work{Grant: g, Claim: &claim, Batches: claim.Batches}
	for _, batch := range claim.Batches {
		work.Payloads = append(work.Payloads, batch.Payloads...)
	}
	<-g.confirmed.Done()
	var result any
	failure := g.Lost()
	if failure == nil {
		result, failure = w.handler(ctx, work)
	}
	// A claim that is lost by our clock only is completed all the same, if nobody else has taken it.
	if g.isLost() && (failure != nil || !g.overdue) {
		return g.Lost()
	}
	params := map[string]any{}
	if failure == nil {
		if result != nil {
			params["result"] = result
		}
		err := g.endBy("queue.complete", params)
		if err == nil {
			w.options.OnComplete(work)
			return nil
		}
		if !errors.Is(err, Kind("invalid_params")) {
			return err
		}
		// No JSON, or more of it than a result may have: the work is not done.
		failure, params = err, map[string]any{}
	}
	var postponed *PostponeError
	if errors.As(failure, &postponed) {
		params["delayMs"] = postponed.Delay.Milliseconds()
	} else if g.Lost() == nil {
		params["error"] = textOf(failure, maxErrorLength)
	}
	// Refused as lost, it was given back by a first try whose answer was lost: it is where it should be.
	if err := g.endBy("queue.abandon", params); err != nil && !isLoss(err) {
		return err
	}
	return g.Lost()
}
