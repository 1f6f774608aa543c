// Calls, is notified and is asked through github.com/sourcegraph/jsonrpc2, as it comes, and prints what came as JSON:
// GO111MODULE=off GOPATH=/usr/share/gocode go run sourcegraph.go SOCKET
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"os"

	"github.com/sourcegraph/jsonrpc2"
)

const name = "sourcegraph"

type object map[string]any

func main() {
	ctx := context.Background()
	socket, err := net.Dial("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	came := make(chan []string, 2)
	handle := func(_ context.Context, _ *jsonrpc2.Conn, request *jsonrpc2.Request) (any, error) {
		var params struct {
			Name, Command string
			Params        json.RawMessage
		}
		if err := json.Unmarshal(*request.Params, &params); err != nil {
			return nil, err
		}
		came <- []string{request.Method, params.Name + params.Command}
		return params.Params, nil
	}
	connection := jsonrpc2.NewConn(ctx, jsonrpc2.NewBufferedStream(socket, jsonrpc2.VSCodeObjectCodec{}), jsonrpc2.HandlerWithError(handle))
	call := func(method string, params object) (result object) {
		if err := connection.Call(ctx, method, params, &result); err != nil {
			log.Fatal(method, ": ", err)
		}
		return result
	}
	call("daemon.ping", nil)
	call("lease.acquire", object{"name": name, "owner": name})
	call("lease.break", object{"name": name, "reason": "test"})
	notified := <-came
	call("command.serve", object{"deployment": name, "owner": name})
	sent := call("command.create", object{"deployment": name, "command": "go", "params": []string{"é"}})
	asked := <-came
	state := call("command.wait", object{"commandId": sent["commandId"], "waitMs": 60_000})["state"]
	if err := json.NewEncoder(os.Stdout).Encode([]any{notified, asked, state}); err != nil {
		log.Fatal(err)
	}
}
