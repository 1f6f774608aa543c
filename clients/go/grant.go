package pawl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultLease is how long a claim or a lease outlives the last sign of life.
	DefaultLease = 30 * time.Second
	// A grant is renewed when a third of its time has passed: two renewals may fail before it is lost.
	renewParts = 3
	// A grant counts as lost when a tenth of its time is left, so that its holder stops before another begins.
	marginParts = 10
	// For so long a daemon that was started again keeps what ends with its connection.
	restartGrace   = 5 * time.Second
	minRetry       = 20 * time.Millisecond
	maxRetry       = time.Second
	releaseTimeout = 5 * time.Second
)

// noun has the names that a kind of grant has at the socket.
type noun struct {
	take, renew, release, duration string
	proof                          []string
	lost, lostKind                 string
}

var (
	claimNoun = &noun{"queue.claim", "queue.renew", "queue.abandon", "leaseMs", []string{"claimId", "leaseToken"}, "claim.lost", "claim_lost"}
	leaseNoun = &noun{"lease.acquire", "lease.heartbeat", "lease.release", "ttlMs", []string{"leaseId"}, "lease.lost", "lease_lost"}
	pathNoun  = &noun{"path.reserve", "path.heartbeat", "path.release", "ttlMs", []string{"reservationId"}, "path.lost", "lease_lost"}
)

// defaultOwner is the name under which this process asks, for people: the program and its pid.
func defaultOwner() string {
	return fmt.Sprintf("%.64s:%d", filepath.Base(os.Args[0]), os.Getpid())
}

// Grant is what this process holds: renewed at each third of its time until its holder is done. It is lost when a renewal
// is refused, when none came through before a tenth of the time was left by the clock of this process, or when the client
// is closed.
type Grant struct {
	// FencingToken is to be sent along with every write: greater than that of every earlier holder.
	FencingToken int64

	conn  *conn
	noun  *noun
	what  string
	proof map[string]any
	lease time.Duration
	// bound: it ends with the connection, so that only the grace of a restart is left without one.
	bound bool
	// stop ends the context of the holder.
	stop func()
	// held is done when it is lost, or when its holder is done.
	held context.Context
	end  context.CancelFunc
	// confirmed is done when it is certain that it is held, or that it is not.
	confirmed context.Context
	confirm   context.CancelFunc

	mu     sync.Mutex
	timer  *time.Timer
	reason error
	lost   bool
	// overdue: it is lost by the clock of this process only.
	overdue          bool
	paused, renewing bool
	validUntil       time.Time
	renewAt          time.Time
	graceUntil       time.Time // Zero while connected.
	// unanswered: there is a new connection, and no answer on it yet to tell that a daemon has started.
	unanswered bool
}

// newGrant is of what a request that was made at `asked` was granted. It is renewed once it is kept.
func newGrant(c *conn, noun *noun, what string, granted json.RawMessage, asked time.Time, lease time.Duration, bound bool, stop func()) (*Grant, error) {
	var of struct{ FencingToken, RemainingMs int64 }
	members := map[string]any{}
	if err := json.Unmarshal(granted, &of); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(granted, &members); err != nil {
		return nil, err
	}
	g := &Grant{FencingToken: of.FencingToken, conn: c, noun: noun, what: what, proof: map[string]any{}, lease: lease, bound: bound, stop: stop}
	for _, name := range noun.proof {
		g.proof[name] = members[name]
	}
	g.held, g.end = context.WithCancel(context.Background())
	g.confirmed, g.confirm = context.WithCancel(g.held)
	if now := time.Now(); now.Sub(asked) > lease/marginParts {
		// It was waited for, and may have been granted long ago if this process was stopped meanwhile: it is renewed first.
		g.extend(now, of.RemainingMs)
		g.renewAt = now
	} else {
		g.extend(asked, of.RemainingMs)
		g.confirm()
	}
	return g, nil
}

// keep has it renewed and its loss noticed, until it is called off.
func (g *Grant) keep() (stop func()) {
	g.mu.Lock()
	g.timer = time.AfterFunc(0, g.look)
	g.mu.Unlock()
	stopWatching := g.conn.watch(g)
	stopListening := g.conn.on(g.noun.lost, func(params json.RawMessage) {
		if told := g.toldOf(params); told != nil {
			err := refuse(g.noun.lostKind, "%s has ended: %v.", g.what, told["cause"])
			err.Data = params
			g.lose(err)
		}
	})
	return func() {
		stopListening()
		stopWatching()
		g.end()
	}
}

// toldOf gives the params of a notification if they are about this grant.
func (g *Grant) toldOf(params json.RawMessage) (told map[string]any) {
	name := g.noun.proof[0]
	if json.Unmarshal(params, &told) != nil || told[name] != g.proof[name] {
		return nil
	}
	return told
}

// Lost gives the reason, if it was lost or its work was cancelled: then the holder's context is done.
func (g *Grant) Lost() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// look loses it when its time is over, renews it when that is due, and looks again when either is next.
func (g *Grant) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	deadline := g.validUntil
	if g.bound && !g.unanswered && !g.graceUntil.IsZero() && g.graceUntil.Before(deadline) {
		deadline = g.graceUntil
	}
	now := time.Now()
	if g.held.Err() != nil {
		return
	}
	if !now.Before(deadline) {
		g.overdue = true
		err := refuse(g.noun.lostKind, "%s could not be renewed in time, so another may hold it.", g.what)
		err.Data = json.RawMessage(`{"reason":"not_renewed"}`)
		go g.lose(err)
		return
	}
	if !g.renewing && !g.paused {
		if !now.Before(g.renewAt) {
			g.renewing = true
			go g.renew()
		} else if g.renewAt.Before(deadline) {
			deadline = g.renewAt
		}
	}
	g.timer.Reset(time.Until(deadline))
}

func (g *Grant) renew() {
	asked := time.Now()
	raw, err := g.conn.call(g.held, g.noun.renew, merged(map[string]any{g.noun.duration: g.lease.Milliseconds()}, g.proof))
	var renewed struct {
		RemainingMs int64
		Cancelling  bool
	}
	if err == nil {
		err = json.Unmarshal(raw, &renewed)
	}
	if isLoss(err) {
		g.lose(err)
	}
	if renewed.Cancelling {
		g.cancelled()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.renewing = false
	g.timer.Reset(0)
	if err == nil {
		g.unanswered, g.graceUntil = false, time.Time{}
		g.extend(asked, renewed.RemainingMs)
		g.confirm()
		return
	}
	var refusal *Error
	if errors.As(err, &refusal) {
		// A daemon runs, and its grace with it, unless it knows already that the grant is held.
		g.unanswered = false
		if refusal.Kind == "provider_unavailable" && reasonOf(err) != "not_configured" {
			g.graceUntil = time.Time{}
		}
	}
	g.renewAt = time.Now().Add(between(minRetry, g.lease/20, maxRetry))
}

func (g *Grant) lose(reason error) {
	g.mu.Lock()
	if g.held.Err() != nil {
		g.mu.Unlock()
		return
	}
	g.lost = true
	g.stopHolder(reason)
	g.mu.Unlock()
	g.end()
}

// cancelled: somebody wants the work to end. It is held until it is given back.
func (g *Grant) cancelled() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopHolder(refuse(g.noun.lostKind, "%s is cancelled.", g.what))
}

// stopHolder needs mu.
func (g *Grant) stopHolder(reason error) {
	if g.reason == nil {
		g.reason = reason
		g.stop()
	}
}

// endBy makes the call that ends it, again while that fails for passing reasons and it is still held.
func (g *Grant) endBy(method string, more map[string]any) error {
	for pause := minRetry; ; pause = between(minRetry, 2*pause, maxRetry) {
		g.pauseRenewing(true)
		_, err := g.conn.call(context.Background(), method, merged(more, g.proof))
		if err == nil || !isPassing(err) || g.isLost() {
			return err
		}
		g.pauseRenewing(false)
		select {
		case <-time.After(pause):
		case <-g.conn.closed:
			return err
		}
	}
}

func (g *Grant) isLost() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lost
}

// pauseRenewing has nothing renewed while it is being ended: a renewal that came after the end would be refused.
func (g *Grant) pauseRenewing(paused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = paused
	g.timer.Reset(0)
}

func (g *Grant) connected() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unanswered, g.renewAt = true, time.Now()
	g.timer.Reset(0)
}

func (g *Grant) disconnected() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unanswered = false
	g.graceUntil = time.Now().Add(restartGrace - restartGrace/marginParts)
	g.timer.Reset(0)
}

func (g *Grant) clientClosed() { go g.lose(&ConnectionLostError{Message: "The client was closed."}) }

func (g *Grant) extend(since time.Time, remainingMs int64) {
	g.validUntil = since.Add(time.Duration(remainingMs)*time.Millisecond - g.lease/marginParts)
	g.renewAt = since.Add(g.lease / renewParts)
}

// taskKey finds in a context the task of the outermost function that holds something: all that is held and waited for
// with that context belongs together, so that the daemon sees who waits for whom.
type taskKey struct{}

// tasks counts those that were begun.
var tasks atomic.Int64

// Held is a lease or a reservation while its function runs.
type Held struct {
	*Grant
	// Granted is what was granted, as it travels: a lease for each name, or one reservation.
	Granted []json.RawMessage
}

// LockOptions say how a lease or a reservation is taken. The zero value waits for nothing.
type LockOptions struct {
	// TTL is how long it outlives the last sign of life; 30 s by default.
	TTL time.Duration
	// Wait is how long to wait while another holds it.
	Wait time.Duration
	// Params are further ones of lease.acquire or path.reserve, as they travel: mode, slots, note, owner, task. With
	// releaseOn "expiry" it ends when its TTL has passed; otherwise the moment that this process does. Without a task it
	// has that of the function whose context it is asked with, or one of its own.
	Params map[string]any
}

// Lock runs a function while holding the lease of a name. The function's context is done when the lease is lost; then
// Lock fails with ErrLeaseLost, whatever the function returned. It fails with ErrLeaseHeld when another holds it.
func (c *Client) Lock(ctx context.Context, name string, o *LockOptions, fn func(context.Context, *Held) error) error {
	return c.hold(ctx, leaseNoun, map[string]any{"name": name}, "The lease of "+name, o, fn)
}

// LockAll is Lock for several names: all of them or none.
func (c *Client) LockAll(ctx context.Context, names []string, o *LockOptions, fn func(context.Context, *Held) error) error {
	return c.hold(ctx, leaseNoun, map[string]any{"names": names}, fmt.Sprintf("The lease of %q", names), o, fn)
}

// Reserve runs a function while holding a reservation of the files below root that fit the patterns.
func (c *Client) Reserve(ctx context.Context, root string, patterns []string, o *LockOptions, fn func(context.Context, *Held) error) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	return c.hold(ctx, pathNoun, map[string]any{"root": root, "patterns": patterns}, "The reservation in "+root, o, fn)
}

func (c *Client) hold(ctx context.Context, noun *noun, named map[string]any, what string, options *LockOptions, fn func(context.Context, *Held) error) error {
	o := valueOf(options)
	if o.TTL == 0 {
		o.TTL = DefaultLease
	}
	params := map[string]any{"owner": defaultOwner(), "ttlMs": o.TTL.Milliseconds(), "releaseOn": "disconnect"}
	task, within := ctx.Value(taskKey{}).(string)
	if !within {
		task = fmt.Sprintf("%d-%d", os.Getpid(), tasks.Add(1))
	}
	params["task"] = task
	merged(params, named, o.Params)
	bound := params["releaseOn"] == "disconnect"
	granted, asked, err := c.take(ctx, noun, params, o.Wait, bound)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithValue(ctx, taskKey{}, params["task"]))
	defer cancel()
	g, err := newGrant(c.conn, noun, what, granted[0], asked, o.TTL, bound, cancel)
	if err != nil {
		return err
	}
	defer g.keep()()
	<-g.confirmed.Done()
	if g.Lost() == nil {
		err = fn(ctx, &Held{Grant: g, Granted: granted})
	}
	g.pauseRenewing(true)
	released := struct{ Released bool }{true}
	if c.conn.isUp() {
		// If this fails, it ends by its time.
		ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
		defer cancel()
		_ = c.Call(ctx, noun.release, g.proof, &released)
	}
	if reason := g.Lost(); reason != nil {
		return reason
	}
	if !released.Released {
		return refuse("lease_lost", "%s had ended before it was given back.", what)
	}
	return err
}

// take waits until it is granted, also over a restart of the daemon.
func (c *Client) take(ctx context.Context, noun *noun, params map[string]any, wait time.Duration, bound bool) (granted []json.RawMessage, asked time.Time, err error) {
	for giveUp := time.Now().Add(wait); ; {
		asked = time.Now()
		left := between(0, giveUp.Sub(asked), time.Hour)
		params["waitMs"] = left.Milliseconds()
		var result struct {
			Lease, Reservation json.RawMessage
			Leases             []json.RawMessage
		}
		err = c.Call(ctx, noun.take, params, &result)
		for _, one := range []json.RawMessage{result.Lease, result.Reservation} {
			if one != nil {
				result.Leases = append(result.Leases, one)
			}
		}
		// What the lost connection was granted ended with it, so asking again does no harm.
		if err == nil || !errors.Is(err, ErrConnectionLost) || !bound || left == 0 || c.conn.isClosed() {
			return result.Leases, asked, err
		}
		if !pauseFor(ctx, spread(100*time.Millisecond)) {
			return nil, asked, ctx.Err()
		}
	}
}

func between(least, value, most time.Duration) time.Duration {
	if value < least {
		return least
	} else if value > most {
		return most
	}
	return value
}

// spread is a random part of a pause, half of it to the whole, so that many do not come at once.
func spread(pause time.Duration) time.Duration {
	return time.Duration(float64(pause) * (0.5 + rand.Float64()/2))
}
