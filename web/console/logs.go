package console

import "espalier/web/explain"

// Logs is a page of the access log.
type Logs struct {
	Values    map[string]string // of the filter, by accesslog.FilterKeys
	Narrow    bool              // a value is set that is not asked for at first
	Problems  []string          // why the filter is none, one each
	Records   []Record
	FirstPage bool
	// Older and Newest lead to other pages; empty: there is none.
	Older, Newest string
	CSV, JSON     string // links to all that the filter wants
	Events        string // link to what comes new
	Services      []string
	// Hosts, Clients and Rules are offered to complete fields with.
	Hosts, Clients, Rules []string
}

// RecordView is the page of one record.
type RecordView struct {
	Record
	Now     *explain.Explanation // what the policy in force says; nil: nothing
	Changed bool                 // it was decided by another rule
	// Similar and Client lead to more of the kind; Client is empty where that is
	// not known.
	Similar, Client string
}
