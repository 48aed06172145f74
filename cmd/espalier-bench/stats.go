//go:build linux

package main

import (
	"math"
	"slices"
	"time"
)

// A spread is the median of several values with the smallest and largest.
type spread struct {
	median, min, max float64
}

// spreadOf returns the zero value's NaN where there are no values.
func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	v = slices.Clone(v)
	slices.Sort(v)
	mid := len(v) / 2
	m := v[mid]
	if len(v)%2 == 0 {
		m = (v[mid-1] + v[mid]) / 2
	}
	return spread{median: m, min: v[0], max: v[len(v)-1]}
}

// percentile returns the value at or above p (0 to 1) of the sorted values, by
// nearest rank; 0 where there are none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(p*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
