package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"espalier/proxy/doctor"
)

// Doctor writes a table of the services, then what is wrong by its cause.
func Doctor(s Screen, r *doctor.Report) error {
	t := NewTable("SERVICE", "FROM HERE", "THROUGH "+r.Proxy)
	tried := 0
	for i := range r.Services {
		service := &r.Services[i]
		t.Add(service.ID, countsOf(service, doctor.Direct), countsOf(service, doctor.Through))
		for _, c := range service.Checks {
			if c.State != doctor.Skipped {
				tried++
			}
		}
	}
	if r.Proxy == "" {
		t.without("THROUGH ")
	}
	if err := t.Write(s); err != nil {
		return err
	}
	l := &lines{s: s}
	for _, c := range causes(r) {
		c.write(l)
	}
	writeNotes(l, r)
	l.WriteByte('\n')
	switch broken := r.Broken(); {
	case broken > 0:
		l.WriteString(s.paint(red, fmt.Sprintf("%d of %s broken", broken, plural(len(r.Services), "service is", "services are"))))
	case !r.Complete:
		l.WriteString(s.paint(yellow, "time was over before all had been tried"))
	case tried == 0:
		l.WriteString(s.paint(yellow, "nothing could be tried"))
	default:
		l.WriteString(s.paint(green, "everything that was tried can be reached"))
	}
	took := (time.Duration(r.Milliseconds) * time.Millisecond).Round(100 * time.Millisecond)
	l.WriteString(s.paint(dim, fmt.Sprintf(" (%s in %s)", plural(tried, "check", "checks"), took)) + "\n")
	return l.write()
}

// countsOf is how many of a service's checks ended how.
func countsOf(service *doctor.Service, way doctor.Way) cell {
	n := service.Count(way)
	var parts []string
	for _, state := range []doctor.State{doctor.OK, doctor.Broken, doctor.Skipped} {
		if n[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[state], state))
		}
	}
	as := dim
	switch {
	case n[doctor.Broken] > 0:
		as = red
	case n[doctor.OK] > 0:
		as = green
	}
	return in(as, strings.Join(parts, ", "))
}

// A cause is what several checks failed by.
type cause struct {
	doctor.Finding // of the first
	ways           string
	differ         bool // others have another detail
	services       []*causeService
}

type causeService struct {
	id    string
	hosts []causeHost
}

// A causeHost is a host with those of its ports that have the cause in common.
type causeHost struct{ name, ports, note string }

func (h causeHost) String() string { return h.name + ":" + h.ports + h.note }

// causes puts the broken checks of a report in order: by what is wrong, who is
// in the way, and which ways are.
func causes(r *doctor.Report) []*cause {
	var out []*cause
	for i := range r.Services {
		checks := r.Services[i].Checks
		for j := range checks {
			c := &checks[j]
			if c.State != doctor.Broken {
				continue
			}
			both := slices.ContainsFunc(checks, func(o doctor.Check) bool {
				return o.State == doctor.Broken && o.Way != c.Way && o.Host == c.Host && o.Port == c.Port && o.Transport == c.Transport &&
					o.Problem == c.Problem && o.By == c.By
			})
			ways := "from here"
			switch {
			case both && c.Way == doctor.Through:
				continue // it stands beside the other
			case both:
				ways = "from here and through the proxy"
			case c.Way == doctor.Through:
				ways = "through the proxy"
			}
			out = place(out, r.Services[i].ID, c, ways)
		}
	}
	return out
}

// place adds a check to its cause.
func place(list []*cause, service string, c *doctor.Check, ways string) []*cause {
	i := slices.IndexFunc(list, func(o *cause) bool { return o.Problem == c.Problem && o.By == c.By && o.ways == ways })
	if i < 0 {
		i = len(list)
		list = append(list, &cause{Finding: c.Finding, ways: ways})
	}
	o := list[i]
	o.differ = o.differ || o.Detail != c.Detail
	if last := len(o.services) - 1; last < 0 || o.services[last].id != service {
		o.services = append(o.services, &causeService{id: service})
	}
	s := o.services[len(o.services)-1]
	host := causeHost{name: c.Host, ports: strconv.Itoa(int(c.Port))}
	if c.Transport == "udp" {
		host.note = "/udp"
	}
	if c.Tried != "" {
		host.note += " (" + c.Tried + ")"
	}
	if last := len(s.hosts) - 1; last >= 0 && s.hosts[last].name == host.name && s.hosts[last].note == host.note {
		s.hosts[last].ports += "," + host.ports
	} else {
		s.hosts = append(s.hosts, host)
	}
	return list
}

func (c *cause) write(l *lines) {
	title := c.Problem.Title()
	if c.By != "" {
		title += ": " + c.By
	}
	l.WriteByte('\n')
	l.text(red, title+" ("+c.ways+")")
	detail := "detail"
	if c.differ {
		detail = "such as"
	}
	rows := &lines{s: l.s, indent: 2, label: len("such as")}
	for _, service := range c.services {
		rows.label = max(rows.label, len(service.id))
	}
	rows.row(detail, plain, c.Detail)
	rows.row("next", bold, c.Next)
	for _, service := range c.services {
		rows.row(service.id, plain, joined(service.hosts, ", "))
	}
	l.WriteString(rows.String())
}

// writeNotes writes what is to be known of checks that are not broken.
func writeNotes(l *lines, r *doctor.Report) {
	count := map[string]int{}
	var order []string
	for i := range r.Services {
		for _, c := range r.Services[i].Checks {
			if c.Note == "" {
				continue
			}
			if count[c.Note]++; count[c.Note] == 1 {
				order = append(order, c.Note)
			}
		}
	}
	if len(order)+len(r.ProxyNote) > 0 {
		l.WriteByte('\n')
	}
	for _, note := range order {
		n := fmt.Sprintf("%4d  ", count[note])
		for _, line := range l.s.broken(note, len(n)) {
			l.WriteString(l.s.paint(dim, n+line) + "\n")
			n = strings.Repeat(" ", len(n))
		}
	}
	if r.ProxyNote != "" {
		l.text(yellow, "not tried through the proxy: "+r.ProxyNote)
	}
}
