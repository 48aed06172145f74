package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"espalier/configs"
)

func runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Start the proxy",
		Long: `Starts the proxy, the PAC server and the console. Without -c it runs on the
embedded default configuration and keeps its state in ./espalier-data.

SIGHUP, a change of the configuration file and "espalier reload" read the
configuration again. SIGTERM and SIGINT drain and stop; a second one stops at
once.

Sockets that systemd passes take the place of configured addresses: the same
address, or any by FileDescriptorName=proxy, proxy-tls, public or admin. A
process that has such sockets may be started while the one before runs, which is
then stopped: no client is refused, and whoever has connected is answered.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd) },
	}
}

func run(cmd *cobra.Command) error {
	options := configOptions(cmd)
	loaded, err := configs.Load(options)
	if err != nil {
		return usage(err)
	}
	watcher, err := configs.NewWatcher(watched(loaded)...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	a, err := newApp(options, loaded, cancel)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	go a.handleSignals(signals)
	living, dying := context.WithCancel(cmd.Context()) // while draining too
	defer dying()
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		a.watch(living, watcher)
	}()
	if err := a.summary().write(newScreen(cmd.OutOrStdout())); err != nil {
		a.log.Warn("the summary could not be written", zap.Error(err))
	}
	err = a.serve(ctx)
	dying()
	<-watching
	return err
}

// handleSignals acts on signals until the process ends.
func (a *app) handleSignals(signals <-chan os.Signal) {
	reloads := make(chan struct{}, 1)
	go func() { // a reload that takes long does not hold up the end
		for range reloads {
			_ = a.reloadConfig() // it has logged what is wrong
		}
	}()
	stopping := false
	for s := range signals {
		switch {
		case s == syscall.SIGHUP:
			select {
			case reloads <- struct{}{}:
			default: // one that has not begun will do
			}
		case stopping:
			a.log.Warn("stopped at once, by a second signal")
			_ = a.access.Interrupt()
			os.Exit(1)
		default:
			stopping = true
			a.cancel()
		}
	}
}

// watch reloads when a file of the configuration changes, and reads lists again
// when theirs do.
func (a *app) watch(ctx context.Context, w *configs.Watcher) {
	w.Run(ctx, func(changed []string) {
		known := listFiles(a.current.Load().Config)
		if slices.ContainsFunc(changed, func(name string) bool { return !slices.Contains(known, name) }) {
			_ = a.reloadConfig() // it has logged what is wrong
			w.Follow(watched(a.current.Load())...)
		}
		a.lists.Reread() // behind Follow, so that no change is missed
	})
}

// watched are the files whose changes matter.
func watched(l *configs.Loaded) []string { return slices.Concat(l.Files, listFiles(l.Config)) }

// newLogger logs to standard error: for people on a terminal, JSON elsewhere.
func newLogger(level string) (*zap.Logger, zap.AtomicLevel) {
	at, _ := zap.ParseAtomicLevel(level) // validated
	cfg := zap.NewProductionEncoderConfig()
	cfg.TimeKey, cfg.EncodeTime = "time", zapcore.RFC3339TimeEncoder
	cfg.EncodeDuration = zapcore.StringDurationEncoder
	enc := zapcore.NewJSONEncoder(cfg)
	if term.IsTerminal(int(os.Stderr.Fd())) {
		cfg.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05")
		cfg.EncodeLevel = zapcore.CapitalColorLevelEncoder
		enc = zapcore.NewConsoleEncoder(cfg)
	}
	return zap.New(zapcore.NewCore(enc, zapcore.Lock(os.Stderr), at)), at
}

// summary is what a start says: what runs, and what to do next.
type summary struct {
	config, data string
	proxy, pac   string
	why          string // there is no PAC URL
	secret       bool   // of the PAC URL a part is left out
	console      string
	setup        string // link that makes the console's first user; empty where there are users
}

func (a *app) summary() summary {
	cfg := a.current.Load().Config
	s := summary{
		config: a.options.File, data: cfg.Data, proxy: a.proxyAddress(), pac: a.pacURL(""),
	}
	if s.config == "" {
		s.config = "embedded default"
	}
	if t := cfg.PAC.Token; t != "" { // what is printed here ends up in the journal
		s.pac, s.secret = strings.ReplaceAll(s.pac, t, "TOKEN"), true
	}
	switch {
	case s.pac != "":
	case len(a.publicOn) == 0:
		s.why = "web.public is empty: this process serves no script"
	default:
		s.why = "devices cannot reach the addresses of web.public"
	}
	s.console = a.consoleURL()
	if s.console != "" && !a.desk.HasUsers() {
		s.setup, _, _ = a.setupLink()
	}
	return s
}

func (s summary) write(to screen) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s is running\n\n", to.paint(bold, "Espalier"), programVersion())
	row := func(name string, as style, value string) {
		fmt.Fprintf(&b, "  %s  %s\n", to.paint(dim, fmt.Sprintf("%-13s", name)), to.paint(as, value))
	}
	if s.pac != "" {
		row("PAC URL", bold, s.pac)
		row("", dim, "give it to your MDM: Global HTTP Proxy, type Automatic")
		if s.secret {
			row("", dim, "with pac.token for TOKEN, as `espalier status` shows it")
		}
	} else {
		row("PAC URL", yellow, "none: "+s.why)
	}
	if s.proxy != "" {
		row("Proxy", plain, s.proxy)
		row("", dim, "what the PAC script sends devices to")
	}
	if s.console != "" {
		row("Console", plain, s.console)
	}
	if s.setup != "" {
		row("", bold, s.setup)
		row("", dim, "open this once, within the hour, to make the console's first user")
	}
	row("Configuration", plain, s.config)
	row("State", plain, s.data)
	b.WriteByte('\n')
	_, err := io.WriteString(to, b.String())
	return err
}
