package app

import (
	"context"
	"sync"

	"go.uber.org/zap"
)

// watchParents watches until ctx ends whether the parents of the configuration in
// force lead back to this proxy.
func (a *App) watchParents(ctx context.Context) {
	for ctx.Err() == nil {
		watching, stop := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() { a.made.Load().State.Dialer.Watch(watching, a.parentLoops) })
		select {
		case <-a.applied:
		case <-ctx.Done():
		}
		stop()
		watch.Wait()
	}
}

func (a *App) parentLoops(parent string, loops bool) {
	if loops {
		a.log.Error("parent proxy leads back to this proxy; requests through it are refused", zap.String("parent", parent))
	} else {
		a.log.Info("parent proxy no longer leads back to this proxy", zap.String("parent", parent))
	}
}
