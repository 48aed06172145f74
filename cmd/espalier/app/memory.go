package app

import (
	"errors"
	"math"
	"os"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"
)

// limitMemory lets the collector keep within nine tenths of what the control
// group (version 1 or 2) allows, unless GOMEMLIMIT says what to keep within. The
// overload of the proxy goes by the same limit.
func limitMemory(log *zap.Logger) {
	limit, err := memlimit.Set()
	switch {
	case errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
		log.Debug("no memory limit: there is no control group", zap.Error(err))
	case err != nil:
		log.Warn("the control group's memory limit is not heeded", zap.Error(err))
	case limit == math.MaxInt64:
		log.Info("no memory limit, neither by GOMEMLIMIT nor by the control group")
	default:
		from := "control group"
		if os.Getenv("GOMEMLIMIT") != "" {
			from = "GOMEMLIMIT"
		}
		log.Info("memory limit", zap.Int64("bytes", limit), zap.String("from", from))
	}
}
