package console

import (
	"time"

	"espalier/pac"
	"espalier/proxy/inspect"
	"espalier/web/explain"
)

// Policy is the page that explains decisions.
type Policy struct {
	URL, Client, User string // as asked
	Problem           string // why that cannot be answered
	Answer            *explain.Explanation
	Rules             []Rule
}

// Rule is one of the configuration.
type Rule struct {
	Name, Then string
	When       []Condition // none: always
}

// Condition is a part of what a rule asks for.
type Condition struct {
	Key    string
	Values []string
	More   int // values that are left out
}

// PAC is the page of the script and of what devices are given.
type PAC struct {
	Site    string // empty for the general one
	Sites   []string
	Problem string // why there is no script
	Script  string
	ETag    string
	Proxies []string

	URL, CA  string // that devices can reach; empty: there is none
	QR, CAQR Code
	HasCA    bool

	URLs        string // to test, a line each
	Answers     []PACAnswer
	TestProblem string

	Former         []FormerPAC // the newest first
	Old            string      // id of the one to compare with; empty: none
	Changes        []pac.Change
	Asked          int // URLs that both were asked about
	CompareProblem string
}

// FormerPAC is a script that is or was in force.
type FormerPAC struct {
	ID   string
	Time time.Time
}

// PACAnswer is what a script answers.
type PACAnswer struct{ URL, Answer, Problem string }

// Code is a QR code: the path of an SVG that many units wide. Size 0: none.
type Code struct {
	Size int
	Path string
}

// Inspection is the page of TLS interception.
type Inspection struct {
	Mode       string
	HasCA      bool
	NotAfter   time.Time
	Warnings   []string
	Exceptions []inspect.Exception
}

// Settings is the configuration in force.
type Settings struct {
	File     string // empty for the embedded default
	Loaded   time.Time
	TLS      []Certificate // of the listeners
	Sections []Section
}

// A Certificate is one that the listeners serve TLS with, or are to.
type Certificate struct {
	Names       []string
	Source      string // acme, files or self-signed
	Issuer      string // empty: there is none yet
	NotAfter    time.Time
	Fingerprint string
	Warnings    []string
}

// Section are the settings below a first name.
type Section struct {
	Name     string
	Settings []Setting
}

// Setting is a value and where it comes from.
type Setting struct {
	Key, Value, Origin string
	Default            bool
}
