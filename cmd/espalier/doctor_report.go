package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"espalier/proxy/doctor"
)

// writeReport writes a table of the services, then what is wrong by its cause.
func writeReport(s screen, r *doctor.Report) error {
	t := table{head: []string{"SERVICE", "FROM HERE"}}
	if r.Proxy != "" {
		t.head = append(t.head, "THROUGH "+r.Proxy)
	}
	tried := 0
	for i := range r.Services {
		service := &r.Services[i]
		cells := []cell{{service.ID, plain}, countsOf(service, doctor.Direct)}
		if r.Proxy != "" {
			cells = append(cells, countsOf(service, doctor.Through))
		}
		t.add(cells...)
		for _, c := range service.Checks {
			if c.State != doctor.Skipped {
				tried++
			}
		}
	}
	if err := t.write(s); err != nil {
		return err
	}
	var b strings.Builder
	for _, c := range causes(r) {
		c.write(&b, s)
	}
	writeNotes(&b, s, r)
	b.WriteByte('\n')
	took := (time.Duration(r.Milliseconds) * time.Millisecond).Round(100 * time.Millisecond)
	switch broken := r.Broken(); {
	case broken > 0:
		b.WriteString(s.paint(red, fmt.Sprintf("%d of %s broken", broken, plural(len(r.Services), "service is", "services are"))))
	case !r.Complete:
		b.WriteString(s.paint(yellow, "time was over before all had been tried"))
	case tried == 0:
		b.WriteString(s.paint(yellow, "nothing could be tried"))
	default:
		b.WriteString(s.paint(green, "everything that was tried can be reached"))
	}
	fmt.Fprintf(&b, s.paint(dim, " (%s in %s)")+"\n", plural(tried, "check", "checks"), took)
	_, err := io.WriteString(s, b.String())
	return err
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
	return cell{strings.Join(parts, ", "), as}
}

// A cause is what several checks failed by.
type cause struct {
	problem  doctor.Problem
	by       string
	ways     string
	next     string
	detail   string // of the first
	differ   bool   // others have another
	services []*causeService
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
			same := slices.IndexFunc(checks, func(o doctor.Check) bool {
				return o.State == doctor.Broken && o.Way != c.Way && o.Host == c.Host && o.Port == c.Port && o.Transport == c.Transport &&
					o.Problem == c.Problem && o.By == c.By
			})
			ways := "from here"
			switch {
			case same >= 0 && c.Way == doctor.Through:
				continue // it stands beside the other
			case same >= 0:
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
	i := slices.IndexFunc(list, func(o *cause) bool { return o.problem == c.Problem && o.by == c.By && o.ways == ways })
	if i < 0 {
		i = len(list)
		list = append(list, &cause{problem: c.Problem, by: c.By, ways: ways, next: c.Next, detail: c.Detail})
	}
	o := list[i]
	o.differ = o.differ || o.detail != c.Detail
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

func (c *cause) write(b *strings.Builder, s screen) {
	title := c.problem.Title()
	if c.by != "" {
		title += ": " + c.by
	}
	b.WriteByte('\n')
	for _, line := range s.broken(title+" ("+c.ways+")", 0) {
		b.WriteString(s.paint(red, line) + "\n")
	}
	width := len("such as")
	for _, service := range c.services {
		width = max(width, len(service.id))
	}
	indent := width + 4
	row := func(label string, as style, text string) {
		for _, part := range s.broken(text, indent) {
			fmt.Fprintf(b, "  %s  %s\n", s.paint(dim, fmt.Sprintf("%-*s", width, label)), s.paint(as, part))
			label = ""
		}
	}
	if c.differ {
		row("such as", plain, c.detail)
	} else {
		row("detail", plain, c.detail)
	}
	row("next", bold, c.next)
	for _, service := range c.services {
		row(service.id, plain, joined(service.hosts, ", "))
	}
}

// writeNotes writes what is to be known of checks that are not broken.
func writeNotes(b *strings.Builder, s screen, r *doctor.Report) {
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
		b.WriteByte('\n')
	}
	for _, note := range order {
		n := fmt.Sprintf("%4d  ", count[note])
		for _, line := range s.broken(note, len(n)) {
			b.WriteString(s.paint(dim, n+line) + "\n")
			n = strings.Repeat(" ", len(n))
		}
	}
	if r.ProxyNote != "" {
		for _, line := range s.broken("not tried through the proxy: "+r.ProxyNote, 0) {
			b.WriteString(s.paint(yellow, line) + "\n")
		}
	}
}
