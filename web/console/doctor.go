package console

import (
	"time"

	"espalier/proxy/doctor"
)

// Doctor is the page of the way to Apple's hosts.
type Doctor struct {
	Running     bool
	Done, Total int
	Report      *doctor.Report // nil: there was none yet
	Services    []Health       // of Report
}

// Health is how it stands with a service.
type Health struct {
	ID, State   string
	OK, Skipped int // checks
	Broken      []doctor.Check
	Time        time.Time // when that was looked at; zero on the page of all
}

// problems are all that there are.
var problems = []doctor.Problem{
	doctor.NoSuchName, doctor.NoAddress, doctor.DNSTimeout, doctor.DNSFailed, doctor.AddressGuard, doctor.Refused,
	doctor.Reset, doctor.TimedOut, doctor.Unroutable, doctor.Intercepted, doctor.Expired, doctor.WrongName,
	doctor.BadCertificate, doctor.TLSAlert, doctor.NotTLS, doctor.NoHTTP2, doctor.NotHTTP, doctor.CaptivePortal,
	doctor.NotNTP, doctor.SignIn, doctor.Denied, doctor.ProxyDown, doctor.ProxyFailed,
}
