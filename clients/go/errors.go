package pawl

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Error is a refusal of the daemon. Match on its kind, by errors.Is with one of the Err values or by errors.As.
type Error struct {
	// Kind is what programs match on: "lease_held".
	Kind string
	// Code is that of JSON-RPC.
	Code int
	// Message is a sentence for people.
	Message string
	// Retryable says whether the same request may succeed later.
	Retryable bool
	// Data has the details, as they travel.
	Data json.RawMessage
}

func (e *Error) Error() string { return e.Message }

// Is makes errors.Is(err, ErrLeaseHeld) true for every error of that kind.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Message == "" && other.Kind == e.Kind
}

// Details decodes the details of the error into a struct or a map.
func (e *Error) Details(into any) error { return json.Unmarshal(e.Data, into) }

// Kinds that programs often match on. Every other is matched by its name: errors.Is(err, pawl.Kind("bad_shape")).
var (
	ErrNotFound      = Kind("not_found")
	ErrConflict      = Kind("conflict")
	ErrLeaseHeld     = Kind("lease_held")
	ErrClaimLost     = Kind("claim_lost")
	ErrLeaseLost     = Kind("lease_lost")
	ErrUnavailable   = Kind("unavailable")
	ErrWouldDeadlock = Kind("would_deadlock")
)

// ErrConnectionLost matches every *ConnectionLostError.
var ErrConnectionLost = errors.New("the connection to the daemon was lost")

// Kind is an error to compare with by errors.Is.
func Kind(kind string) *Error { return &Error{Kind: kind} }

// ConnectionLostError says that the connection ended, or that there is none.
type ConnectionLostError struct {
	Message string
	// Method is that of the call whose answer was lost, or "".
	Method string
	// MayHaveTakenEffect is false only if the request certainly was not performed.
	MayHaveTakenEffect bool
}

func (e *ConnectionLostError) Error() string { return e.Message }

// Is makes errors.Is(err, ErrConnectionLost) true.
func (e *ConnectionLostError) Is(target error) bool { return target == ErrConnectionLost }

// PostponeError is returned by a handler that cannot do the work now: it is given back, and this counts as no attempt.
type PostponeError struct{ Delay time.Duration }

func (e *PostponeError) Error() string { return fmt.Sprintf("the work is postponed by %s", e.Delay) }

// CommandError is returned by the handler of a command: the answer is an error with this code.
type CommandError struct {
	Code    string
	Message string
	Details any
}

func (e *CommandError) Error() string { return e.Message }

// refuse makes an error of a kind on this side.
func refuse(kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: -32603, Message: fmt.Sprintf(format, args...), Data: json.RawMessage("{}")}
}

// errorObject is the error of a JSON-RPC response.
type errorObject struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data,omitempty"`
}

func (o *errorObject) error() *Error {
	data := struct {
		Kind      string
		Retryable bool
	}{Kind: "internal"}
	_ = json.Unmarshal(o.Data, &data)
	return &Error{Kind: data.Kind, Code: o.Code, Message: o.Message, Retryable: data.Retryable, Data: o.Data}
}

// reasonOf gives the details' reason of a refusal, or "".
func reasonOf(err error) string {
	var refusal *Error
	var details struct{ Reason string }
	if errors.As(err, &refusal) {
		_ = refusal.Details(&details)
	}
	return details.Reason
}

// isLoss is true for a refusal that says that what was to be renewed or ended is not held any more.
func isLoss(err error) bool {
	return errors.Is(err, ErrClaimLost) || errors.Is(err, ErrLeaseLost) || errors.Is(err, ErrNotFound)
}

// isPassing is true if the same call may succeed later.
func isPassing(err error) bool {
	var refusal *Error
	return errors.Is(err, ErrConnectionLost) || errors.As(err, &refusal) && refusal.Retryable
}

// isForGood is true for a refusal that stays the same however often one asks.
func isForGood(err error) bool {
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Retryable {
		return false
	}
	switch refusal.Kind {
	case "invalid_request", "invalid_params", "method_not_found", "read_only", "forbidden", "exhausted":
		return true
	}
	return false
}

// textOf is the text of an error as the daemon takes it, which counts in UTF-16: up to two units for each.
func textOf(err error, most int) string {
	text := []rune(strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\x00", "?"), "?"))
	if len(text) > most/2 {
		text = text[:most/2]
	}
	if len(text) == 0 {
		return "unknown"
	}
	return string(text)
}
