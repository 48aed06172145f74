package api

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"espalier/pac/health"
	"espalier/pac/history"
	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/policy/lists"
	"espalier/proxy/accesslog"
	"espalier/proxy/doctor"
	"espalier/proxy/inspect"
	"espalier/proxy/traffic"
	"espalier/web/certs"
	"espalier/web/explain"
	"espalier/web/profile"
	"espalier/web/public"
	"espalier/web/signin"
)

// Control is a running process as the admin listeners and the control socket show
// and change it. All fields must be set, unless one says what nil means. The
// functions are called for each request, by several goroutines at a time.
type Control struct {
	Status   func() Status
	Services func() []traffic.Snapshot
	Metrics  prometheus.Gatherer
	// Exceptions are the hosts whose clients refuse interception.
	Exceptions *inspect.Exceptions
	// Store holds the access records; nil where none is configured.
	Store *accesslog.Store
	// Explainer explains the configuration in force.
	Explainer func() *explain.Explainer
	// Profile makes a profile for devices with the script and the root in force,
	// which it sets. Its site must be one of the PAC script's, or empty.
	Profile func(profile.Request) ([]byte, error)
	// History holds the PAC scripts that were in force.
	History history.Store
	// Settings are the values in force, secrets redacted.
	Settings func() []Setting
	// Doctor examines the way to Apple's hosts.
	Doctor *doctor.Runner
	// Desk tells who may use the admin listeners, and Hosts by which names they are
	// reached, in lower case.
	Desk  *signin.Desk
	Hosts func() []string
	Log   *zap.Logger

	// Reload reads the configuration again and returns why it was not taken over,
	// a problem a line.
	Reload func() error
	// RefreshLists reads the list of that name from its source now, all where it is
	// empty, and returns what went wrong, a list a line.
	RefreshLists func(ctx context.Context, name string) error
	// RenewTLS obtains the listeners' certificates anew, and revokes those before if
	// that is asked for; certs.ErrNotACME where there is no authority.
	RenewTLS func(ctx context.Context, revoke bool) error
	// Drain starts draining and returns at once.
	Drain func()
	// SetupLink returns the URL that lets a browser make the console's first user,
	// good once and until then; signin.ErrUsers where there are users.
	SetupLink func() (url string, until time.Time, err error)
}

// Status is what a running process says of itself, in /api/v1/status and in
// `espalier status --json`.
type Status struct {
	Version string    `json:"version"`
	Go      string    `json:"go"` // filled in where it is empty
	Node    string    `json:"node"`
	Started time.Time `json:"started"`
	// UptimeSeconds is filled in from Started.
	UptimeSeconds int64 `json:"uptime_seconds"`
	// Draining is set from the moment that no new connections are taken.
	Draining bool `json:"draining"`
	// Overloaded says which limit is near, while requests for what is not Apple's
	// are turned away for it; otherwise it is empty.
	Overloaded string     `json:"overloaded"`
	Listeners  []Listener `json:"listeners"`
	// PACURL is what devices are given; empty where nothing that they can reach
	// serves the script.
	PACURL string `json:"pac_url"`
	// Proxy is the host:port that the script names first; empty where there is
	// none.
	Proxy string `json:"proxy"`
	// PACProxies are those of the configuration that are probed; never null in
	// JSON.
	PACProxies []health.Status `json:"pac_proxies"`
	// PACFetches say who has fetched the script; never null in JSON.
	PACFetches []public.Fetches `json:"pac_fetches"`
	// Tunnels are open now.
	Tunnels   int64     `json:"tunnels"`
	Reload    Reload    `json:"reload"`
	AccessLog AccessLog `json:"access_log"`
	// Store is nil and not in JSON where none is configured.
	Store *Store `json:"store,omitempty"`
	// Lists are those of the configuration; never null in JSON.
	Lists []lists.Status `json:"lists"`
	// CA is the interception CA; nil and not in JSON where there is none.
	CA *CA `json:"ca,omitempty"`
	// TLS are the certificates of the listeners; never null in JSON, and empty where
	// nothing is served with TLS.
	TLS []certs.Status `json:"tls"`
}

// CA says how it stands with the interception CA.
type CA struct {
	NotAfter time.Time `json:"not_after"`
	// Missing are the hosts of the catalogue that the CA does not exclude, because
	// it is older; they are tunnelled all the same. Never null in JSON.
	Missing []string `json:"missing"`
	// Warnings are sentences that say what to do; never null in JSON.
	Warnings []string `json:"warnings"`
}

// AccessLog says how it goes with writing access records.
type AccessLog struct {
	// Error is why nothing can be written; empty where it can.
	Error string `json:"error"`
	// Since is when that began; zero and not in JSON where Error is empty.
	Since time.Time `json:"since,omitzero"`
	// Lost is how many records found no room meanwhile, since the start.
	Lost uint64 `json:"lost"`
}

// Store says how it goes with the store of access records.
type Store struct {
	// Error is why nothing can be stored; empty where it can.
	Error string `json:"error"`
	// Since is when that began; zero and not in JSON where Error is empty.
	Since time.Time `json:"since,omitzero"`
	// Lag is how many bytes of the access log wait to be stored.
	Lag int64 `json:"lag"`
	// Size is that of its files, in bytes.
	Size int64 `json:"size"`
}

// A Listener is an address that the process takes connections at.
type Listener struct {
	Purpose string `json:"purpose"` // proxy, proxy-tls, public or admin
	Address string `json:"address"` // host:port
}

// Reload says how the last reading of the configuration went, which at the
// start is the first one.
type Reload struct {
	// File is the configuration file; empty means the embedded default.
	File string    `json:"file"`
	Time time.Time `json:"time"`
	OK   bool      `json:"ok"`
	// Problems are file:line:column: message, one each; never null in JSON.
	// While OK is not set the configuration loaded at Loaded is in force.
	Problems []string  `json:"problems"`
	Loaded   time.Time `json:"loaded"`
}

// CompleteStatus is what c.Status returns, with all that it may leave out.
func (c Control) CompleteStatus() Status {
	st := c.Status()
	st.Go = cmp.Or(st.Go, runtime.Version())
	st.UptimeSeconds = int64(time.Since(st.Started).Seconds())
	st.Listeners, st.PACProxies, st.PACFetches = filled(st.Listeners), filled(st.PACProxies), filled(st.PACFetches)
	st.Lists, st.TLS, st.Reload.Problems = filled(st.Lists), filled(st.TLS), filled(st.Reload.Problems)
	if st.CA != nil {
		st.CA.Missing, st.CA.Warnings = filled(st.CA.Missing), filled(st.CA.Warnings)
	}
	return st
}

// filled returns list, empty in place of nil, which JSON would have as null.
func filled[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Services is the answer of /api/v1/services: what was counted since the
// process started.
type Services struct {
	Since    time.Time `json:"since"`
	Services []Service `json:"services"`
}

// Service is what one service has used. Bytes are payload, from (up) and to
// (down) clients.
type Service struct {
	Service  string                  `json:"service"`
	Name     string                  `json:"name"`
	Up       int64                   `json:"up"`
	Down     int64                   `json:"down"`
	Tunnels  int64                   `json:"tunnels"`
	Requests map[policy.Action]int64 `json:"requests"`
}

func (c Control) services() Services {
	list := Services{Since: c.Status().Started, Services: []Service{}}
	for _, x := range c.Services() {
		list.Services = append(list.Services, Service{x.Service, ServiceName(x.Service), x.Up, x.Down, x.Tunnels, x.Requests})
	}
	return list
}

// ServiceName is the English name of a service, its id if it is unknown.
func ServiceName(id string) string {
	if i := slices.IndexFunc(catalog.Services, func(s catalog.Service) bool { return s.ID == id }); i >= 0 {
		return catalog.Services[i].Section
	}
	return id
}

// SetupLink is the answer of POST /setup on the control socket.
type SetupLink struct {
	URL   string    `json:"url"`
	Until time.Time `json:"until"`
}
