package inspect

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"espalier/policy/catalog"
)

func rows(hosts ...string) []catalog.Row {
	list := make([]catalog.Row, len(hosts))
	for i, h := range hosts {
		list[i] = catalog.Extra(h, nil)
	}
	return list
}

func TestConstraintsAreTheLeast(t *testing.T) {
	c := ConstraintsOf(rows("b.example", "*.a.example", "x.a.example", "xa.example", "b.example", "10.1.0.0/16", "10.1.2.3", "10.0.0.0/8", "2001:db8::/32", "192.0.2.1"))
	if want := []string{"a.example", "b.example", "xa.example"}; !slices.Equal(c.Domains, want) {
		t.Errorf("domains %q, want %q", c.Domains, want)
	}
	if want := "[10.0.0.0/8 192.0.2.1/32 2001:db8::/32]"; text(c.Blocks) != want {
		t.Errorf("blocks %s, want %s", text(c.Blocks), want)
	}
	missing := c.Missing(rows("a.example", "*.example", "new.example", "new.example", "10.2.0.0/16", "192.0.2.0/24", "b.example"))
	if want := []string{"*.example", "192.0.2.0/24", "new.example"}; !slices.Equal(missing, want) {
		t.Errorf("missing %q, want %q", missing, want)
	}
}

func text(list []netip.Prefix) string {
	var s []string
	for _, p := range list {
		s = append(s, p.String())
	}
	return "[" + strings.Join(s, " ") + "]"
}

// Whatever the catalogue matches, on whatever port, is excluded.
func TestCatalogueIsExcluded(t *testing.T) {
	labels := rapid.SampledFrom([]string{"a", "b", "apple", "com", "x-y", "push"})
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(labels, 1, 4).Draw(t, "labels"), ".")
	})
	rapid.Check(t, func(t *rapid.T) {
		var list []catalog.Row
		for _, host := range rapid.SliceOfN(name, 1, 6).Draw(t, "rows") {
			if rapid.Bool().Draw(t, "wild") {
				host = "*." + host
			}
			list = append(list, catalog.Extra(host, nil))
		}
		c, set := ConstraintsOf(list), catalog.Compile(list)
		host := name.Draw(t, "host")
		if set.Match(host, netip.Addr{}, 443).OK() && !c.Exclude(host, netip.Addr{}) {
			t.Fatalf("%v: %s is not excluded by %q", list, host, c.Domains)
		}
		if missing := c.Missing(list); len(missing) > 0 {
			t.Fatalf("missing %q", missing)
		}
	})
}

func TestWarnings(t *testing.T) {
	kinds(t, func(t *testing.T, ca *CA) {
		remedy := "`espalier ca init --force`"
		if ca.Offline() {
			remedy = "`espalier ca renew --root-key FILE`"
		}
		end := ca.NotAfter()
		for _, c := range []struct {
			name string
			now  time.Time
			want string
		}{
			{"31 days before", end.Add(-31 * day), ""},
			{"a week before", end.Add(-7*day - time.Hour), "the CA expires in 7 days, on "},
			{"the last day", end.Add(-time.Hour), "the CA expires in 0 days, on "},
			{"expired", end, "the CA expired on " + end.Format(time.DateOnly)},
		} {
			list := ca.Warnings(apple(), c.now)
			if c.want == "" && len(list) == 0 {
				continue
			}
			if len(list) != 1 || c.want == "" || !strings.HasPrefix(list[0], c.want) || !strings.Contains(list[0], remedy) {
				t.Errorf("%s: %q", c.name, list)
			}
		}
		if n := ca.DaysLeft(end.Add(time.Hour)); n != -1 {
			t.Errorf("an hour after the end: %d days left", n)
		}
	})
}

func TestExpiryMetric(t *testing.T) {
	var ca *CA
	expiry := Expiry(func() *CA { return ca })
	if n := testutil.CollectAndCount(expiry); n != 0 {
		t.Errorf("%d series without a CA", n)
	}
	ca = testCA(t, InitOptions{})
	if got := testutil.ToFloat64(expiry); got != float64(ca.NotAfter().Unix()) {
		t.Errorf("%f, the CA expires at %v", got, ca.NotAfter())
	}
}
