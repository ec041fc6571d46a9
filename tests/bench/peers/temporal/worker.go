package main

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const (
	taskQueue = "orders"
	// Type of the error by which a participant says a business no.
	refused = "Refused"
)

// Order is the input of a saga: the bench's 200 bytes.
type Order struct {
	Order string `json:"order"`
}

// PlaceOrder is the saga: each step, and on a refusal the steps before it back, in reverse.
func PlaceOrder(ctx workflow.Context, order Order) (err error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 10 * time.Second,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, NonRetryableErrorTypes: []string{refused}},
	})
	id := workflow.GetInfo(ctx).WorkflowExecution.ID
	var compensations []func(workflow.Context) error
	defer func() {
		if err == nil {
			return
		}
		// A cancelled workflow compensates all the same.
		ctx, _ := workflow.NewDisconnectedContext(ctx)
		for i := len(compensations) - 1; i >= 0; i-- {
			// A workflow that could not compensate ends as that, never as refused.
			if failed := compensations[i](ctx); failed != nil {
				err = failed
			}
		}
	}()
	for place := range placeNames {
		if err := workflow.ExecuteActivity(ctx, placeNames[place], id, order).Get(ctx, nil); err != nil {
			return err
		}
		compensations = append(compensations, func(ctx workflow.Context) error {
			return workflow.ExecuteActivity(ctx, "undo-"+placeNames[place], id, order).Get(ctx, nil)
		})
	}
	return nil
}

// runWorker is the user's process: workflow code and the three participants, so that Temporal may hand an activity
// over with the workflow task that asked for it ("eager").
func runWorker(address string) error {
	connection, err := client.Dial(client.Options{HostPort: address, Namespace: namespace, Logger: quiet{}})
	if err != nil {
		return err
	}
	defer connection.Close()
	autoscaling := worker.NewPollerBehaviorAutoscaling(worker.PollerBehaviorAutoscalingOptions{})
	orders := worker.New(connection, taskQueue, worker.Options{
		WorkflowTaskPollerBehavior: autoscaling,
		ActivityTaskPollerBehavior: autoscaling,
	})
	orders.RegisterWorkflow(PlaceOrder)
	books := newBooks()
	for place, name := range placeNames {
		do := func(_ context.Context, id string, _ Order) error {
			key, err := keyOf(id, place)
			if err != nil {
				return err
			}
			if !books.do(key) {
				return temporal.NewApplicationErrorWithOptions("as planned", refused, temporal.ApplicationErrorOptions{
					NonRetryable: true,
					Category:     temporal.ApplicationErrorCategoryBenign,
				})
			}
			return nil
		}
		undo := func(_ context.Context, id string, _ Order) error {
			key, err := keyOf(id, place)
			if err != nil {
				return err
			}
			books.undo(key)
			return nil
		}
		orders.RegisterActivityWithOptions(do, activityNamed(name))
		orders.RegisterActivityWithOptions(undo, activityNamed("undo-"+name))
	}
	if err := orders.Start(); err != nil {
		return err
	}
	defer orders.Stop()
	fmt.Println("ready")
	return serveLedger(books)
}
