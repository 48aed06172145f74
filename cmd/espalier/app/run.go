package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"espalier/configs"
	"espalier/proxy"
)

// Run answers on every listener until ctx ends, a signal or the control socket asks for
// the end, or a listener fails, and then drains and closes everything. announce is given
// what a start says.
func (a *App) Run(ctx context.Context, announce func(Summary) error) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	go a.handleSignals(signals)
	if err := announce(a.summary()); err != nil {
		a.log.Warn("the summary could not be written", zap.Error(err))
	}
	defer context.AfterFunc(ctx, a.stop)()
	serving, ended := errgroup.WithContext(a.asked)
	for _, on := range a.sockets {
		serving.Go(func() error { return a.answer(ended, on) })
	}
	serving.Go(func() error { return a.serveControl(ended) })

	living, dying := context.WithCancel(context.WithoutCancel(ctx)) // while draining too
	var background sync.WaitGroup
	for _, part := range []func(context.Context){
		a.feedWatchdog, a.watchCA, a.certs.Keep, a.health.Run, a.watchParents, a.keepExceptions, a.watch,
	} {
		background.Go(func() { part(living) })
	}
	a.notify(daemon.SdNotifyReady)
	<-ended.Done()
	a.drain()
	dying()
	background.Wait()
	return serving.Wait()
}

// answer serves what a socket is for, until it is closed behind the end of ctx.
func (a *App) answer(ctx context.Context, on socket) error {
	l := on.Listener
	if on.passed {
		l = proxy.Shared{Listener: l}
	}
	switch on.purpose {
	case forProxy:
		return a.server.Serve(l)
	case forTLS:
		return a.server.ServeTLS(l, a.certs.TLS("h2", "http/1.1"))
	case forPublic:
		return serveHTTP(ctx, a.public, a.speaksTLS(on.Listener))
	}
	return serveHTTP(ctx, a.admin, a.speaksTLS(on.Listener))
}

func serveHTTP(ctx context.Context, s *http.Server, l net.Listener) error {
	if err := s.Serve(l); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil // it was closed
}

// drain closes the proxy's listeners, waits for what is open until
// proxy.drain_timeout, and stops. The PAC script stays to be had meanwhile, so
// that devices find the other proxies, unless the next process serves it.
func (a *App) drain() {
	a.notify(daemon.SdNotifyStopping)
	a.draining.Store(true)
	timeout := a.cfg().Proxy.DrainTimeout
	a.log.Info("draining: no new connections", zap.Int("tunnels", a.server.Tunnels()), zap.Duration("timeout", timeout))
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	a.release()
	// The script is to name this proxy last as soon as its listeners are closed,
	// which Shutdown does first.
	closed := time.AfterFunc(100*time.Millisecond, a.health.Hurry)
	defer closed.Stop()
	if cut := a.server.Shutdown(ctx); cut > 0 {
		a.log.Warn("tunnels were still open after proxy.drain_timeout and are cut", zap.Int("tunnels", cut))
	}
	a.close()
	a.log.Info("stopped")
}

// keepExceptions saves the exceptions from interception until ctx ends.
func (a *App) keepExceptions(ctx context.Context) {
	a.exceptions.Keep(ctx, a.data, func(err error) {
		a.log.Error("the exceptions from interception could not be saved", zap.Error(err))
	})
}

// handleSignals acts on signals until the process ends.
func (a *App) handleSignals(signals <-chan os.Signal) {
	reloads := make(chan struct{}, 1)
	go func() { // a reload that takes long does not hold up the end
		for range reloads {
			_ = a.Reload() // it has logged what is wrong
		}
	}()
	stopping := false
	for s := range signals {
		switch {
		case s == syscall.SIGHUP:
			select {
			case reloads <- struct{}{}:
			default: // one that has not begun will do
			}
		case stopping:
			a.log.Warn("stopped at once, by a second signal")
			_ = a.access.Interrupt()
			os.Exit(1)
		default:
			stopping = true
			a.stop()
		}
	}
}

// watch reloads when a file of the configuration changes, and reads lists again
// when theirs do.
func (a *App) watch(ctx context.Context) {
	a.watcher.Run(ctx, func(changed []string) {
		known := listFiles(a.cfg())
		if slices.ContainsFunc(changed, func(name string) bool { return !slices.Contains(known, name) }) {
			_ = a.Reload() // it has logged what is wrong
			a.watcher.Follow(watched(a.made.Load().loaded)...)
		}
		a.lists.Reread() // behind Follow, so that no change is missed
	})
}

// watched are the files whose changes matter.
func watched(l *configs.Loaded) []string { return slices.Concat(l.Files, listFiles(l.Config)) }
