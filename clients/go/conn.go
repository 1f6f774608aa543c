package pawl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sort"
	"sync"
	"syscall"
	"time"
)

const (
	firstPause = 10 * time.Millisecond
	maxPause   = 500 * time.Millisecond
	// A connection that has lasted so long works, even if nothing was answered on it.
	working = time.Second
	// How long closing waits for the daemon to read what is on its way.
	closing       = time.Second
	maxReplyBytes = 256 << 20
)

type state int

const (
	down    state = iota // No connection. While a call waits, or somebody keeps it, connecting is tried with growing pauses.
	up                   // Requests are sent at once.
	leaving              // The daemon performs nothing more on this connection; answers on their way are still read.
	closed               // For good.
)

// watcher is told of connections that come and go. Its functions must not block.
type watcher interface {
	connected()
	// disconnected: there is no connection any more, or connecting was tried and nobody listens.
	disconnected()
	// clientClosed: for good.
	clientClosed()
}

type message struct {
	ID     json.RawMessage `json:"id"`
	Method *string         `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *errorObject    `json:"error"`
}

type pendingCall struct {
	id         int64
	method     string
	params     map[string]json.RawMessage
	line       []byte
	repeatable bool
	wait       time.Duration
	started    time.Time
	waitsSince time.Time
	sent       bool
	// mayHaveTakenEffect: the request was sent on an earlier connection.
	mayHaveTakenEffect bool
	done               chan struct{}
	result             json.RawMessage
	err                error
}

// conn is one connection at a time to one daemon, which survives the daemon's restarts.
type conn struct {
	path      string
	reconnect time.Duration
	// execute carries out a command; sent is called once the answer is on its way.
	execute func(params json.RawMessage) (answer any, sent func(), err error)
	closed  chan struct{}

	mu         sync.Mutex
	state      state
	socket     *socket
	pending    map[int64]*pendingCall
	givenUp    map[int64]string
	nextID     int64
	listeners  map[string]map[*func(json.RawMessage)]bool
	watchers   map[watcher]bool
	connecting bool
	pause      time.Duration
	opened     time.Time
	answered   bool
}

// socket is one connection, with the lines that are to be written to it.
type socket struct {
	net.Conn
	wake    chan struct{}
	ended   chan struct{} // Closed once nothing more can be read.
	written chan struct{} // Closed once nothing more is written.
	out     []outgoing    // Guarded by conn.mu.
}

// outgoing is a line that is to be written, with the call that it asks for, if any.
type outgoing struct {
	line []byte
	call *pendingCall
}

func newConn(path string, reconnect time.Duration, execute func(json.RawMessage) (any, func(), error)) *conn {
	return &conn{
		path: path, reconnect: reconnect, execute: execute, closed: make(chan struct{}), pending: map[int64]*pendingCall{},
		givenUp: map[int64]string{}, listeners: map[string]map[*func(json.RawMessage)]bool{}, watchers: map[watcher]bool{},
	}
}

// open connects once.
func (c *conn) open() error {
	raw, err := net.DialTimeout("unix", c.path, 10*time.Second)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		raw.Close()
		return &ConnectionLostError{Message: "The client was closed while it was connecting."}
	}
	s := &socket{Conn: raw, wake: make(chan struct{}, 1), ended: make(chan struct{}), written: make(chan struct{})}
	c.socket, c.state, c.opened, c.answered = s, up, time.Now(), false
	for _, call := range c.inOrder() {
		call.shortenWait()
		c.send(call)
	}
	for w := range c.watchers {
		w.connected()
	}
	go c.read(s)
	go c.write(s)
	return nil
}

// call sends a request and gives its result. A call that is given up by its context is ended at the daemon if it waits,
// and what it is granted all the same is given back.
func (c *conn) call(ctx context.Context, method string, params any) (json.RawMessage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	call, err := newCall(method, params)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.state == closed {
		c.mu.Unlock()
		return nil, &ConnectionLostError{Message: "The client is closed.", Method: method}
	}
	c.nextID++
	call.id = c.nextID
	call.write()
	c.pending[call.id] = call
	if c.state == up {
		c.send(call)
	} else {
		c.connectAgain()
	}
	c.mu.Unlock()
	select {
	case <-call.done:
		return call.result, call.err
	case <-ctx.Done():
		c.giveUp(call)
		return nil, ctx.Err()
	}
}

func newCall(method string, params any) (*pendingCall, error) {
	if params == nil {
		params = struct{}{}
	}
	text, err := encode(params)
	now := time.Now()
	call := &pendingCall{method: method, started: now, waitsSince: now, done: make(chan struct{})}
	if err == nil {
		err = json.Unmarshal(text, &call.params)
	}
	if err != nil {
		return nil, refuse("invalid_params", "The params of %s cannot be a JSON object: %v.", method, err)
	}
	call.repeatable = isRepeatable(method, call.params)
	var waitMs int64
	if json.Unmarshal(call.params["waitMs"], &waitMs) == nil {
		call.wait = time.Duration(waitMs) * time.Millisecond
	}
	return call, nil
}

func (p *pendingCall) write() {
	// What was decoded from JSON is encoded without an error.
	p.line, _ = encode(map[string]any{"jsonrpc": "2.0", "id": p.id, "method": p.method, "params": p.params})
}

// shortenWait makes a request that is sent again wait no longer than its caller does.
func (p *pendingCall) shortenWait() {
	if p.wait > 0 {
		left := p.wait - time.Since(p.started)
		if left < 0 {
			left = 0
		}
		p.params["waitMs"] = json.RawMessage(fmt.Sprint(left.Milliseconds()))
		p.write()
	}
}

func (p *pendingCall) end(result json.RawMessage, err error) {
	p.result, p.err = result, err
	close(p.done)
}

func (p *pendingCall) lose(text string) {
	p.end(nil, &ConnectionLostError{Message: text, Method: p.method, MayHaveTakenEffect: p.mayHaveTakenEffect || p.sent})
}

// isRepeatable is true if a request may be sent again when nobody knows whether it took effect.
func isRepeatable(method string, params map[string]json.RawMessage) bool {
	rule, known := repeatableMethods[method]
	if len(rule) == 0 {
		return known
	}
	elements := []map[string]json.RawMessage{params}
	if len(rule) == 2 && json.Unmarshal(params[rule[1]], &elements) != nil {
		return false
	}
	for _, element := range elements {
		if key := element[rule[0]]; key == nil || string(key) == "null" {
			return false
		}
		for name, values := range neverRepeated {
			for _, value := range values {
				if string(element[name]) == `"`+value+`"` {
					return false
				}
			}
		}
	}
	return true
}

func encode(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return text.Bytes(), err // With the line end.
}

// on has a function called with the params of each notification. It must not block.
func (c *conn) on(method string, tell func(json.RawMessage)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listeners[method] == nil {
		c.listeners[method] = map[*func(json.RawMessage)]bool{}
	}
	c.listeners[method][&tell] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.listeners[method], &tell)
	}
}

// watch tells of connections, and keeps connecting although no call waits.
func (c *conn) watch(w watcher) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[w] = true
	c.connectAgain()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, w)
	}
}

func (c *conn) isUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == up
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == closed
}

func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return
	}
	c.state = closed
	if s := c.socket; s != nil {
		// Answers that were given still go out, if the daemon reads.
		_ = s.SetWriteDeadline(time.Now().Add(closing))
		lines := linesOf(s.out)
		s.out = nil
		_, _ = lines.WriteTo(s)
		s.Close()
	}
	for id, call := range c.pending {
		delete(c.pending, id)
		call.lose("The client was closed before the answer came.")
	}
	for w := range c.watchers {
		w.clientClosed()
	}
	close(c.closed)
}

// From here to write: mu is held.

func (c *conn) send(call *pendingCall) {
	c.enqueue(call.line, call)
	call.sent = true
}

func (c *conn) enqueue(line []byte, call *pendingCall) {
	c.socket.out = append(c.socket.out, outgoing{line, call})
	select {
	case c.socket.wake <- struct{}{}:
	default:
	}
}

func (c *conn) inOrder() []*pendingCall {
	calls := make([]*pendingCall, 0, len(c.pending))
	for _, call := range c.pending {
		calls = append(calls, call)
	}
	sort.Slice(calls, func(i, j int) bool { return calls[i].id < calls[j].id })
	return calls
}

func (c *conn) connectAgain() {
	if c.state == down && !c.connecting {
		c.connecting = true
		go c.connectLoop()
	}
}

func (c *conn) write(s *socket) {
	defer close(s.written)
	for {
		select {
		case <-s.wake:
		case <-s.ended:
			return
		}
		c.mu.Lock()
		out := s.out
		s.out = nil
		c.mu.Unlock()
		lines := linesOf(out)
		if n, err := lines.WriteTo(s); err != nil {
			c.mu.Lock()
			s.out = append(unwritten(out, n), s.out...)
			c.mu.Unlock()
			return // The reader notices the end.
		}
	}
}

func linesOf(out []outgoing) net.Buffers {
	lines := make(net.Buffers, len(out))
	for i, each := range out {
		lines[i] = each.line
	}
	return lines
}

// unwritten gives the lines of which nothing was written, if n bytes were.
func unwritten(out []outgoing, n int64) []outgoing {
	for len(out) > 0 && n > 0 {
		n -= int64(len(out[0].line))
		out = out[1:]
	}
	return out
}

func (c *conn) read(s *socket) {
	reader := bufio.NewReaderSize(s, 64<<10)
	var line []byte
	var err error
	for {
		var piece []byte
		piece, err = reader.ReadSlice('\n')
		line = append(line, piece...)
		if len(line) > maxReplyBytes {
			break
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil || !c.received(s, line) {
			break
		}
		line = line[:0]
	}
	s.Close()
	close(s.ended)
	<-s.written
	c.lost(s, len(line) == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)))
}

// received takes one line. It is false for what no daemon sends.
func (c *conn) received(s *socket, line []byte) bool {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return true
	}
	messages := make([]message, 1)
	var err error
	if line[0] == '[' {
		err = json.Unmarshal(line, &messages)
	} else {
		err = json.Unmarshal(line, &messages[0])
	}
	if err != nil {
		return false
	}
	for _, m := range messages {
		switch {
		case m.Method == nil:
			c.answerCame(m)
		case len(m.ID) > 0:
			go c.perform(s, m)
		default:
			c.mu.Lock()
			tells := make([]*func(json.RawMessage), 0, len(c.listeners[*m.Method]))
			for tell := range c.listeners[*m.Method] {
				tells = append(tells, tell)
			}
			c.mu.Unlock()
			for _, tell := range tells {
				(*tell)(m.Params)
			}
		}
	}
	return true
}

func (c *conn) answerCame(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var id int64
	if json.Unmarshal(m.ID, &id) != nil || string(m.ID) == "null" {
		if m.Error != nil {
			c.lineWasRefused(m.Error.error())
		}
		return
	}
	c.answered = true
	call := c.pending[id]
	if call == nil {
		if method, given := c.givenUp[id]; given && m.Error == nil {
			delete(c.givenUp, id)
			go c.giveBack(method, m.Result)
		}
		return
	}
	if m.Error == nil {
		delete(c.pending, id)
		call.end(m.Result, nil)
		return
	}
	err := m.Error.error()
	if errors.Is(err, ErrUnavailable) && reasonOf(err) == "stopping" {
		// It was not performed. The next daemon takes it.
		call.sent, c.state = false, leaving
		return
	}
	delete(c.pending, id)
	call.end(nil, err)
}

// lineWasRefused: a line that was refused unread has no id in its answer. The longest is meant, and none after it counts.
func (c *conn) lineWasRefused(err *Error) {
	var longest *pendingCall
	calls := c.inOrder()
	for _, call := range calls {
		if call.sent && (longest == nil || len(call.line) > len(longest.line)) {
			longest = call
		}
	}
	if err.Kind != "message_too_large" || longest == nil {
		return
	}
	delete(c.pending, longest.id)
	longest.end(nil, err)
	for _, call := range calls {
		call.sent = call.sent && call.id < longest.id
	}
	c.state = leaving
}

func (c *conn) perform(s *socket, m message) {
	answer := map[string]any{"jsonrpc": "2.0", "id": m.ID}
	if *m.Method != "command.execute" {
		answer["error"] = errorObject{Code: -32601, Message: "This client does not serve " + *m.Method + "."}
	} else if result, sent, err := c.execute(m.Params); err == nil {
		defer sent()
		answer["result"] = result
	} else {
		defer sent()
		answer["error"] = answerError(err)
	}
	line, err := encode(answer)
	if err != nil {
		delete(answer, "result")
		answer["error"] = errorObject{Code: -32603, Message: err.Error()}
		line, _ = encode(answer)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The daemon delivers anew what the connection had that it was sent on.
	if s == c.socket {
		c.enqueue(line, nil)
	}
}

func (c *conn) lost(s *socket, complete bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != c.socket {
		return
	}
	// What was never written has taken no effect: a daemon that was killed may have been connected to as it ended.
	for _, each := range s.out {
		if each.call != nil {
			each.call.sent = false
		}
	}
	// A stopping daemon answers all that it performed, then closes.
	answeredAll := c.state == leaving && complete
	c.socket = nil
	c.givenUp = map[int64]string{}
	if c.state == closed {
		return
	}
	c.state = down
	now := time.Now()
	worked := c.answered || now.Sub(c.opened) >= working
	if worked {
		c.pause = 0
	}
	for _, call := range c.inOrder() {
		if worked {
			call.waitsSince = now
		}
		wasSent := call.sent && !answeredAll
		call.sent = false
		call.mayHaveTakenEffect = call.mayHaveTakenEffect || wasSent
		if wasSent && !call.repeatable {
			delete(c.pending, call.id)
			call.lose("The connection ended before the answer to " + call.method + " came; it may have taken effect.")
		}
	}
	for w := range c.watchers {
		w.disconnected()
	}
	c.connectAgain()
}

func (c *conn) connectLoop() {
	for {
		c.mu.Lock()
		if c.state != down || len(c.pending)+len(c.watchers) == 0 {
			c.connecting = false
			c.mu.Unlock()
			return
		}
		pause := spread(c.pause)
		c.pause = between(firstPause, 2*c.pause, maxPause)
		for _, call := range c.pending {
			if left := time.Until(call.waitsSince.Add(c.reconnect)); left < pause {
				pause = left
			}
		}
		c.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-c.closed:
		}
		err := c.open()
		if err == nil {
			continue // The state tells whether to go on.
		}
		c.mu.Lock()
		for _, call := range c.inOrder() {
			if time.Since(call.waitsSince) >= c.reconnect {
				delete(c.pending, call.id)
				call.lose(fmt.Sprintf("No daemon answers on %s: %v.", c.path, err))
			}
		}
		if nobodyListens(err) {
			for w := range c.watchers {
				w.disconnected()
			}
		}
		c.mu.Unlock()
	}
}

func nobodyListens(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

func (c *conn) giveUp(call *pendingCall) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[call.id] == nil {
		if call.err == nil { // The answer had come already.
			go c.giveBack(call.method, call.result)
		}
		return
	}
	delete(c.pending, call.id)
	if call.sent && c.socket != nil {
		c.givenUp[call.id] = call.method
		if call.wait > 0 {
			// A daemon that does not know it ignores it: then the wait ends by itself.
			c.enqueue([]byte(fmt.Sprintf(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":%d}}`+"\n", call.id)), nil)
		}
	}
}

// giveBack gives back what a call was granted that nobody waits for any more. If that fails, it ends by its time.
func (c *conn) giveBack(method string, result json.RawMessage) {
	type proof struct {
		ClaimID       string `json:"claimId,omitempty"`
		LeaseToken    string `json:"leaseToken,omitempty"`
		LeaseID       string `json:"leaseId,omitempty"`
		ReservationID string `json:"reservationId,omitempty"`
		DelayMs       *int   `json:"delayMs,omitempty"`
	}
	var granted struct {
		Claim, Lease, Reservation *proof
		Leases                    []proof
	}
	if json.Unmarshal(result, &granted) != nil {
		return
	}
	for _, one := range []*proof{granted.Claim, granted.Lease, granted.Reservation} {
		if one != nil {
			granted.Leases = append(granted.Leases, *one)
		}
	}
	release := map[string]string{
		claimNoun.take: claimNoun.release, leaseNoun.take: leaseNoun.release, pathNoun.take: pathNoun.release,
		"command.lease": "command.release",
	}[method]
	for _, one := range granted.Leases {
		if release == "command.release" {
			one.DelayMs = new(int)
		}
		if release != "" {
			_, _ = c.call(context.Background(), release, one)
		}
	}
}
