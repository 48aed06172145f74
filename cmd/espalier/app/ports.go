package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"espalier/configs"
	"espalier/policy"
	"espalier/proxy/accesslog"
)

const (
	// portsWindow is how far back records are checked against proxy.ports.
	portsWindow = 30 * 24 * time.Hour
	// portsPatience bounds how long that takes.
	portsPatience = 10 * time.Second
)

// portWarnings says which ports of the last records' requests cfg refuses by
// proxy.ports, a line for each port, those with the most requests first. note says
// why records were not checked, if they were not. Without a store there is neither.
func portWarnings(ctx context.Context, cfg *configs.Config, made *Compiled, now time.Time) (warnings []string, note string) {
	if cfg.Log.Store.Path == "" {
		return nil, ""
	}
	store, err := accesslog.ReadStore(cfg.Log.Store, cfg.Data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ""
	}
	if err != nil {
		return nil, "recent records were not checked against proxy.ports: " + err.Error()
	}
	defer store.Close()
	ctx, cancel := context.WithTimeout(ctx, portsPatience)
	defer cancel()
	uses := map[uint16]map[string]int{} // port: host: requests
	decide := newPortDecider(cfg, made)
	// A day at a time, so that there is an answer if there is no time for all.
	for to := now.Add(time.Hour); to.After(now.Add(-portsWindow)); to = to.Add(-24 * time.Hour) {
		from := to.Add(-24 * time.Hour)
		if first := now.Add(-portsWindow); from.Before(first) {
			from = first
		}
		list, err := store.PortsBeyond(ctx, from, to, decide.ports)
		if err != nil {
			switch {
			case ctx.Err() == nil:
				note = "recent records were not checked against proxy.ports: " + err.Error()
			case to.After(now):
				note = "recent records were not checked against proxy.ports: reading them takes too long"
			default:
				note = fmt.Sprintf("only records since %s were checked against proxy.ports: reading all of the last 30 days takes too long", to.Format(time.DateTime))
			}
			break
		}
		for _, u := range list {
			if decide.refuses(&u) {
				if uses[u.Port] == nil {
					uses[u.Port] = map[string]int{}
				}
				uses[u.Port][u.Host] += u.Count
			}
		}
	}
	return portTexts(uses), note
}

// A portDecider knows what a configuration refuses by proxy.ports.
type portDecider struct {
	*Compiled
	ports  []policy.PortRange
	client netip.Addr // one that may use the proxy; invalid if none may
}

func newPortDecider(cfg *configs.Config, made *Compiled) *portDecider {
	d := &portDecider{Compiled: made, ports: cfg.Proxy.Ports}
	if len(d.ports) == 0 {
		d.ports = policy.DefaultPorts()
	}
	if nets, _ := policy.ParseNetworks(cfg.Proxy.Clients); len(nets) > 0 {
		d.client = nets[0].Addr()
	}
	return d
}

func (d *portDecider) refuses(u *accesslog.PortUse) bool {
	t, err := policy.ParseTarget(net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port))), 0)
	if err != nil {
		return false
	}
	r := policy.Request{Target: t, Client: u.Client, User: u.User, Groups: d.State.Auth.FileGroups(u.User), Connect: true, Time: u.Last}
	decision := d.State.Policy.Decide(&r)
	if decision.Rule == policy.RuleClients { // an anonymous record, or clients were other ones
		r.Client = d.client
		decision = d.State.Policy.Decide(&r)
	}
	return decision.Rule == policy.RulePorts
}

// portTexts writes a line for each port, with the hosts that had the most requests.
func portTexts(uses map[uint16]map[string]int) []string {
	const maxPorts, maxHosts = 20, 3
	total := map[uint16]int{}
	for port, hosts := range uses {
		for _, n := range hosts {
			total[port] += n
		}
	}
	ports := slices.SortedFunc(maps.Keys(total), func(a, b uint16) int {
		return cmp.Or(cmp.Compare(total[b], total[a]), cmp.Compare(a, b))
	})
	var texts []string
	for i, port := range ports {
		if i == maxPorts {
			return append(texts, fmt.Sprintf("proxy.ports: %d more ports of the last 30 days' records are refused", len(ports)-i))
		}
		hosts := slices.SortedFunc(maps.Keys(uses[port]), func(a, b string) int {
			return cmp.Or(cmp.Compare(uses[port][b], uses[port][a]), cmp.Compare(a, b))
		})
		var names []string
		for _, host := range hosts[:min(len(hosts), maxHosts)] {
			names = append(names, fmt.Sprintf("%s (%d)", host, uses[port][host]))
		}
		if more := len(hosts) - len(names); more > 0 {
			names = append(names, fmt.Sprintf("%d more", more))
		}
		noun := "requests"
		if total[port] == 1 {
			noun = "request"
		}
		texts = append(texts, fmt.Sprintf("proxy.ports: port %d is refused; the last 30 days have %d %s to it: %s", port, total[port], noun, strings.Join(names, ", ")))
	}
	return texts
}
