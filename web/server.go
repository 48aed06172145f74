package web

import (
	"net/http"
	"time"

	"go.uber.org/zap"
)

// PublicServer returns a server of the public listeners, within limits that suit
// small answers to many strangers. Its listeners should be wrapped by
// hello.NewListener, or hello.NewMux where there is a certificate.
func PublicServer(p *Public) *http.Server {
	s := server(p, p.source.Log)
	s.DisableGeneralOptionsHandler = true // "OPTIONS *" is for the handler too
	s.WriteTimeout, s.IdleTimeout = 10*time.Second, 30*time.Second
	s.MaxHeaderBytes = 8 << 10
	return s
}

// AdminServer returns a server of the admin listeners, which should be wrapped in
// the same way.
func AdminServer(c Control) *http.Server { return server(NewAdmin(c), c.Log) }

// ControlServer returns a server of the control socket.
func ControlServer(c Control) *http.Server { return server(NewControl(c), c.Source.Log) }

// server bounds what a client may take; errors of connections are logged at the
// debug level, for anybody can cause them.
func server(h http.Handler, log *zap.Logger) *http.Server {
	errors, err := zap.NewStdLogAt(log, zap.DebugLevel)
	if err != nil {
		panic(err) // only a level that does not exist
	}
	return &http.Server{
		Handler: h, ErrorLog: errors, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
	}
}
