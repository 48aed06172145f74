package app

import (
	"errors"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"espalier/configs"
	"espalier/pac/history"
	"espalier/policy"
	"espalier/web/api"
)

// apply puts a configuration into force.
func (a *App) apply(made *Compiled) {
	l := made.loaded
	a.lists.Use(made.lists, listTransport(made.State.Dialer, made.State.Roots))
	a.server.Apply(made.State)
	if a.auth != nil {
		a.auth.Close()
	}
	a.auth = made.State.Auth
	a.health.Watch(made.PAC.Probed())
	if err := keepScripts(history.New(a.data), made.PAC, a.sockets.addrs(forProxy), l.Hash); err != nil {
		a.log.Warn("the PAC script was not kept in its history", zap.Error(err))
	}
	a.made.Store(made)
	select {
	case a.applied <- struct{}{}:
	default:
	}
	a.desk.SetUsers(l.Config.UsersFile(), made.users)
	a.exceptions.SetDuration(l.Config.Inspect.Pinned.For)
	a.exceptions.TunnelWithoutCA(l.Config.Inspect.WithoutCA == policy.WithoutCATunnel)
	_ = a.level.UnmarshalText([]byte(l.Config.Log.Level)) // validated
	now := time.Now()
	a.reload.Store(&api.Reload{File: a.options.File, Time: now, OK: true, Loaded: now})
	for _, w := range l.Warnings {
		a.log.Warn(w.Error())
	}
	a.warnOfCA()
}

// Reload reads the configuration again. Where anything is wrong with it,
// the one in force stays, and the error says all that is wrong. It works while
// draining too, until everything is closed.
func (a *App) Reload() error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if a.closed {
		return errors.New("the process is stopping")
	}
	a.notifyReloading()
	defer a.notify(daemon.SdNotifyReady)
	l, err := configs.Load(a.options)
	var made *Compiled
	if err == nil {
		made, err = a.compile(l)
	}
	if err == nil {
		err = a.applyTLS(l.Config)
	}
	if err != nil {
		before := a.reload.Load()
		a.reload.Store(&api.Reload{
			File: a.options.File, Time: time.Now(), Loaded: before.Loaded,
			Problems: strings.Split(err.Error(), "\n"),
		})
		a.log.Error("the configuration was not reloaded, the one before stays in force", zap.Error(err))
		return err
	}
	if keys := configs.RestartKeys(a.cfg(), l.Config); len(keys) > 0 {
		a.log.Warn("the configuration was reloaded, but these keys take effect at the next start only", zap.Strings("keys", keys))
	}
	a.apply(made)
	a.lists.Reread()
	a.log.Info("the configuration was reloaded", zap.String("file", a.options.File))
	return nil
}
