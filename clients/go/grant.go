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

// defaultOwner is the name under which this process asks, for people: the program and its pid.
func defaultOwner() string {
	name := filepath.Base(os.Args[0])
	if len(name) > 64 {
		name = name[:64]
	}
	return fmt.Sprintf("%s:%d", name, os.Getpid())
}

// grant is a claim, a lease or a reservation, renewed until its holder is done with it.
//
// held: it is renewed at each third of its time. lost: a renewal was refused, or none came through before a tenth of the
// time was left by the clock of this process, or the client was closed. ended: the holder is done.
type grant struct {
	conn     *conn
	what     string
	lostKind string
	lease    time.Duration
	// bound: it ends with the connection, so that only the grace of a restart is left without one.
	bound  bool
	renew  func(context.Context) (remaining time.Duration, err error)
	onLost func(error)

	mu     sync.Mutex
	ended  bool
	reason error
	// overdue: it is lost by the clock of this process only.
	overdue    bool
	paused     bool
	renewing   bool
	validUntil time.Time
	renewAt    time.Time
	graceUntil time.Time // Zero while connected.
	// unanswered: there is a new connection, and no answer on it yet to tell that a daemon has started.
	unanswered bool

	changed   chan struct{}
	done      chan struct{}
	confirmed chan struct{}
	confirm   sync.Once
}

// start begins to renew. asked is when the request that was granted was made, remaining what was left then.
func (g *grant) start(asked time.Time, remaining time.Duration) {
	g.changed, g.done, g.confirmed = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	now := time.Now()
	if now.Sub(asked) > g.lease/marginParts {
		// It was waited for, and may have been granted long ago if this process was stopped meanwhile: it is renewed first.
		g.extend(now, remaining)
		g.renewAt = now
	} else {
		g.extend(asked, remaining)
		g.renewAt = asked.Add(g.lease / renewParts)
		g.confirm.Do(func() { close(g.confirmed) })
	}
	go g.keep()
}

// lost gives the reason of the loss, or nil.
func (g *grant) lost() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

func (g *grant) keep() {
	defer g.conn.watch(g)()
	defer g.confirm.Do(func() { close(g.confirmed) })
	for {
		g.mu.Lock()
		deadline := g.validUntil
		if g.bound && !g.unanswered && !g.graceUntil.IsZero() && g.graceUntil.Before(deadline) {
			deadline = g.graceUntil
		}
		now := time.Now()
		if g.ended {
			g.mu.Unlock()
			return
		}
		if !now.Before(deadline) {
			g.overdue = true
			g.mu.Unlock()
			err := refuse(g.lostKind, "%s could not be renewed in time, so another may hold it.", g.what)
			err.Data = json.RawMessage(`{"reason":"not_renewed"}`)
			g.lose(err)
			return
		}
		next := deadline
		if !g.renewing && !g.paused {
			if !now.Before(g.renewAt) {
				g.renewing = true
				go g.renewOnce()
			} else if g.renewAt.Before(next) {
				next = g.renewAt
			}
		}
		g.mu.Unlock()
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-g.changed:
		case <-g.done:
		case <-g.conn.closed:
			g.lose(&ConnectionLostError{Message: "The client was closed."})
		}
		timer.Stop()
	}
}

func (g *grant) renewOnce() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-g.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	asked := time.Now()
	remaining, err := g.renew(ctx)
	if err != nil && isLoss(err) {
		g.lose(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.signal()
	g.renewing = false
	if err == nil {
		g.endGrace()
		g.extend(asked, remaining)
		g.renewAt = asked.Add(g.lease / renewParts)
		g.confirm.Do(func() { close(g.confirmed) })
		return
	}
	var refusal *Error
	if errors.As(err, &refusal) {
		// A daemon runs, and its grace with it, unless it knows already that the grant is held.
		var details struct{ Reason string }
		if refusal.Kind == "provider_unavailable" && refusal.Details(&details) == nil && details.Reason != "not_configured" {
			g.endGrace()
		}
		g.unanswered = false
	}
	pause := g.lease / 20
	if pause < minRetry {
		pause = minRetry
	} else if pause > maxRetry {
		pause = maxRetry
	}
	g.renewAt = time.Now().Add(pause)
}

func (g *grant) lose(reason error) {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return
	}
	g.ended, g.reason = true, reason
	close(g.done)
	g.mu.Unlock()
	g.onLost(reason)
}

// end: the holder is done with it.
func (g *grant) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ended {
		g.ended = true
		close(g.done)
	}
}

// endBy makes the call that ends the grant, again while it fails for passing reasons and the grant is still held.
func (g *grant) endBy(call func() error) error {
	for pause := minRetry; ; pause *= 2 {
		g.pauseRenewing(true)
		err := call()
		if err == nil || !isPassing(err) || g.lost() != nil {
			return err
		}
		g.pauseRenewing(false)
		if pause > maxRetry {
			pause = maxRetry
		}
		select {
		case <-time.After(pause):
		case <-g.conn.closed:
			return err
		}
	}
}

// pauseRenewing has nothing renewed while the grant is being ended: a renewal that came after the end would be refused.
func (g *grant) pauseRenewing(paused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = paused
	g.signal()
}

func (g *grant) connected() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unanswered = true
	g.renewAt = time.Now()
	g.signal()
}

func (g *grant) disconnected() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unanswered = false
	g.graceUntil = time.Now().Add(restartGrace - restartGrace/marginParts)
	g.signal()
}

func (g *grant) endGrace() { g.unanswered, g.graceUntil = false, time.Time{} }

func (g *grant) extend(since time.Time, remaining time.Duration) {
	g.validUntil = since.Add(remaining - g.lease/marginParts)
}

func (g *grant) signal() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// Held is a lease or a reservation while its function runs.
type Held struct {
	// FencingToken is to be sent along with every write: greater than that of every earlier holder.
	FencingToken int64
	Owner        string
	// Leases has one for each name; none for a reservation.
	Leases []Lease
	// Reservation is nil for a lease.
	Reservation *Reservation
	grant       *grant
}

// Lost gives the reason if it was lost, as soon as its function's context is done by that.
func (h *Held) Lost() error { return h.grant.lost() }

// LockOptions say how a lease or a reservation is taken. The zero value waits for nothing.
type LockOptions struct {
	// TTL is how long it outlives the last sign of life; 30 s by default.
	TTL time.Duration
	// Wait is how long to wait while another holds it.
	Wait time.Duration
	// Owner is the holder's name, for people; otherwise the program and its pid.
	Owner string
	// ReleaseOn is "disconnect" by default: it ends the moment that this process does. "expiry": when the TTL has passed.
	ReleaseOn string
	// Params are further ones of lease.acquire or path.reserve, as they travel: mode, slots, note.
	Params map[string]any
}

// Lock runs a function while holding the lease of a name. The function's context is done when the lease is lost; then
// Lock fails with ErrLeaseLost, whatever the function returned. It fails with ErrLeaseHeld when another holds it.
func (c *Client) Lock(ctx context.Context, name string, o *LockOptions, fn func(context.Context, *Held) error) error {
	return c.hold(ctx, "lease", map[string]any{"name": name}, o, fn)
}

// LockAll is Lock for several names: all of them or none.
func (c *Client) LockAll(ctx context.Context, names []string, o *LockOptions, fn func(context.Context, *Held) error) error {
	return c.hold(ctx, "lease", map[string]any{"names": names}, o, fn)
}

// Reserve runs a function while holding a reservation of the files below root that fit the patterns.
func (c *Client) Reserve(ctx context.Context, root string, patterns []string, o *LockOptions, fn func(context.Context, *Held) error) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	return c.hold(ctx, "path", map[string]any{"root": root, "patterns": patterns}, o, fn)
}

func (c *Client) hold(ctx context.Context, kind string, params map[string]any, given *LockOptions, fn func(context.Context, *Held) error) error {
	o := LockOptions{}
	if given != nil {
		o = *given
	}
	setDefaults(&o.TTL, &o.Owner, &o.ReleaseOn)
	what := fmt.Sprintf("The %s of %v", kind, params)
	params["owner"], params["ttlMs"], params["releaseOn"] = o.Owner, o.TTL.Milliseconds(), o.ReleaseOn
	for name, value := range o.Params {
		params[name] = value
	}
	held, asked, remaining, proofName, proof, err := c.acquire(ctx, kind, params, o)
	if err != nil {
		return err
	}
	proofParams := map[string]any{proofName: proof}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := &grant{
		conn: c.conn, what: what, lostKind: "lease_lost", lease: o.TTL, bound: o.ReleaseOn == "disconnect",
		onLost: func(error) { cancel() },
		renew: func(ctx context.Context) (time.Duration, error) {
			return c.renew(ctx, kind+".heartbeat", map[string]any{proofName: proof, "ttlMs": o.TTL.Milliseconds()}, nil)
		},
	}
	held.grant = g
	g.start(asked, remaining)
	defer c.conn.on(kind+".lost", func(params json.RawMessage) {
		var told struct{ LeaseID, ReservationID, Cause, Reason string }
		if json.Unmarshal(params, &told) == nil && told.LeaseID+told.ReservationID == proof {
			err := refuse("lease_lost", "%s has ended: %s %s", what, told.Cause, told.Reason)
			err.Data = params
			g.lose(err)
		}
	})()
	<-g.confirmed
	if g.lost() == nil {
		err = fn(ctx, held)
	}
	g.pauseRenewing(true)
	released := struct{ Released bool }{true}
	if c.conn.isUp() {
		// If this fails, it ends by its time.
		ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
		defer cancel()
		_ = c.Call(ctx, kind+".release", proofParams, &released)
	}
	g.end()
	if reason := g.lost(); reason != nil {
		return reason
	}
	if !released.Released {
		return refuse("lease_lost", "%s had ended before it was given back.", what)
	}
	return err
}

func (c *Client) acquire(ctx context.Context, kind string, params map[string]any, o LockOptions) (held *Held, asked time.Time, remaining time.Duration, proofName, proof string, err error) {
	giveUp := time.Now().Add(o.Wait)
	method := map[string]string{"lease": "lease.acquire", "path": "path.reserve"}[kind]
	for {
		asked = time.Now()
		left := giveUp.Sub(asked)
		if left < 0 {
			left = 0
		}
		params["waitMs"] = left.Milliseconds()
		var granted struct {
			Lease       *Lease
			Leases      []Lease
			Reservation *Reservation
		}
		if err = c.Call(ctx, method, params, &granted); err == nil {
			if granted.Lease != nil {
				granted.Leases = []Lease{*granted.Lease}
			}
			held = &Held{Owner: o.Owner, Leases: granted.Leases, Reservation: granted.Reservation}
			if r := granted.Reservation; r != nil {
				held.FencingToken = r.FencingToken
				return held, asked, ms(r.RemainingMs), "reservationId", r.ReservationID, nil
			}
			lease := granted.Leases[0]
			held.FencingToken = lease.FencingToken
			return held, asked, ms(lease.RemainingMs), "leaseId", lease.LeaseID, nil
		}
		// What the lost connection was granted ended with it, so asking again does no harm.
		if !errors.Is(err, ErrConnectionLost) || o.ReleaseOn != "disconnect" || left == 0 {
			return
		}
		select {
		case <-time.After(time.Duration(float64(100*time.Millisecond) * (0.5 + rand.Float64()/2))):
		case <-c.conn.closed:
			return
		}
	}
}

// renew makes a renewing call and gives what remains then; cancelling is told if the answer says so.
func (c *Client) renew(ctx context.Context, method string, params any, cancelling func()) (time.Duration, error) {
	var renewed struct {
		RemainingMs int64
		Cancelling  bool
	}
	err := c.Call(ctx, method, params, &renewed)
	if renewed.Cancelling && cancelling != nil {
		cancelling()
	}
	return ms(renewed.RemainingMs), err
}

func setDefaults(lease *time.Duration, owner, releaseOn *string) {
	if *lease == 0 {
		*lease = DefaultLease
	}
	if *owner == "" {
		*owner = defaultOwner()
	}
	if *releaseOn == "" {
		*releaseOn = "disconnect"
	}
}

func ms(milliseconds int64) time.Duration { return time.Duration(milliseconds) * time.Millisecond }
