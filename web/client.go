package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"

	"espalier/proxy/inspect"
	"espalier/web/api"
	"espalier/web/server"
)

// ErrNotRunning is returned, wrapped, where nobody answers at a control socket.
var ErrNotRunning = errors.New("no espalier runs with this data directory")

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// A ControlClient talks to a running process over its control socket. It is
// safe for concurrent use.
type ControlClient struct {
	path string
	http http.Client
}

// NewControlClient returns a client of the process with that data directory. It
// does not connect yet.
func NewControlClient(dataDir string) *ControlClient {
	path := ControlPath(dataDir)
	return &ControlClient{path: path, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if err := checkPath(path); err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

// Status asks what the process says of itself.
func (c *ControlClient) Status(ctx context.Context) (api.Status, error) {
	var st api.Status
	err := c.do(ctx, http.MethodGet, "/status", &st)
	return st, err
}

// Reload lets the process read its configuration again. Where that is not taken
// over the error is a *server.Problem that says why.
func (c *ControlClient) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/reload", nil)
}

// RefreshLists lets the process read the list of that name from its source, all
// where it is empty, and waits for it. Where that fails the error is a *server.Problem
// that says why.
func (c *ControlClient) RefreshLists(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodPost, "/lists/refresh?name="+url.QueryEscape(name), nil)
}

// RenewTLS lets the process obtain the listeners' certificates anew, revoke those
// before if that is asked for, and waits for it. Where that fails the error is a
// *server.Problem that says why.
func (c *ControlClient) RenewTLS(ctx context.Context, revoke bool) error {
	return c.do(ctx, http.MethodPost, "/tls/renew?revoke="+strconv.FormatBool(revoke), nil)
}

// Drain lets the process take no new connections, and end once the open ones
// are closed or proxy.drain_timeout is over. It does not wait for that.
func (c *ControlClient) Drain(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/drain", nil)
}

// SetupLink asks for a link that lets a browser make the console's first user.
// Where there are users already the error is a *server.Problem.
func (c *ControlClient) SetupLink(ctx context.Context) (api.SetupLink, error) {
	var link api.SetupLink
	err := c.do(ctx, http.MethodPost, "/setup", &link)
	return link, err
}

// Exceptions asks for the hosts whose clients refuse interception.
func (c *ControlClient) Exceptions(ctx context.Context) ([]inspect.Exception, error) {
	var list api.ExceptionList
	err := c.do(ctx, http.MethodGet, "/inspect/exceptions", &list)
	return list.Exceptions, err
}

// ChangeException does one of api.AcceptException, RefuseException and
// ForgetException with a host.
func (c *ControlClient) ChangeException(ctx context.Context, do, host string) error {
	return c.do(ctx, http.MethodPost, "/inspect/exceptions/"+do+"?"+url.Values{"host": {host}}.Encode(), nil)
}

func (c *ControlClient) do(ctx context.Context, method, path string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://espalier"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var sys syscall.Errno
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
			return fmt.Errorf("%w: nobody answers at %s", ErrNotRunning, c.path)
		case errors.Is(err, os.ErrPermission):
			return fmt.Errorf("%s may only be opened by the user that espalier runs as: %w", c.path, os.ErrPermission)
		case errors.As(err, &sys):
			return fmt.Errorf("%s: %w", c.path, sys)
		}
		return errors.Unwrap(err) // without the URL, which says nothing here
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	if resp.StatusCode >= 400 {
		p := &server.Problem{Title: resp.Status, Status: resp.StatusCode}
		_ = json.Unmarshal(body, p) // where it is none, the status says enough
		return p
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("%s: the answer is not understood: %w", c.path, err)
	}
	return nil
}
