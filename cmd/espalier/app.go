package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
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

// app is the running process: the parts, wired.
type app struct {
	options configs.Options
	log     *zap.Logger
	level   zap.AtomicLevel
	node    string
	data    string // the data directory
	started time.Time
	cancel  context.CancelFunc // begins the shutdown

	sockets

	controlMu sync.Mutex
	controlOn net.Listener // nil while another process has it
	released  bool         // it is another's to take, now and from now on

	access     *accesslog.Log
	store      *accesslog.Store // nil: none is configured
	exceptions *inspect.Exceptions
	desk       *signin.Desk // who may use the console
	certs      *certs.Certs // of the listeners
	traffic    *traffic.Counters
	auth       *auth.Auth // of the configuration in force; replaced while reloading
	lists      *lists.Lists
	server     *proxy.Server
	public     *http.Server
	fetches    func() []public.Fetches
	admin      *http.Server
	control    *http.Server

	stopping  atomic.Bool // the drain has begun
	reloading sync.Mutex  // one at a time
	closed    bool        // nothing is reloaded any more; guarded by reloading
	current   atomic.Pointer[configs.Loaded]
	script    atomic.Pointer[pac.PAC]
	made      atomic.Pointer[compiled] // what is in force
	exports   exports
	applied   chan struct{} // another is
	explainer atomic.Pointer[explain.Explainer]
	health    *health.Prober // of the proxies that the script names
	ca        atomic.Pointer[caInForce]
	reload    atomic.Pointer[api.Reload]
}

// newApp opens everything that l names. Where it fails nothing stays open.
func newApp(options configs.Options, l *configs.Loaded, cancel context.CancelFunc) (_ *app, err error) {
	cfg := l.Config
	a := &app{options: options, data: cfg.Data, started: time.Now(), cancel: cancel, traffic: traffic.New(), health: health.New(), applied: make(chan struct{}, 1)}
	if a.node, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("this machine's name, which stands in access records: %w", err)
	}
	a.log, a.level = newLogger(cfg.Log.Level)
	limitMemory(a.log)
	defer func() {
		if err != nil {
			a.closeAll()
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if a.sockets, err = listeners(cfg); err != nil {
		return nil, err
	}
	if len(a.passed) > 0 {
		a.log.Info("listening on sockets that were passed", zap.String("addresses", describe(a.passed)))
	}
	if a.exceptions, err = inspect.OpenExceptions(cfg.Data); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	a.lists = newLists(cfg, a.log)
	if err := encrypted(cfg, a.adminOn); err != nil {
		return nil, usage(err)
	}
	a.desk = signin.NewDesk(cfg.Data, time.Now)
	made, err := a.compile(cfg)
	if err != nil {
		return nil, usage(err)
	}
	if a.access, err = accesslog.Open(cfg.Log.Access, cfg.Data, a.node, a.log); err != nil {
		return nil, fmt.Errorf("log.access.file: %w", err)
	}
	if err = a.openStore(cfg); err != nil {
		return nil, fmt.Errorf("log.store.path: %w", err)
	}
	a.certs = certs.New(cfg.Data, a.log)
	if err := a.applyTLS(cfg); err != nil {
		return nil, usage(err)
	}
	a.server = proxy.New(cfg.Proxy, a.access, a.log, a.traffic)
	a.apply(l, made)

	control := api.Control{
		Status: a.status, Services: a.traffic.Snapshot, Exceptions: a.exceptions, Store: a.store,
		Explainer: a.explainer.Load, Profile: a.profile, Settings: func() []api.Setting { return a.current.Load().Settings() },
		History: history.New(a.data), Doctor: doctor.NewRunner(a.doctor), Desk: a.desk, Hosts: a.consoleNames, Log: a.log,
		Reload: a.reloadConfig, RefreshLists: a.lists.Refresh, RenewTLS: a.certs.Renew, Drain: cancel, SetupLink: a.setupLink,
	}
	devices := public.New(public.Source{
		PAC: a.script.Load, Proxy: addrPorts(a.proxyOn), Health: a.health, Root: a.caRoot, RootProfile: a.rootProfile,
		Export: a.export, URL: a.publicURL, About: a.about, Ready: a.ready, Log: a.log,
	})
	collectors := []prometheus.Collector{
		a.traffic, a.lists, a.certs, a.access, a.server, a.auth.Collector(), devices.Collector(),
		inspect.Expiry(func() *inspect.CA { return a.ca.Load().ca }), a.exceptions.Collector(),
	}
	if a.store != nil {
		collectors = append(collectors, a.store)
	}
	control.Metrics = web.NewRegistry(programVersion(), func() api.Reload { return *a.reload.Load() }, collectors...)
	a.public, a.fetches = devices.Server(), devices.Fetches
	a.public.Handler = a.certs.Challenge(a.public.Handler)
	a.public.ConnState = a.server.Room().ConnState
	a.admin = web.AdminServer(control)
	a.admin.Handler = a.certs.Challenge(a.admin.Handler)
	a.control = web.ControlServer(control)
	if _, err = a.takeControl(); err != nil && !(a.handover() && errors.Is(err, web.ErrRunning)) {
		return nil, fmt.Errorf("data: %w", err)
	}
	a.access.KeepJournal(a.data, a.server.ReportTunnels, func(r *accesslog.Record) {
		a.traffic.Service(r.Service).Request(r.Action) // the process before has counted the bytes
	})
	return a, nil
}

// apply puts a configuration into force.
func (a *app) apply(l *configs.Loaded, made *compiled) {
	a.lists.Use(made.lists, listTransport(made.state.Dialer, made.state.Roots))
	a.server.Apply(made.state)
	if a.auth != nil {
		a.auth.Close()
	}
	a.auth = made.state.Auth
	a.script.Store(made.pac)
	explainer := made.explainer(l.Config, addrPorts(a.proxyOn))
	explainer.Up = a.health.Up
	a.explainer.Store(explainer)
	a.health.Watch(made.pac.Probed())
	if err := keepScripts(history.New(a.data), made.pac, addrPorts(a.proxyOn), l.Hash); err != nil {
		a.log.Warn("the PAC script was not kept in its history", zap.Error(err))
	}
	a.ca.Store(&made.ca)
	a.made.Store(made)
	select {
	case a.applied <- struct{}{}:
	default:
	}
	a.desk.SetUsers(l.Config.UsersFile(), made.users)
	a.exceptions.SetDuration(l.Config.Inspect.Pinned.For)
	_ = a.level.UnmarshalText([]byte(l.Config.Log.Level)) // validated
	a.current.Store(l)
	now := time.Now()
	a.reload.Store(&api.Reload{File: a.options.File, Time: now, OK: true, Loaded: now})
	for _, w := range l.Warnings {
		a.log.Warn(w.Error())
	}
	a.warnOfCA()
}

// reloadConfig reads the configuration again. Where anything is wrong with it,
// the one in force stays, and the error says all that is wrong. It works while
// draining too, until everything is closed.
func (a *app) reloadConfig() error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if a.closed {
		return errors.New("the process is stopping")
	}
	a.notifyReloading()
	defer a.notify(daemon.SdNotifyReady)
	l, err := configs.Load(a.options)
	var made *compiled
	if err == nil {
		made, err = a.compile(l.Config)
	}
	if err == nil {
		err = a.applyTLS(l.Config)
	}
	if err != nil {
		before := a.reload.Load()
		a.reload.Store(&api.Reload{
			File: a.options.File, Time: time.Now(), Loaded: before.Loaded,
			Problems: strings.Split(err.Error(), "\n"),
		})
		a.log.Error("the configuration was not reloaded, the one before stays in force", zap.Error(err))
		return err
	}
	if keys := configs.RestartKeys(a.current.Load().Config, l.Config); len(keys) > 0 {
		a.log.Warn("the configuration was reloaded, but these keys take effect at the next start only", zap.Strings("keys", keys))
	}
	a.apply(l, made)
	a.lists.Reread()
	a.log.Info("the configuration was reloaded", zap.String("file", a.options.File))
	return nil
}

// serve answers on every listener until ctx ends, then drains.
func (a *app) serve(ctx context.Context) error {
	failed := make(chan error, len(a.proxyOn)+len(a.secureOn)+len(a.publicOn)+len(a.adminOn)+1)
	for _, l := range a.proxyOn {
		go func() { failed <- a.server.Serve(a.shared(l)) }()
	}
	for _, l := range a.secureOn {
		go func() { failed <- a.server.ServeTLS(a.shared(l), a.certs.TLS("h2", "http/1.1")) }()
	}
	for _, l := range a.publicOn {
		go func() { failed <- serveHTTP(a.public, a.speaksTLS(l)) }()
	}
	for _, l := range a.adminOn {
		go func() { failed <- serveHTTP(a.admin, a.speaksTLS(l)) }()
	}
	go func() { failed <- a.serveControl(ctx) }()
	living, dying := context.WithCancel(context.Background())
	var background sync.WaitGroup
	background.Go(func() { a.feedWatchdog(living) })
	background.Go(func() { a.watchCA(living) })
	background.Go(func() { a.certs.Keep(living) })
	background.Go(func() { a.health.Run(living) })
	background.Go(func() { a.watchParents(living) })
	background.Go(func() {
		a.exceptions.Keep(living, a.data, func(err error) {
			a.log.Error("the exceptions from interception could not be saved", zap.Error(err))
		})
	})
	defer background.Wait()
	defer dying()
	a.notify(daemon.SdNotifyReady)
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	a.drain()
	return err
}

// shared marks a listener that the next process may take over.
func (a *app) shared(l net.Listener) net.Listener {
	if a.passed[l] {
		return proxy.Shared{Listener: l}
	}
	return l
}

func serveHTTP(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// drain closes the proxy's listeners, waits for what is open until
// proxy.drain_timeout, and stops. The PAC script stays to be had meanwhile, so
// that devices find the other proxies, unless the next process serves it.
func (a *app) drain() {
	a.notify(daemon.SdNotifyStopping)
	a.stopping.Store(true)
	timeout := a.current.Load().Config.Proxy.DrainTimeout
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
	a.closeAll()
	a.log.Info("stopped")
}

// openStore opens the store of access records, where one is configured, and lets
// it follow the access log.
func (a *app) openStore(cfg *configs.Config) (err error) {
	if cfg.Log.Store.Path == "" {
		return nil
	}
	if a.store, err = accesslog.OpenStore(cfg.Log.Store, cfg.Data, a.log); err != nil {
		return err
	}
	return a.access.Feed(a.store)
}

// closeAll closes what is open, the access log and then its store last.
func (a *app) closeAll() {
	a.reloading.Lock()
	a.closed = true
	a.reloading.Unlock()
	for _, s := range []*http.Server{a.public, a.admin, a.control} {
		if s != nil {
			s.Close()
		}
	}
	for _, l := range slices.Concat(a.proxyOn, a.secureOn, a.publicOn, a.adminOn) {
		l.Close()
	}
	if a.certs != nil {
		a.certs.Close()
	}
	a.releaseControl()
	if a.auth != nil {
		a.auth.Close()
	}
	if a.lists != nil {
		a.lists.Close()
	}
	if a.access != nil {
		if err := a.access.Close(); err != nil {
			a.log.Error("the access log could not be closed", zap.Error(err))
		}
	}
	if a.store != nil {
		if err := a.store.Close(); err != nil {
			a.log.Error("the store of access records could not be closed", zap.Error(err))
		}
	}
}

// ready says why no device should come here.
func (a *app) ready() error {
	if a.server.Draining() {
		return errors.New("draining")
	}
	if why := a.server.Overloaded(); why != "" {
		return errors.New("overloaded: " + why)
	}
	return nil
}

// status is what the process says of itself.
func (a *app) status() api.Status {
	st := api.Status{
		Version: programVersion(), Node: a.node, Started: a.started,
		Draining: a.server.Draining(), Overloaded: a.server.Overloaded(), Tunnels: int64(a.server.Tunnels()),
		Reload: *a.reload.Load(), PACURL: a.pacURL(""), Proxy: a.proxyAddress(),
		CA: a.ca.Load().status(time.Now()), TLS: a.certs.Status(),
	}
	st.Lists, st.PACProxies, st.PACFetches = a.lists.Status(), a.health.Status(), a.fetches()
	h := a.access.Health()
	st.AccessLog = api.AccessLog{Since: h.Since, Lost: h.Lost}
	if h.Err != nil {
		st.AccessLog.Error = h.Err.Error()
	}
	if a.store != nil {
		h := a.store.Health()
		st.Store = &api.Store{Since: h.Since, Lag: h.Lag, Size: h.Size}
		if h.Err != nil {
			st.Store.Error = h.Err.Error()
		}
	}
	for _, on := range []struct {
		purpose string
		list    []net.Listener
	}{{"proxy", a.proxyOn}, {"proxy-tls", a.secureOn}, {"public", a.publicOn}, {"admin", a.adminOn}} {
		for _, l := range on.list {
			st.Listeners = append(st.Listeners, api.Listener{Purpose: on.purpose, Address: l.Addr().String()})
		}
	}
	return st
}

// proxyAddress is the host:port that the PAC script names first to a device
// outside this machine; empty where there is none.
func (a *app) proxyAddress() string {
	fetched, _ := pac.Fetched(netip.Addr{}, addrPorts(a.proxyOn))
	if list := a.script.Load().Proxies("", fetched); len(list) > 0 {
		return list[0]
	}
	return ""
}

// pacURL is what the MDM is given: the script where devices reach it; empty where
// that is not known.
func (a *app) pacURL(site string) string {
	base := a.publicURL()
	if base == "" {
		return ""
	}
	return base + a.script.Load().Path(site)
}

// publicURL is where devices reach the public listeners; empty if that is unknown.
func (a *app) publicURL() string {
	base, err := publicURL(a.current.Load().Config.Web, addrPorts(a.publicOn))
	if err != nil {
		return ""
	}
	return base
}

// about is what people who open the proxy's own address are told.
func (a *app) about() (organization, contact string) {
	cfg := a.current.Load().Config
	return cfg.Web.Profile.Organization, strings.TrimSpace(cfg.Proxy.Contact)
}

// addresses are all that the process listens on.
func (a *app) addresses() []netip.AddrPort {
	return addrPorts(slices.Concat(a.proxyOn, a.secureOn, a.publicOn, a.adminOn))
}

func addrPorts(list []net.Listener) []netip.AddrPort {
	out := make([]netip.AddrPort, len(list))
	for i, l := range list {
		ap := l.Addr().(*net.TCPAddr).AddrPort()
		out[i] = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return out
}
