// Made from the nouns by `npm run openrpc`, not by hand.

package pawl

import "encoding/json"

// NumberedID: A number of a type, and the id made of it.
type NumberedID struct {
	Type string `json:"type"`
	Seq  int64  `json:"seq"`
	ID   string `json:"id"`
}

// SequenceReserveResult: Result of sequence.reserve.
type SequenceReserveResult struct {
	Type    string `json:"type"`
	First   int64  `json:"first"`
	Last    int64  `json:"last"`
	FirstID string `json:"firstId"`
	LastID  string `json:"lastId"`
}

// MergeGroup: A group of a name that the caller chose.
type MergeGroup struct {
	Group string `json:"group"`
}

// Retry: How long a batch or a command rests after a delivery that ended without success: `baseMs * factor^(n - 1)`, at most `maxMs`.
type Retry struct {
	BaseMs int64   `json:"baseMs"`
	Factor float64 `json:"factor"`
	MaxMs  int64   `json:"maxMs"`
	Jitter bool    `json:"jitter"`
}

// Trace: The trace that the work belongs to (W3C Trace Context), handed on with the claim and no part of the content.
type Trace struct {
	Traceparent string `json:"traceparent"`
	Tracestate  string `json:"tracestate"`
}

// BatchHolder: Who holds a batch now.
type BatchHolder struct {
	Owner        string `json:"owner"`
	ClaimID      string `json:"claimId"`
	FencingToken int64  `json:"fencingToken"`
	ExpiresAt    int64  `json:"expiresAt"`
	RemainingMs  int64  `json:"remainingMs"`
}

// Progress: How far the work has come, as its holder said.
type Progress struct {
	Percent float64 `json:"percent"`
	Note    string  `json:"note"`
}

// Batch: Work of a queue: payloads that are claimed, completed and retried together.
type Batch struct {
	BatchID        string            `json:"batchId"`
	Queue          string            `json:"queue"`
	EnqueueSeq     int64             `json:"enqueueSeq"`
	Payloads       []json.RawMessage `json:"payloads"`
	Priority       int64             `json:"priority"`
	Key            *string           `json:"key"`
	SourceKey      *string           `json:"sourceKey"`
	DeliveryPolicy string            `json:"deliveryPolicy"`
	SlotPolicy     string            `json:"slotPolicy"`
	MergeKey       json.RawMessage   `json:"mergeKey"`
	State          string            `json:"state"`
	Attempt        int64             `json:"attempt"`
	MaxAttempts    int64             `json:"maxAttempts"`
	Retry          *Retry            `json:"retry"`
	EnqueuedAt     int64             `json:"enqueuedAt"`
	AvailableAt    int64             `json:"availableAt"`
	ExpiresAt      int64             `json:"expiresAt"`
	RemainingMs    int64             `json:"remainingMs"`
	After          []string          `json:"after"`
	When           string            `json:"when"`
	Trace          *Trace            `json:"trace"`
	Claim          *BatchHolder      `json:"claim"`
	Progress       *Progress         `json:"progress"`
	Checkpoint     json.RawMessage   `json:"checkpoint"`
	Result         json.RawMessage   `json:"result"`
	LastError      string            `json:"lastError"`
}

// QueueEnqueueResult: Result of queue.enqueue.
type QueueEnqueueResult struct {
	Batch   Batch  `json:"batch"`
	Created bool   `json:"created"`
	Outcome string `json:"outcome"`
}

// QueueRenewResult: Result of queue.renew.
type QueueRenewResult struct {
	ExpiresAt   int64 `json:"expiresAt"`
	RemainingMs int64 `json:"remainingMs"`
	Cancelling  bool  `json:"cancelling"`
}

// Parent: A batch that a claimed one has waited for.
type Parent struct {
	State  string          `json:"state"`
	Result json.RawMessage `json:"result"`
}

// Claim: Batches that one owner works on, until the claim ends.
type Claim struct {
	ClaimID      string            `json:"claimId"`
	LeaseToken   string            `json:"leaseToken"`
	FencingToken int64             `json:"fencingToken"`
	Queue        string            `json:"queue"`
	Owner        string            `json:"owner"`
	ClaimedAt    int64             `json:"claimedAt"`
	ExpiresAt    int64             `json:"expiresAt"`
	RemainingMs  int64             `json:"remainingMs"`
	Batches      []Batch           `json:"batches"`
	Parents      map[string]Parent `json:"parents"`
}

// Lease: A lease as its holder has it.
type Lease struct {
	Name         string   `json:"name"`
	LeaseID      string   `json:"leaseId"`
	FencingToken int64    `json:"fencingToken"`
	Owner        string   `json:"owner"`
	Mode         string   `json:"mode"`
	Slots        int64    `json:"slots"`
	Members      []string `json:"members"`
	AcquiredAt   int64    `json:"acquiredAt"`
	ExpiresAt    int64    `json:"expiresAt"`
	RemainingMs  int64    `json:"remainingMs"`
}

// Reservation: A reservation as its holder has it.
type Reservation struct {
	ReservationID string   `json:"reservationId"`
	Root          string   `json:"root"`
	Patterns      []string `json:"patterns"`
	Mode          string   `json:"mode"`
	FencingToken  int64    `json:"fencingToken"`
	ExpiresAt     int64    `json:"expiresAt"`
	RemainingMs   int64    `json:"remainingMs"`
}

// CommandExecuteParams: Params of command.execute.
type CommandExecuteParams struct {
	LeaseID     string          `json:"leaseId"`
	Protocol    string          `json:"protocol"`
	CommandID   string          `json:"commandId"`
	Deployment  string          `json:"deployment"`
	Target      string          `json:"target"`
	Command     string          `json:"command"`
	Attempt     int64           `json:"attempt"`
	Deadline    *int64          `json:"deadline"`
	ExecutionMs *int64          `json:"executionMs"`
	Params      json.RawMessage `json:"params"`
	Checkpoint  json.RawMessage `json:"checkpoint"`
	Trace       *Trace          `json:"trace"`
}
