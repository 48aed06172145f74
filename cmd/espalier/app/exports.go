package app

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"espalier/configs"
	"espalier/policy"
	"espalier/policy/catalog"
)

// selection returns one of catalog.Sets under a policy and its PAC script. A row
// goes direct where it does at any site.
func (c *Compiled) selection(set string) (catalog.Selection, error) {
	pol, script := c.State.Policy, c.PAC
	direct := func(host string, port uint16) bool {
		block, _ := catalog.Block(host)
		t := policy.Target{Host: host, Addr: block.Addr(), Port: port}
		return slices.ContainsFunc(append(script.Sites(), ""), func(site string) bool {
			answer, err := script.Route(site, []string{"proxy.invalid:1"}, t)
			return err == nil && strings.Contains(answer.Text, "DIRECT")
		})
	}
	rows, err := catalog.Select(pol.Apple().Rows(), set, direct)
	if err != nil {
		return catalog.Selection{}, err
	}
	s := catalog.Selection{Set: set}
	s.Rows, s.Refused = pol.Open(rows, set == "proxy")
	return s, nil
}

// exports caches the lists that web.public serves to firewalls that poll: a list
// takes work to make, and any client may ask for it.
type exports struct {
	mu     sync.Mutex
	of     *Compiled
	at     time.Time
	format map[string][]byte
}

// exportAge is how long a cached list is served. A reload replaces it at once, a
// change of a host list that a rule names after this time.
const exportAge = time.Minute

// export is what devices must reach past the proxy by the configuration in force,
// nil if web.export is false.
func (a *App) export(format string) []byte {
	if !a.cfg().Web.Export {
		return nil
	}
	e, made := &a.exports, a.made.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.of != made || time.Since(e.at) > exportAge {
		e.of, e.at, e.format = made, time.Now(), map[string][]byte{}
	}
	if e.format[format] == nil {
		s, err := made.selection("devices")
		b := bytes.NewBuffer([]byte{})
		if err == nil {
			err = catalog.Export(b, format, s)
		}
		if err != nil {
			a.log.Error("list for firewalls failed", zap.Error(err))
			return nil
		}
		e.format[format] = b.Bytes()
	}
	return e.format[format]
}

// Selection returns what cfg lets a firewall's clients reach: the rows of one of
// catalog.Sets, or the whole catalogue for "".
func Selection(cfg *configs.Config, set string) (s catalog.Selection, err error) {
	made, err := compileAlone(cfg, nil)
	if err != nil {
		return s, err
	}
	if set != "" {
		s, err = made.selection(set)
		return s, invalid(err)
	}
	rows := catalog.Embedded()
	if cfg.Apple.Catalog != "" {
		if rows, err = catalog.Load(cfg.Apple.Catalog); err != nil {
			return s, invalid(err)
		}
	}
	s.Rows, s.Refused = made.State.Policy.Open(rows, false)
	return s, nil
}
