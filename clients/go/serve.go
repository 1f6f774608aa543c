package pawl

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
)

const (
	maxAnswerText = 4096
	// An answer that may be longer than a line is sent in pieces.
	longAnswerBytes = 48 << 10
	maxPieceBytes   = 512 << 10
	// By how many bytes a request is longer than the piece it carries, at most.
	requestBytes = 1024
)

// Envelope is a command as its receiver gets it.
type Envelope = CommandExecuteParams

// CommandHandler carries a command out and gives its answer; *CommandError chooses the code of an error.
type CommandHandler func(ctx context.Context, envelope *Envelope) (answer any, err error)

// ServeOptions say how commands are carried out.
type ServeOptions struct {
	// Concurrency is how many commands are carried out at a time.
	Concurrency int
	// Params are further ones of command.serve, as they travel: owner, targets, incarnation, executionMs.
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
	o := valueOf(options)
	if o.Concurrency == 0 {
		o.Concurrency = 1
	}
	r := &receiver{client: c, handlers: handlers, refused: make(chan error, 1), running: map[string]func(){}, up: make(chan struct{}, 1)}
	r.params = merged(map[string]any{"deployment": deployment, "owner": defaultOwner(), "max": o.Concurrency}, o.Params)
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

func (r *receiver) clientClosed() {}

// disconnected: the daemon delivers anew what this connection had.
func (r *receiver) disconnected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, stop := range r.running {
		stop()
	}
}

func (r *receiver) subscribe(ctx context.Context) {
	for pause := firstWorkPause; ctx.Err() == nil; pause = between(pause, 2*pause, maxWorkPause) {
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
		pauseFor(ctx, pause)
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
	if err = c.readParams(ctx, &envelope); err == nil {
		answer, err = handler(ctx, &envelope)
	}
	if err == nil {
		answer, err = c.fitting(ctx, &envelope, answer)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, envelope.CommandID)
	return answer, r.idle.Done, err
}

// readParams reads params that are too long for a line, in pieces.
func (c *Client) readParams(ctx context.Context, envelope *Envelope) error {
	if !isUpload(envelope.Params) {
		return nil
	}
	text, err := c.readPieces(ctx, "command.params", envelope.CommandID)
	envelope.Params = text
	return err
}

// isUpload is true for what stands in the place of a JSON value that is too long for a line.
func isUpload(value json.RawMessage) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal(value, &members) == nil && len(members) == 1 && members["$upload"] != nil
}

// readPieces reads the JSON text of long params or of a long answer.
func (c *Client) readPieces(ctx context.Context, method, commandID string) (text []byte, err error) {
	for {
		var read struct {
			Chunk     []byte
			SizeBytes int
		}
		if err = c.Call(ctx, method, map[string]any{"commandId": commandID, "offset": len(text)}, &read); err != nil {
			return
		}
		text = append(text, read.Chunk...)
		if len(read.Chunk) == 0 || len(text) >= read.SizeBytes {
			return
		}
	}
}

// fitting gives an answer that fits into a line as it is, and sends a longer one in pieces: those are what counts then.
func (c *Client) fitting(ctx context.Context, envelope *Envelope, answer any) (any, error) {
	text, err := encode(map[string]any{"status": "success", "response": answer})
	if err != nil || len(text) <= longAnswerBytes {
		return answer, err
	}
	var info struct{ Limits struct{ MaxMessageBytes int } }
	if err := c.Call(ctx, "daemon.info", nil, &info); err != nil {
		return nil, err
	}
	pieceBytes := (info.Limits.MaxMessageBytes - requestBytes) / 4 * 3
	if pieceBytes > maxPieceBytes {
		pieceBytes = maxPieceBytes
	}
	for offset := 0; ; {
		end := offset + pieceBytes
		if end > len(text) {
			end = len(text)
		}
		params := map[string]any{
			"commandId": envelope.CommandID, "leaseId": envelope.LeaseID, "sizeBytes": len(text),
			"offset": offset, "chunk": text[offset:end], "final": end == len(text),
		}
		var answered struct {
			ReceivedBytes *int
			Accepted      *bool
		}
		err := c.Call(ctx, "command.answer", params, &answered)
		var refusal *Error
		if errors.As(err, &refusal) {
			// Where the next piece begins is what the daemon says it is.
			_ = refusal.Details(&answered)
			if answered.ReceivedBytes == nil || *answered.ReceivedBytes == offset {
				return nil, err
			}
		} else if errors.Is(err, ErrConnectionLost) && !c.conn.isClosed() {
			continue // The next try is told whether it was received.
		} else if err != nil {
			return nil, err
		} else if end == len(text) || answered.Accepted != nil {
			return nil, nil
		}
		offset = *answered.ReceivedBytes
	}
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
	var created struct{ CommandID string }
	all := merged(map[string]any{"deployment": deployment, "command": command, "params": body}, params)
	if err = c.Call(ctx, "command.create", all, &created); err != nil || wait <= 0 {
		return created.CommandID, nil, err
	}
	id := map[string]any{"commandId": created.CommandID}
	if err = c.Call(ctx, "command.wait", merged(map[string]any{"waitMs": wait.Milliseconds()}, id), nil); err != nil {
		return created.CommandID, nil, err
	}
	var answered struct{ Response json.RawMessage }
	if err = c.Call(ctx, "command.response", id, &answered); err == nil && isUpload(answered.Response) {
		answered.Response, err = c.readPieces(ctx, "command.response", created.CommandID)
	}
	if err == nil {
		err = json.Unmarshal(answered.Response, &answer)
	}
	return created.CommandID, answer, err
}
