package doctor

import "time"

// A Report is what an examination found. Its JSON is stable.
type Report struct {
	Time         time.Time `json:"time"` // when it began
	Milliseconds int64     `json:"duration_ms"`
	// Complete is not set where time was over before all had been tried.
	Complete bool `json:"complete"`
	// Proxy is the host:port that was tried beside the direct way; empty where
	// there was none, and ProxyNote says why.
	Proxy     string    `json:"proxy"`
	ProxyNote string    `json:"proxy_note,omitempty"`
	Services  []Service `json:"services"` // in the catalogue's order; never null
}

// A Service is how it stands with one of Apple's.
type Service struct {
	ID   string `json:"service"`
	Name string `json:"name"`
	// State is Broken where any check is, and Skipped where none was made.
	State  State   `json:"state"`
	Checks []Check `json:"checks"`
}

// A Check is one port of one row, one way.
type Check struct {
	Way Way `json:"way"`
	// Host is that of the row; Tried is the name that stood for a wildcard,
	// empty for others.
	Host      string `json:"host"`
	Tried     string `json:"tried,omitempty"`
	Port      uint16 `json:"port"`
	Transport string `json:"transport"` // tcp or udp
	Finding
}

// A Finding is what came of a check.
type Finding struct {
	State State `json:"state"`
	// Problem is what is wrong, at Step, and By who is in the way; empty where
	// nothing is, or nobody is known. Next says what to do.
	Problem Problem `json:"problem,omitempty"`
	Step    Step    `json:"step,omitempty"`
	By      string  `json:"by,omitempty"`
	Detail  string  `json:"detail,omitempty"`
	Next    string  `json:"next,omitempty"`
	// Note says why a check was skipped, or what is worth knowing of a good one.
	Note string `json:"note,omitempty"`
	// Address is what was connected to: the host's, or that of a proxy.
	Address      string `json:"address,omitempty"`
	Milliseconds int64  `json:"duration_ms,omitempty"`
}

// A State is how a check or a service ended.
type State string

const (
	OK      State = "ok"
	Broken  State = "broken"
	Skipped State = "skipped"
)

// A Way is how a host is reached.
type Way string

const (
	Direct  Way = "direct" // as the proxy reaches it from this machine
	Through Way = "proxy"  // through the proxy, as devices do
)

// A Step is where a check failed.
type Step string

const (
	StepName    Step = "name"
	StepConnect Step = "connect"
	StepProxy   Step = "proxy"
	StepTLS     Step = "tls"
	StepHTTP    Step = "http"
	StepNTP     Step = "ntp"
)

// Notes of checks that were not made.
const (
	noteLate     = "not tried: the time was over"
	noteUDP      = "UDP is not tried, and passes no proxy: let the firewall send it out"
	noteWildcard = "a wildcard of which no member is known at this port"
	noteRetired  = "retired: Apple no longer lists it, and only older systems use it"
)

// Count returns how many of the checks one way ended in each state.
func (s *Service) Count(way Way) map[State]int {
	n := map[State]int{}
	for i := range s.Checks {
		if s.Checks[i].Way == way {
			n[s.Checks[i].State]++
		}
	}
	return n
}

// Broken counts the services that are.
func (r *Report) Broken() (n int) {
	for i := range r.Services {
		if r.Services[i].State == Broken {
			n++
		}
	}
	return n
}

// conclude says which checks have no finding, and the state of each service.
func (r *Report) conclude() {
	r.Complete = true
	for i := range r.Services {
		s := &r.Services[i]
		s.State = Skipped
		for j := range s.Checks {
			c := &s.Checks[j]
			if c.State == "" {
				r.Complete = false
				c.State, c.Note = Skipped, noteLate
			}
			if c.State == Broken || c.State == OK && s.State == Skipped {
				s.State = c.State
			}
		}
	}
}
