// Package app is the running program: it opens the parts that a configuration names, wires
// them, serves on every listener until it is told to stop, drains, and closes all in order.
//
// Commands that need no running process share its way of compiling a configuration.
package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"espalier/configs"
	"espalier/pac"
	"espalier/pac/health"
	"espalier/pac/history"
	"espalier/policy/auth"
	"espalier/policy/lists"
	"espalier/proxy"
	"espalier/proxy/accesslog"
	"espalier/proxy/doctor"
	"espalier/proxy/inspect"
	"espalier/proxy/traffic"
	"espalier/web"
	"espalier/web/api"
	"espalier/web/certs"
	"espalier/web/explain"
	"espalier/web/public"
	"espalier/web/signin"
)

// An App is the running process: the parts, wired.
type App struct {
	options configs.Options
	watcher *configs.Watcher // of the configuration's files
	version string
	log     *zap.Logger
	level   zap.AtomicLevel
	node    string
	data    string // the data directory
	started time.Time
	stop    context.CancelFunc // begins the end
	asked   context.Context    // until then
	parts   []part             // that are open, in the order of their opening

	sockets sockets
	control controlSocket

	access     *accesslog.Log
	store      *accesslog.Store // nil: none is configured
	exceptions *inspect.Exceptions
	desk       *signin.Desk // who may use the console
	certs      *certs.Certs // of the listeners
	traffic    *traffic.Counters
	guard      *auth.Guard
	auth       *auth.Auth // of the configuration in force; replaced while reloading
	lists      *lists.Lists
	server     *proxy.Server
	health     *health.Prober // of the proxies that the script names
	fetches    func() []public.Fetches
	public     *http.Server
	admin      *http.Server

	draining  atomic.Bool
	reloading sync.Mutex               // one at a time
	closed    bool                     // nothing is reloaded any more; guarded by reloading
	made      atomic.Pointer[Compiled] // what is in force
	applied   chan struct{}            // another is
	exports   exports
	reload    atomic.Pointer[api.Reload]
}

// cfg is the configuration in force.
func (a *App) cfg() *configs.Config { return a.made.Load().loaded.Config }

// A part is something that is open, and how to close it.
type part struct {
	name  string
	close func() error
}

// opened notes a part, to be closed before those that were opened before it.
func (a *App) opened(name string, close func() error) {
	a.parts = append(a.parts, part{name, close})
}

// quietly is for parts whose closing cannot fail.
func quietly(close func()) func() error {
	return func() error { close(); return nil }
}

// close closes what is open, the last part first. Nothing is reloaded any more.
func (a *App) close() {
	a.reloading.Lock()
	a.closed = true
	a.reloading.Unlock()
	for i := len(a.parts) - 1; i >= 0; i-- {
		if err := a.parts[i].close(); err != nil {
			a.log.Error("the "+a.parts[i].name+" could not be closed", zap.Error(err))
		}
	}
}

// Open opens everything that a configuration names. Where it fails nothing stays open. A
// configuration that is invalid is a *ConfigError.
func Open(options configs.Options, version string) (_ *App, err error) {
	l, err := configs.Load(options)
	if err != nil {
		return nil, invalid(err)
	}
	watcher, err := configs.NewWatcher(watched(l)...)
	if err != nil {
		return nil, err
	}
	cfg := l.Config
	a := &App{
		options: options, watcher: watcher, version: version, data: cfg.Data, started: time.Now(), traffic: traffic.New(), health: health.New(),
		applied: make(chan struct{}, 1),
	}
	a.asked, a.stop = context.WithCancel(context.Background())
	if a.node, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("this machine's name, which stands in access records: %w", err)
	}
	a.log, a.level = newLogger(cfg.Log.Level)
	limitMemory(a.log)
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if a.sockets, err = listeners(cfg); err != nil {
		return nil, err
	}
	a.opened("listeners", quietly(a.sockets.close))
	if names := a.sockets.passed(); names != "" {
		a.log.Info("listening on sockets that were passed", zap.String("addresses", names))
	}
	if err := a.openConfigured(l); err != nil {
		return nil, err
	}
	a.serveWeb()
	if err := a.openControl(); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	a.access.KeepJournal(a.data, a.server.ReportTunnels, func(r *accesslog.Record) {
		a.traffic.Service(r.Service).Request(r.Action) // the process before has counted the bytes
	})
	return a, nil
}

// openConfigured opens what works by the configuration, and puts that into force. The
// access log is closed after all that may write to it, and its store, which follows it,
// last.
func (a *App) openConfigured(l *configs.Loaded) (err error) {
	cfg := l.Config
	if a.exceptions, err = inspect.OpenExceptions(cfg.Data); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	a.lists = newLists(cfg, a.log)
	if err := encrypted(cfg, a.sockets.addrs(forAdmin)); err != nil {
		return invalid(err)
	}
	a.guard = auth.OpenGuard(cfg.Data, a.log)
	a.opened("known sign-ins", a.guard.Close)
	a.desk = signin.NewDesk(cfg.Data, time.Now, a.guard)
	made, err := a.compile(l)
	if err != nil {
		return invalid(err)
	}
	if a.access, err = accesslog.Open(cfg.Log.Access, cfg.Data, a.node, a.log); err != nil {
		return fmt.Errorf("log.access.file: %w", err)
	}
	if err := a.openStore(cfg); err != nil {
		return fmt.Errorf("log.store.path: %w", err)
	}
	a.opened("access log", a.access.Close)
	a.opened("lists", quietly(a.lists.Close))
	a.certs = certs.New(cfg.Data, a.log)
	a.opened("certificates", quietly(a.certs.Close))
	if err := a.applyTLS(cfg); err != nil {
		return invalid(err)
	}
	a.server = proxy.New(cfg.Proxy, a.access, a.log, a.traffic)
	a.apply(made)
	a.opened("users", quietly(func() { a.auth.Close() }))
	return nil
}

// openStore opens the store of access records, where one is configured, and lets
// it follow the access log.
func (a *App) openStore(cfg *configs.Config) (err error) {
	if cfg.Log.Store.Path == "" {
		return nil
	}
	if a.store, err = accesslog.OpenStore(cfg.Log.Store, cfg.Data, a.log); err != nil {
		return err
	}
	a.opened("store of access records", a.store.Close)
	return a.access.Feed(a.store)
}

// serveWeb makes the servers of the public and the admin listeners, and of the control
// socket.
func (a *App) serveWeb() {
	devices := public.New(public.Source{
		PAC: func() *pac.PAC { return a.made.Load().PAC }, Proxy: a.sockets.addrs(forProxy), Health: a.health,
		Root: a.caRoot, RootProfile: a.rootProfile,
		Export: a.export, URL: a.publicURL, About: a.about, Ready: a.ready, Log: a.log,
	})
	collectors := []prometheus.Collector{
		a.traffic, a.lists, a.certs, a.access, a.server, a.guard.Collector(), devices.Collector(),
		inspect.Expiry(func() *inspect.CA { return a.made.Load().ca }), a.exceptions.Collector(),
	}
	if a.store != nil {
		collectors = append(collectors, a.store)
	}
	control := api.Control{
		Status: a.status, Services: a.traffic.Snapshot, Exceptions: a.exceptions, Store: a.store,
		Explainer: func() *explain.Explainer { return a.made.Load().explainer }, Profile: a.profile,
		Settings: func() []api.Setting { return a.made.Load().loaded.Settings() },
		History:  history.New(a.data), Doctor: doctor.NewRunner(a.doctor), Desk: a.desk, Hosts: a.consoleNames, Log: a.log,
		Metrics: web.NewRegistry(a.version, func() api.Reload { return *a.reload.Load() }, collectors...),
		Reload:  a.Reload, RefreshLists: a.lists.Refresh, RenewTLS: a.certs.Renew, Drain: a.stop, SetupLink: a.setupLink,
	}
	a.public, a.fetches = devices.Server(), devices.Fetches
	a.public.ConnState = a.server.Room().ConnState
	a.admin, a.control.server = web.AdminServer(control), web.ControlServer(control)
	for _, s := range []*http.Server{a.public, a.admin} {
		s.Handler = a.certs.Challenge(s.Handler)
		a.opened("web server", quietly(func() { s.Close() }))
	}
}

// ready says why no device should come here.
func (a *App) ready() error {
	if a.server.Draining() {
		return errors.New("draining")
	}
	if why := a.server.Overloaded(); why != "" {
		return errors.New("overloaded: " + why)
	}
	return nil
}
