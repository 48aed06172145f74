package policy

// An Outcome is what a piece of evidence changes about the decision on a connection or a
// request. The zero value is no cell of Doors: code that reads it denies.
type Outcome uint8

const (
	unset     Outcome = iota
	Decides           // the policy decides by it
	Stricter          // the policy is asked about it too, see Agree
	SameHost          // it must name the host that is decided about
	Replaced          // the host that is decided about takes its place
	Unseen            // it passes unread
	OwnClient         // it exempts the client that gives it, see Policy.Excepted
	WithoutCA         // inspect.without_ca decides
	Told              // the client is shown a page, unless inspect.without_ca says tunnel
	Never             // the door has no such evidence
)

var outcomes = [...]struct{ name, meaning string }{
	unset:     {},
	Decides:   {"decides", "The policy decides by it."},
	Stricter:  {"stricter", "The policy is asked about it too. The stricter decision holds."},
	SameHost:  {"same host", "It must name the host that was decided about. The proxy refuses another one."},
	Replaced:  {"replaced", "The proxy ignores it, and sends the URL's host in its place."},
	Unseen:    {"unread", "It changes nothing. The proxy relays it unread."},
	OwnClient: {"this client", "It exempts this client alone, for this host with this name in TLS, if nothing but `inspect.mode` says inspect."},
	WithoutCA: {"without_ca", "`inspect.without_ca` decides: the client's connections fail, or are tunnelled."},
	Told:      {"page", "A page that says how to install the CA takes the place of pages, unless `inspect.without_ca` is `tunnel`."},
	Never:     {"–", "It can't occur."},
}

// String is the outcome's name in docs/security.md, Meaning the sentence there.
func (o Outcome) String() string  { return outcomes[o].name }
func (o Outcome) Meaning() string { return outcomes[o].meaning }

// Refuses reports whether evidence that names a host is to be refused, on a connection that
// is for another one.
func (o Outcome) Refuses(connection, named Target) bool {
	switch o {
	case Decides, Stricter, Replaced, Unseen:
		return false
	case SameHost:
		return connection != named
	}
	return true
}

// A Door has the outcomes of all evidence on one way into the proxy. It is written without
// keys, so that new evidence does not compile until every door has a cell for it.
type Door struct {
	Connect    Outcome `doc:"Name in the CONNECT or URL"`
	Literal    Outcome `doc:"Address in the CONNECT or URL"`
	SNI        Outcome `doc:"Name in TLS (SNI)"`
	Host       Outcome `doc:"Host field of a request"`
	ClientCert Outcome `doc:"Client certificate"`
	Refusal    Outcome `doc:"Client refuses the CA's certificate"`
	NoCA       Outcome `doc:"Client without the CA"`
}

// Doors is the table of the ways into the proxy. What decides reads its cells, and
// docs/security.md has it. A new door does not compile without them.
var Doors = struct {
	Connect   Door `doc:"CONNECT, tunnelled"` // by HTTP/1.1 or HTTP/2
	Plain     Door `doc:"Plain request by HTTP/1.1"`
	HTTP2     Door `doc:"Plain request by HTTP/2"`
	InsideTLS Door `doc:"Request inside an intercepted CONNECT"`
}{
	Door{Decides, Decides, Stricter, Unseen, Unseen, Never, Unseen},
	Door{Decides, Decides, Never, Replaced, Never, Never, Told},
	Door{Decides, Decides, Never, SameHost, Never, Never, Told},
	Door{Decides, Decides, Stricter, SameHost, OwnClient, OwnClient, WithoutCA},
}

// Decides reports whether the policy decides by t, the target that a CONNECT or URL names.
// It reports false for nil.
func (d *Door) Decides(t Target) bool {
	switch {
	case d == nil:
		return false
	case t.Addr.IsValid():
		return d.Literal == Decides
	}
	return d.Connect == Decides
}

// exempts reports whether a client may be exempt by rule for what it did on d.
func (d *Door) exempts(rule string) bool {
	switch rule {
	case RuleClientCertificate:
		return d.ClientCert == OwnClient
	case RuleException:
		return d.Refusal == OwnClient
	case RuleWithoutCA:
		return d.NoCA == WithoutCA
	}
	return false
}
