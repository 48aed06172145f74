package console

import (
	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
)

// Services is the list of all services, with what they had in a period.
type Services struct {
	Windows  Windows
	HasStore bool
	Chart    Chart
	All      int64     // bytes
	List     []Service // the most bytes first
}

// ServiceView is the page of one service.
type ServiceView struct {
	Service  // in the period; open tunnels now
	Windows  Windows
	HasStore bool
	Chart    Chart
	Rows     []*catalog.Row
	Health   *Health  // nil: nobody has looked
	Failed   []Record // the last ones, in the period
	Last     []Record
}

// Record is an access record as pages show it.
type Record struct {
	accesslog.Record
	Bytes  int64
	Action string
}
