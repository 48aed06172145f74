package proxy

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// panicked notes that a handler panicked with fault: its request is lost, and
// has its record, the log says where it was, and the process goes on. x is nil
// where there is no request yet, or somebody else answers it.
func (s *Server) panicked(x *exchange, fault any) {
	if fault == http.ErrAbortHandler {
		return // a way to close the connection, after the record
	}
	s.panics.Add(1)
	s.ops.Error("panic in a handler", zap.Any("panic", fault), zap.Stack("stack"))
	if x != nil && !x.finished {
		x.failed(fmt.Errorf("panic: %v", fault))
		x.finish(0)
	}
}

var panicsDesc = prometheus.NewDesc("espalier_panics_total",
	"Panics in handlers, each a mistake in Espalier; the log has their stacks.", nil, nil)
