package accesslog

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"espalier/policy"
)

// varied makes n records in the two days before a time, of many hosts and clients.
func varied(n int, end time.Time) []Record {
	rnd := rand.New(rand.NewPCG(1, 2))
	services := []string{"push", "app-store", "icloud", "software-update", "other"}
	actions := []policy.Action{policy.Tunnel, policy.Tunnel, policy.Tunnel, policy.Forward, policy.Deny, policy.Error}
	list := make([]Record, n)
	for i := range list {
		r := &list[i]
		*r = Record{
			ID: ID(1e15 + i), Time: end.Add(-time.Duration(n-i) * 48 * time.Hour / time.Duration(n)), Method: "CONNECT",
			Client: netip.AddrFrom4([4]byte{10, 1, 0, byte(rnd.IntN(90))}),
			Host:   fmt.Sprintf("h%d.example.com", rnd.IntN(90)), Port: 443,
			Service: services[rnd.IntN(len(services))], Action: actions[rnd.IntN(len(actions))],
			Rule: "default", Status: 200, Up: rnd.Int64N(1e5), Down: rnd.Int64N(1e7), Duration: time.Second,
		}
		switch r.Action {
		case policy.Error:
			r.Error, r.Status = "no route", 502
		case policy.Deny:
			r.Rule, r.Status, r.Error = "games", 403, "told so"
		}
	}
	return list
}

// sumsOf are those of the stored records in a window, by what name says.
func sumsOf(t *testing.T, s *Store, from, to time.Time, name func(*Record) string) map[string]Sum {
	t.Helper()
	sums := map[string]Sum{}
	for r, err := range s.All(t.Context(), Filter{From: from, To: to}, true) {
		if err != nil {
			t.Fatal(err)
		}
		x := sums[name(r)]
		x.Add(sumOf(r))
		sums[name(r)] = x
	}
	return sums
}

var nameBy = map[string]func(*Record) string{
	ByService: func(r *Record) string { return r.Service },
	ByAction:  func(r *Record) string { return string(r.Action) },
	ByHost:    func(r *Record) string { return r.Host },
	ByClient:  func(r *Record) string { return r.Client.String() },
}

// The sums of any window are those of the records in it.
func TestTrafficIsTheSumOfTheRecords(t *testing.T) {
	b := openBoth(t, Config{File: "access.log", Format: "json"})
	now := time.Now()
	for _, r := range varied(300, now) {
		b.log.Write(&r)
	}
	b.settle(300)
	for _, w := range []struct {
		name     string
		from, to time.Duration // before now
		step     time.Duration
	}{
		{"an hour", time.Hour, 0, 0},
		{"an hour, long ago", 30 * time.Hour, 29 * time.Hour, 0},
		{"a day", 24 * time.Hour, 0, 0},
		{"a day by the minute", 24 * time.Hour, 0, time.Minute},
		{"a day by quarters of an hour", 24 * time.Hour, 0, 15 * time.Minute},
		{"all", 48*time.Hour + time.Minute, 0, 0},
		{"a month by the day", 30 * 24 * time.Hour, 0, 24 * time.Hour},
		{"a year", 365 * 24 * time.Hour, 0, 0},
		{"since ever", 20 * 365 * 24 * time.Hour, 0, 0},
	} {
		for _, by := range Dimensions {
			t.Run(w.name+" by "+by, func(t *testing.T) {
				got, err := b.store.Traffic(t.Context(), TrafficQuery{From: now.Add(-w.from), To: now.Add(-w.to), By: by, Step: w.step})
				if err != nil {
					t.Fatal(err)
				}
				if got.From.After(now.Add(-w.from)) || got.To.Before(now.Add(-w.to)) {
					t.Errorf("covers only %v to %v", got.From, got.To)
				}
				sums := map[string]Sum{}
				for _, r := range got.Rows {
					x := sums[r.Name]
					x.Add(r.Sum)
					sums[r.Name] = x
				}
				want := sumsOf(t, b.store, got.From, got.To, nameBy[by])
				if len(want) == 0 || fmt.Sprint(sums) != fmt.Sprint(want) {
					t.Errorf("got %.500v\nwant %.500v", fmt.Sprint(sums), fmt.Sprint(want))
				}
			})
		}
	}
}

func TestTrafficLimit(t *testing.T) {
	b := openBoth(t, Config{File: "access.log", Format: "json"})
	now := time.Now()
	for _, r := range varied(300, now) {
		b.log.Write(&r)
	}
	b.settle(300)
	all, err := b.store.Traffic(t.Context(), TrafficQuery{From: now.Add(-24 * time.Hour), By: ByHost, Step: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	few, err := b.store.Traffic(t.Context(), TrafficQuery{From: now.Add(-24 * time.Hour), By: ByHost, Step: time.Hour, Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, r := range few.Rows {
		names[r.Name] = true
	}
	if len(names) != 4 || !names[""] || few.Total() != all.Total() {
		t.Errorf("%v of %v: %v", few.Total(), all.Total(), names)
	}
	if _, err := b.store.Traffic(t.Context(), TrafficQuery{By: "id"}); err == nil {
		t.Error("traffic by id is no error")
	}
}

// Names of one hour do not grow without bound, and the sums stay right.
func TestTalkersAreBounded(t *testing.T) {
	defer func(before bounds) { defaultBounds = before }(defaultBounds)
	defaultBounds = bounds{open: 40, kept: 10}
	maxTalkers, maxKept := defaultBounds.open, defaultBounds.kept
	b := openBoth(t, Config{})
	hour := time.Now().Add(-2 * time.Hour).Truncate(time.Hour)
	for i := range maxTalkers + 50 {
		b.log.Write(&Record{ID: ID(i + 1), Time: hour.Add(time.Second), Host: fmt.Sprintf("h%d.example", i), Service: "other", Action: policy.Forward, Down: int64(i)})
	}
	b.restart() // which trims, as the hour is over
	query := TrafficQuery{From: hour, To: hour.Add(time.Hour), By: ByHost}
	var got *Traffic
	trimmed := func() bool {
		var err error
		if got, err = b.store.Traffic(t.Context(), query); err != nil {
			t.Fatal(err)
		}
		return len(got.Rows) == maxKept+1
	}
	await(t, "the hour to be trimmed", trimmed)
	n := int64(maxTalkers + 50)
	if want := (Sum{Requests: n, Down: n * (n - 1) / 2}); got.Total() != want {
		t.Errorf("sum %v, want %v", got.Total(), want)
	}
	// A record that comes late opens the hour again.
	for i := range maxKept + 1 {
		b.log.Write(&Record{ID: ID(1e6 + i), Time: hour.Add(time.Second), Host: fmt.Sprintf("late%d.example", i), Service: "other", Action: policy.Forward, Down: 1e9})
	}
	b.restart()
	await(t, "the hour to be trimmed again", trimmed)
	if got.Total().Requests != n+int64(maxKept)+1 {
		t.Errorf("sum %v", got.Total())
	}
}
