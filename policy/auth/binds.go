package auth

import (
	"slices"
	"time"

	"espalier/policy/cache"
)

const (
	// bindWindow is the time in which max_failures binds of a user may fail.
	bindWindow = time.Hour
	// bindReserve is how many more may fail at clients that are known to be good and have not
	// failed of late, so that guesses at other clients do not keep their users out.
	bindReserve = 1
	// maxBinds bounds the users whose failed binds are counted.
	maxBinds = 20_000
)

// binds counts the binds of each user that have failed within bindWindow, so that Espalier
// does not reach the number at which the directory locks the user. It is safe for
// concurrent use.
type binds struct {
	now   func() time.Time
	users *cache.Cache[digest, []time.Time]
}

func newBinds(now func() time.Time) *binds {
	return &binds{now, cache.New[digest](maxBinds, func(*[]time.Time) time.Duration { return bindWindow }, now)}
}

// begin counts a bind of a user as failed before it is tried, so that binds at a time
// count too. If most have failed it returns how long to wait until the next.
func (b *binds) begin(user digest, most int) (wait time.Duration) {
	now := b.now()
	b.users.Update(user, func(old *[]time.Time) *[]time.Time {
		var failed []time.Time
		if old != nil {
			failed = slices.DeleteFunc(slices.Clone(*old), func(at time.Time) bool { return now.Sub(at) >= bindWindow })
		}
		if n := len(failed); n >= most {
			wait = bindWindow
			if most > 0 {
				wait = failed[n-most].Add(bindWindow).Sub(now)
			}
		} else {
			failed = append(failed, now)
		}
		if len(failed) == 0 {
			return nil
		}
		return &failed
	})
	return wait
}

// cancel takes one bind back that the directory did not answer.
func (b *binds) cancel(user digest) {
	b.users.Update(user, func(old *[]time.Time) *[]time.Time {
		if old == nil || len(*old) < 2 {
			return nil
		}
		left := (*old)[: len(*old)-1 : len(*old)-1]
		return &left
	})
}

// succeeded forgets the failures of a user, as the directory does.
func (b *binds) succeeded(user digest) { b.users.Delete(user) }
