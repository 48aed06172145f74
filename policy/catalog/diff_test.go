package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func describe(changes []Change) string {
	var out []string
	for _, c := range changes {
		s := c.Kind + " " + c.Row().Host
		for _, cell := range c.Cells {
			s += fmt.Sprintf(" %s:%q→%q", cell.Cell, cell.Old, cell.New)
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestDiff(t *testing.T) {
	a := Row{Host: "a.example", Ports: []uint16{443, 80}, Transports: []string{"tcp"}, Systems: []string{"ios", "macos"}, Service: "icloud", Proxy: ProxyYes}
	b := Row{Host: "b.example", Ports: []uint16{443}, Transports: []string{"tcp"}, Service: "icloud", Proxy: ProxyUnmarked}
	with := func(r Row, change func(*Row)) Row {
		r.Ports = slices.Clone(r.Ports)
		change(&r)
		return r
	}
	for _, tt := range []struct {
		name     string
		old, new []Row
		want     string
	}{
		{"the same", []Row{a, b}, []Row{a, b}, ""},
		{"another order of rows and in cells", []Row{a, b}, []Row{b, with(a, func(r *Row) {
			r.Ports, r.Systems = []uint16{80, 443}, []string{"macos", "ios"}
		})}, ""},
		{"words and provenance", []Row{a}, []Row{with(a, func(r *Row) {
			r.Purpose, r.Source, r.Since, r.Note = "x", "x", "x", "x"
		})}, ""},
		{"added", []Row{a}, []Row{a, b}, "added b.example"},
		{"removed", []Row{a, b}, []Row{b}, "removed a.example"},
		{"a second row of the same host and service", []Row{a}, []Row{a, a}, "added a.example"},
		{"moved to another service", []Row{a}, []Row{with(a, func(r *Row) { r.Service = "siri" })}, `moved a.example service:"icloud"→"siri"`},
		{"moved below another heading", []Row{with(a, func(r *Row) { r.Section = "App Store" })}, []Row{with(a, func(r *Row) { r.Section = "Apps and additional content" })},
			`moved a.example section:"App Store"→"Apps and additional content"`},
		{"another name of the same section", []Row{with(a, func(r *Row) { r.Section = "Siri and search" })},
			[]Row{with(a, func(r *Row) { r.Section = "Apple Intelligence, Siri and Search" })}, ""},
		{"moved and changed", []Row{with(a, func(r *Row) { r.Section = "App Store" })}, []Row{with(a, func(r *Row) { r.Section, r.Proxy = "Flying cars", ProxyUnmarked })},
			`changed a.example proxy:"yes"→"unmarked" section:"App Store"→"Flying cars"`},
		{"moves come last", []Row{with(a, func(r *Row) { r.Service = "siri" }), b}, []Row{a}, `removed b.example; moved a.example service:"siri"→"icloud"`},
		{"rows of a host by service before order", []Row{a, with(a, func(r *Row) { r.Service = "siri" })}, []Row{with(a, func(r *Row) { r.Service, r.Proxy = "siri", ProxyUnmarked }), a},
			`changed a.example proxy:"yes"→"unmarked"`},
		{"cells", []Row{a}, []Row{with(a, func(r *Row) {
			r.Ports, r.Transports, r.Systems, r.Proxy = []uint16{443}, []string{"tcp", "udp"}, nil, ProxyUnmarked
		})}, `changed a.example ports:"80, 443"→"443" transports:"tcp"→"tcp, udp" systems:"ios, macos"→"" proxy:"yes"→"unmarked"`},
		{"a cell that was not known", []Row{with(b, func(r *Row) { r.Unknown = []string{"systems", "proxy"} })},
			[]Row{b}, `changed b.example systems:"unknown"→"" proxy:"unknown"→"unmarked"`},
		{"a cell that the new list does not know", []Row{a}, []Row{with(a, func(r *Row) {
			r.Proxy, r.Unknown = ProxyUnmarked, []string{"proxy"}
		})}, ""},
		{"retired, and gone", []Row{with(a, func(r *Row) { r.Until = "2024" })}, nil, ""},
		{"retired, and still there", []Row{with(a, func(r *Row) { r.Until = "2024" })}, []Row{a}, `changed a.example until:"2024"→""`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := describe(Diff(tt.old, tt.new)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
