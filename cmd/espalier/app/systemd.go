package app

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// notify tells the service manager of a change (sd_notify(3)), where there is
// one. After STOPPING=1 it only feeds the watchdog: READY=1 behind a reload would say
// that the process goes on.
func (a *App) notify(state string) {
	if a.draining.Load() && state != daemon.SdNotifyWatchdog {
		return
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		a.log.Warn("the service manager could not be told", zap.String("state", state), zap.Error(err))
	}
}

// notifyReloading begins a reload, as Type=notify-reload wants it. READY=1 ends
// it.
func (a *App) notifyReloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail with this clock
	a.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/int64(time.Microsecond)))
}

// feedWatchdog tells the service manager twice in each interval that the process
// lives, where it wants to know (WatchdogSec=).
func (a *App) feedWatchdog(ctx context.Context) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		a.log.Warn("the service manager's watchdog is not fed", zap.Error(err))
	}
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.notify(daemon.SdNotifyWatchdog)
		case <-ctx.Done():
			return
		}
	}
}
