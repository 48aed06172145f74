//go:build linux

package scenario

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// A party plays one script: the client's or the origin's.
type party struct {
	run   *run
	name  string
	link  link // the connection that the script uses at the moment
	queue []event
	want  *decoder
	round int
	clock time.Time
	kept  []kept
	open  func() (link, *decoder, error) // the next connection
}

// kept is a connection that the script goes back to.
type kept struct {
	name  string
	link  link
	want  *decoder
	queue []event
}

func (p *party) play(steps []step) error {
	for p.round = range max(1, p.run.scenario.rounds) {
		for _, st := range steps {
			if !applies(p.run.entry, st.conds) {
				continue
			}
			if err := p.step(st); err != nil {
				return fmt.Errorf("%s, line %d, %s, round %d: %w", p.name, st.line, st.verb, p.round+1, err)
			}
		}
	}
	return nil
}

func (p *party) connect() (err error) {
	p.queue = nil
	p.link, p.want, err = p.open()
	return err
}

func (p *party) step(st step) error {
	args := make([]string, len(st.args))
	for i, a := range st.args {
		args[i] = expand(a, p.run.vars)
	}
	text := expand(st.text, p.run.vars)
	switch st.verb {
	case "connect", "accept", "signal", "await", "pause":
	default:
		if p.link == nil {
			if err := p.connect(); err != nil {
				return err
			}
		}
	}
	switch st.verb {
	case "connect", "accept":
		return p.connect()
	case "send":
		return p.link.send([]byte(text))
	case "clock":
		p.clock = time.Now()
		return nil
	case "elapsed": // at most, whatever the bounds
		most, err := time.ParseDuration(args[0])
		if took := time.Since(p.clock); err == nil && took > most {
			return fmt.Errorf("%s have passed, want at most %s", took, most)
		}
		return err
	case "send-end":
		return p.sendEnd(text)
	case "flood":
		return p.flood()
	case "close-all":
		p.run.origin.closeAll()
		return nil
	case "try-send":
		_ = p.link.send([]byte(text))
		return nil
	case "drip": // n pause "text"
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		for range n {
			if err := p.link.send([]byte(text)); err != nil {
				return err
			}
			if err := p.run.pause(args[1]); err != nil {
				return err
			}
		}
		return nil
	case "pause":
		return p.run.pause(args[0])
	case "receive":
		return p.receive(text)
	case "answer", "request", "head":
		return p.message(st.verb != "head", args)
	case "relay":
		return p.relay()
	case "half-close":
		return p.link.halfClose()
	case "reset":
		p.link.reset()
		return nil
	case "close":
		p.link.close()
		return nil
	case "another-stream":
		l, ok := p.link.(*h2link)
		if !ok {
			return errors.New("HTTP/1.1 has no streams")
		}
		l.next()
		p.queue, p.want.raw = nil, false
		l.in.raw = false
		return nil
	case "keep":
		p.kept = append(p.kept, kept{args[0], p.link, p.want, p.queue})
		return nil
	case "use":
		for _, k := range p.kept {
			if k.name == args[0] {
				p.link, p.want, p.queue = k.link, k.want, k.queue
				return nil
			}
		}
		return fmt.Errorf("no connection %q", args[0])
	case "any-interims":
		return p.interims()
	case "refused":
		return p.refused()
	case "end", "closed", "cut":
		return p.over(st.verb, args)
	case "signal":
		return p.run.signal(fmt.Sprint(args[0], p.round))
	case "await":
		return p.run.await(fmt.Sprint(args[0], p.round))
	}
	return errors.New("unknown step")
}

// event takes the next event.
func (p *party) event() (event, error) {
	for len(p.queue) == 0 {
		list, err := p.link.fill(p.run.limit)
		if err != nil {
			return event{}, err
		}
		p.queue = list
	}
	e := p.queue[0]
	p.queue = p.queue[1:]
	return e, nil
}

// receive expects the messages in text, or parts of them.
func (p *party) receive(text string) error {
	list, err := p.want.write([]byte(text))
	if err != nil {
		return fmt.Errorf("expected text: %w", err)
	}
	if len(p.want.buf) > 0 {
		return fmt.Errorf("expected text ends in the middle of a line: %q", p.want.buf)
	}
	for _, w := range list {
		for rest := w.text; ; {
			e, err := p.event()
			if err != nil {
				return fmt.Errorf("got %w, want %.200q", err, rest)
			}
			if e.kind != w.kind {
				return fmt.Errorf("got %.200q, want %.200q", e.text, rest)
			}
			if w.kind == headEvent {
				if d := diff(e.text, w.text, p.run.entry.http2); d != "" {
					return errors.New(d)
				}
				break
			}
			if w.kind == endEvent {
				if e.text != w.text && (!p.run.entry.http2 || !strings.EqualFold(e.text, w.text)) {
					return fmt.Errorf("got trailers %q, want %q", e.text, w.text)
				}
				break
			}
			n := min(len(e.text), len(rest))
			if e.text[:n] != rest[:n] {
				return fmt.Errorf("got body %.200q, want %.200q", e.text, rest)
			}
			if n < len(e.text) {
				p.queue = append([]event{{dataEvent, e.text[n:]}}, p.queue...)
			}
			if rest = rest[n:]; rest == "" {
				break
			}
		}
	}
	return nil
}

// message expects a head, and its whole body if whole is set. The first argument
// of an answer is its status; the others are "name=pattern", where name is that of
// a field, "line" for the first line, "body" or "trailers", and "!name" for fields that must
// not be there.
func (p *party) message(whole bool, args []string) error {
	e, err := p.event()
	if err != nil {
		return fmt.Errorf("got %w, want a head", err)
	}
	if e.kind != headEvent {
		return fmt.Errorf("got %.200q, want a head", e.text)
	}
	h, body, trailers := e.text, "", ""
	if err := p.want.skip(h); err != nil {
		return err
	}
	if len(args) > 0 && !strings.ContainsAny(args[0], "=!") {
		if got := strconv.Itoa(statusOf(h)); !slices.Contains(strings.Split(args[0], "|"), got) {
			return fmt.Errorf("got %.300q, want status %s", h, args[0])
		}
		args = args[1:]
	}
	if status := statusOf(h); whole && !p.want.raw && (status == 0 || status >= 200) {
		for {
			e, err := p.event()
			if err != nil {
				return fmt.Errorf("%w in the body of %.300q, after %d bytes", err, h, len(body))
			}
			if e.kind == endEvent {
				trailers = e.text
				break
			}
			body += e.text
		}
		p.want.state, p.want.left = atHead, 0
	}
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "!"); ok {
			if v := field(h, name); v != "" {
				return fmt.Errorf("got %s: %q, want none", name, v)
			}
			continue
		}
		name, pattern, _ := strings.Cut(a, "=")
		re, err := regexp.Compile("^(?s:" + pattern + ")$")
		if err != nil {
			return err
		}
		got := field(h, name)
		switch name {
		case "line":
			got, _, _ = strings.Cut(h, "\r\n")
		case "body":
			got = body
		case "trailers":
			got = trailers
		}
		if !re.MatchString(got) {
			return fmt.Errorf("got %s %q, want %s (in %.300q)", name, got, pattern, h)
		}
	}
	return nil
}

// over expects that nothing more comes: "end" an end in order, "closed" any end,
// "cut" an end in the middle of a message, with the error code in HTTP/2 where
// one is given.
func (p *party) over(how string, args []string) error {
	var err error
	for {
		var e event
		if e, err = p.event(); err != nil {
			break
		}
		switch {
		case e.kind == endEvent && how != "cut":
		case e.kind == dataEvent && how == "cut":
		default:
			return fmt.Errorf("got %.300q, want the end", e.text)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || strings.HasPrefix(err.Error(), "nothing in ") {
		return fmt.Errorf("the connection stays open: %w", err)
	}
	switch {
	case how == "end" && err != io.EOF:
		return fmt.Errorf("got %w, want an end in order", err)
	case how == "cut" && (p.link.complete() || err == io.EOF && p.raw()):
		return fmt.Errorf("got %w, want that it does not look complete", err)
	}
	var reset http2.StreamError
	if len(args) > 0 && errors.As(err, &reset) && reset.Code.String() != args[0] {
		return fmt.Errorf("got %s, want %s", reset.Code, args[0])
	}
	return nil
}

func (p *party) raw() bool { l, ok := p.link.(*h1link); return ok && l.in.raw }

// sendEnd sends text and closes the sending side, in one segment.
func (p *party) sendEnd(text string) error {
	l, ok := p.link.(*h1link)
	if !ok || l.drip {
		return errors.Join(p.link.send([]byte(text)), p.link.halfClose())
	}
	raw, err := l.tcp.SyscallConn()
	if err != nil {
		return err
	}
	cork := func(on int) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on) })
		return errors.Join(err, failed)
	}
	return errors.Join(cork(1), l.send([]byte(text)), l.halfClose(), cork(0))
}

// flood sends zeros until the other side leaves.
func (p *party) flood() error {
	buf := make([]byte, 256<<10)
	for range 1 << 12 {
		if p.link.send(buf) != nil {
			return nil
		}
	}
	return errors.New("the other side takes everything")
}

// refused expects an answer that refuses the request or, by HTTP/2, a reset of its
// stream.
func (p *party) refused() error {
	e, err := p.event()
	var reset http2.StreamError
	if errors.As(err, &reset) {
		p.link.(*h2link).next()
		return nil
	}
	if err != nil || e.kind != headEvent || statusOf(e.text)/100 != 4 {
		return fmt.Errorf("got %.200q, %w, want a refusal", e.text, err)
	}
	p.queue = append([]event{e}, p.queue...)
	return p.message(true, nil)
}

// interims takes interim answers, as many as there are.
func (p *party) interims() error {
	for {
		e, err := p.event()
		if err != nil {
			return err
		}
		if e.kind != headEvent || statusOf(e.text)/100 != 1 {
			p.queue = append([]event{e}, p.queue...)
			return nil
		}
	}
}

// relay makes the origin a proxy that sends what it gets back to the proxy under
// test: a loop.
func (p *party) relay() error {
	e, err := p.event()
	if err != nil {
		return err
	}
	if err := p.want.skip(e.text); err != nil {
		return err
	}
	p.queue = nil // the end of the message
	var d net.Dialer
	c, err := d.DialContext(p.run.ctx, "tcp", p.run.rig.listener.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(p.run.limit))
	if _, err := io.WriteString(c, e.text); err != nil {
		return err
	}
	h, err := readHead(bufio.NewReader(c))
	if err != nil {
		return fmt.Errorf("the proxy's answer to its own request: %q, %w", h, err)
	}
	_, err = io.WriteString(p.link.(*h1link).conn, "HTTP/1.1 502 Loop\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	return err
}

// run is a scenario on an entry.
type run struct {
	scenario *scenario
	entry    entry
	ctx      context.Context
	cancel   context.CancelFunc
	scale    float64
	limit    time.Duration // of each wait
	vars     map[string]string
	rig      *rig
	origin   *origin
	signals  *signals
}

func (r *run) pause(d string) error {
	wait, err := time.ParseDuration(d)
	if err != nil {
		return err
	}
	select {
	case <-time.After(time.Duration(float64(wait) * r.scale)):
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

func (r *run) signal(name string) error {
	close(r.signals.of(name))
	return nil
}

func (r *run) await(name string) error {
	select {
	case <-r.signals.of(name):
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-time.After(r.limit):
		return fmt.Errorf("no signal %s in %s", name, r.limit)
	}
}
