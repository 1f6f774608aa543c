// Package pawl is a client of pawld: numbers that never repeat, work that one process holds, leases, commands.
//
//	client, err := pawl.Connect(ctx, nil)
//	defer client.Close()
//	number, err := client.Next(ctx, "FR")
//	err = client.Lock(ctx, "deploy", nil, func(ctx context.Context, lease *pawl.Held) error {
//		return deploy(ctx, lease.FencingToken)
//	})
//	err = client.Work(ctx, "mail", nil, func(ctx context.Context, work *pawl.Work) (any, error) {
//		return nil, send(ctx, work.Payloads)
//	})
//
// The context of a function is done when what it holds is lost. Calls that may be repeated are, over restarts of the
// daemon; the others fail with *ConnectionLostError.
package pawl
