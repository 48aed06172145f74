package lists

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"

	"go.uber.org/zap"

	"espalier/policy/hostset"
)

const (
	// fetchTime bounds a fetch as a whole.
	fetchTime = 5 * time.Minute
	// maxRedirects is how often a source may say that the list is elsewhere.
	maxRedirects = 5
	// maxError bounds what is shown of an error.
	maxError = 500
)

// fetch reads the list from its URL, and notes how that went.
func (l *list) fetch(ctx context.Context) error {
	err := printable(l.download(ctx))
	if err != nil && ctx.Err() == nil {
		l.fail(err)
	}
	return err
}

// printable returns an error whose text can be shown anywhere: a server has a
// say in some, by its certificate for one.
func printable(err error) error {
	if err == nil {
		return nil
	}
	before := err.Error()
	after := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, before[:min(len(before), maxError)])
	if after == before {
		return err
	}
	return errors.New(after)
}

func (l *list) download(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	known := l.get().header
	resp, err := l.ask(ctx, known)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	now := time.Now()
	switch {
	case resp.StatusCode == http.StatusNotModified && known.Source == digest(l.source):
		l.mu.Lock()
		l.state.success, l.state.err = now, nil
		l.mu.Unlock()
		// The copy's time tells the next process; without it that asks sooner.
		_ = os.Chtimes(l.copy, time.Time{}, now)
		l.log.Debug("the list has not changed")
		return nil
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the server answers %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	h := header{digest(l.source), now, resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")}
	c := startCopy(l.copy, h)
	defer c.discard()
	set, report, err := hostset.Parse(io.TeeReader(resp.Body, c), l.source.Member)
	if err == nil {
		err = l.nothing(report, set)
	}
	if err != nil {
		return fmt.Errorf("what the server sends %w", err)
	}
	l.put(set, state{report: report, loaded: now, success: now, header: h})
	if err := c.keep(now); err != nil {
		l.log.Warn("no copy of the list was kept: until there is one, a start without its server finds an old list, or none", zap.Error(err))
	}
	return nil
}

// ask asks for the list, or whether it has changed.
func (l *list) ask(ctx context.Context, known header) (*http.Response, error) {
	_, target, err := l.source.Target()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.source.URL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "Espalier")
	if known.Source == digest(l.source) {
		if known.ETag != "" {
			req.Header.Set("If-None-Match", known.ETag)
		}
		if known.LastModified != "" {
			req.Header.Set("If-Modified-Since", known.LastModified)
		}
	}
	l.mu.Lock()
	transport := l.transport
	l.mu.Unlock()
	client := http.Client{Transport: transport(target), CheckRedirect: checkRedirect}
	resp, err := client.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL, which may hold a password
	}
	return resp, err
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return errors.New("the server redirects again and again")
	case req.URL.Scheme != "https" && via[0].URL.Scheme == "https":
		return errors.New("the server redirects from https to http, where anybody on the way could change the list")
	}
	return nil
}
