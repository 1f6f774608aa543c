// Made from the nouns by `npm run openrpc`, not by hand.

package pawl

// repeatableMethods may be sent again: the rule is nil, or the key that is needed, and the param each element of which
// needs it.
var repeatableMethods = map[string][]string{
	"sequence.next":     {"requestId"},
	"sequence.reserve":  {"requestId"},
	"sequence.peek":     nil,
	"sequence.state":    nil,
	"sequence.format":   nil,
	"sequence.parse":    nil,
	"sequence.advance":  nil,
	"queue.enqueue":     {"sourceKey"},
	"queue.enqueueMany": {"sourceKey", "batches"},
	"queue.renew":       nil,
	"queue.complete":    nil,
	"queue.get":         nil,
	"queue.list":        nil,
	"queue.stats":       nil,
	"queue.update":      nil,
	"queue.cancel":      nil,
	"queue.configure":   nil,
	"queue.settings":    nil,
	"queue.throttle":    nil,
	"queue.explain":     nil,
	"deployment.set":    nil,
	"deployment.list":   nil,
	"command.create":    {"idempotencyKey"},
	"command.renew":     nil,
	"command.get":       nil,
	"command.params":    nil,
	"command.response":  nil,
	"command.wait":      nil,
	"command.list":      nil,
	"command.cancel":    nil,
	"lease.heartbeat":   nil,
	"lease.get":         nil,
	"lease.list":        nil,
	"lease.check":       nil,
	"pipeline.read":     nil,
	"pipeline.list":     nil,
	"pipeline.history":  nil,
	"pipeline.identity": nil,
	"pipeline.heads":    nil,
	"pipeline.changes":  nil,
	"pipeline.apply":    nil,
	"pipeline.watch":    nil,
	"pipeline.rebuild":  nil,
	"peer.trust":        nil,
	"peer.revoke":       nil,
	"peer.list":         nil,
	"daemon.ping":       nil,
	"daemon.info":       nil,
	"daemon.stats":      nil,
	"daemon.acceptCopy": nil,
	"rpc.discover":      nil,
}

// neverRepeated has values of params with which a repetition would do something again.
var neverRepeated = map[string][]string{
	"onExisting": {"append", "rerun"},
}
