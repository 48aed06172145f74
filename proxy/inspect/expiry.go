package inspect

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"espalier/policy/catalog"
)

// expiryNotice is how long before its end a CA is warned about: long enough to
// bring a new root to every device.
const expiryNotice = 30 * day

// DaysLeft is how many whole days remain until NotAfter, negative behind it.
func (ca *CA) DaysLeft(now time.Time) int {
	return int(math.Floor(float64(ca.NotAfter().Sub(now)) / float64(day)))
}

// Warnings says in sentences what an administrator must do about the CA, nothing
// where all is well: it expires within 30 days, or rows, which are those in
// force, name hosts that it does not exclude.
func (ca *CA) Warnings(rows []catalog.Row, now time.Time) []string {
	var list []string
	if end := ca.NotAfter(); end.Sub(now) < expiryNotice {
		text := fmt.Sprintf("the CA expires in %d days, on %s", ca.DaysLeft(now), end.Format(time.DateOnly))
		if !now.Before(end) {
			text = "the CA expired on " + end.Format(time.DateOnly) + ", and nothing can be intercepted"
		}
		list = append(list, text+": "+ca.remedy(end))
	}
	if missing := ca.Missing(rows); len(missing) > 0 {
		text := strings.Join(missing[:min(len(missing), 3)], ", ")
		if len(missing) > 3 {
			text += fmt.Sprintf(" and %d more", len(missing)-3)
		}
		list = append(list, "the CA is older than the catalogue and does not exclude "+text+
			"; the proxy refuses to speak for them all the same: "+ca.remedy(ca.root.NotAfter.Add(-expiryNotice)))
	}
	return list
}

// Missing returns the hosts of rows that the CA does not exclude, sorted, each
// once: some where the CA is older than the catalogue. The CA stays valid, and
// Leaves refuses such hosts all the same.
func (ca *CA) Missing(rows []catalog.Row) []string { return ca.not.Missing(rows) }

// remedy says how to get certificates that are valid beyond until.
func (ca *CA) remedy(until time.Time) string {
	if ca.Offline() && ca.root.NotAfter.After(until) {
		return "run `espalier ca renew --root-key FILE`; devices need nothing new"
	}
	return "replace the root, and let devices trust both for a while (docs/inspection.md, Replace the root); `espalier ca init --force` replaces it at once"
}

var expiryDesc = prometheus.NewDesc("espalier_ca_expiry_timestamp_seconds",
	"When the interception CA expires; absent where there is none.", nil, nil)

// Expiry exports espalier_ca_expiry_timestamp_seconds. The function is called for
// each scrape and returns nil where there is no CA.
type Expiry func() *CA

// Describe implements prometheus.Collector.
func (f Expiry) Describe(ch chan<- *prometheus.Desc) { ch <- expiryDesc }

// Collect implements prometheus.Collector.
func (f Expiry) Collect(ch chan<- prometheus.Metric) {
	if ca := f(); ca != nil {
		ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(ca.NotAfter().Unix()))
	}
}
