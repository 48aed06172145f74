package console

import (
	"time"

	"espalier/pac/health"
	"espalier/policy/lists"
)

// Overview is what the first page shows.
type Overview struct {
	Started       time.Time
	PACURL, Proxy string // empty where there is none
	Listeners     []Listener
	Config        Config
	Lists         []lists.Status
	Stale         []string // names of Lists that are stale
	CA            []string // what must be done about the interception CA
	TLS           []string // and about the listeners' certificates
	ProxiesDown   []health.Status
	Fetches       []Fetches  // of the PAC script
	AccessLog     *AccessLog // nil: it is written, and always was
	Interceptors  []string   // of TLS on the way to Apple
	StoreError    string     // why records cannot be searched; empty where they can

	// HasStore says that what follows is of the last day, and not since the start.
	HasStore                    bool
	Up, Down, Requests, Tunnels int64     // tunnels are open now
	Errors                      int64     // of Requests
	Other                       int64     // bytes of what is not Apple's
	Services                    []Service // those with traffic, the most bytes first
	Quiet                       []string  // ids of the others
	Actions                     []Action

	// These are of a store only.
	Chart          Chart
	Hosts, Clients []Share
}

// Bytes is the sum of both directions.
func (o Overview) Bytes() int64 { return o.Up + o.Down }

// Apple is Apple's part of Bytes.
func (o Overview) Apple() int64 { return o.Bytes() - o.Other }

// Listener is an address that the process listens at.
type Listener struct{ Purpose, Address string }

// AccessLog is what went wrong with writing access records.
type AccessLog struct {
	Error string    // empty: it is written again
	Since time.Time // of Error
	Lost  int64     // records, since the start
}

// Config is how the last reading of the configuration went.
type Config struct {
	File     string // empty for the embedded default
	OK       bool
	Problems []string
	Tried    time.Time
	Loaded   time.Time // the configuration in force
}

// Fetches are how often a kind of client has fetched the script of a site.
type Fetches struct {
	Site, Agent string
	Count       int64
	Last        time.Time
}

// Service is what one service has used in a period.
type Service struct {
	ID       string
	Apple    bool
	Up, Down int64
	Requests int64
	Tunnels  int64 // open now
	Errors   int64
	Rows     int    // of the catalogue; 0 where that is not told
	Health   string // a doctor.State; empty where nobody has looked
}

// Bytes is the sum of both directions.
func (s Service) Bytes() int64 { return s.Up + s.Down }

// Action is what was done with requests, and with how many.
type Action struct {
	ID            string
	Count         int64
	Offset, Width float64 // of its part of the bar, in hundredths
}
