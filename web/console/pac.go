package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/boombuler/barcode/qr"
	"go.uber.org/zap"

	"espalier/pac"
	"espalier/pac/history"
	"espalier/web/api"
)

// PAC is the page of the script and of what devices are given.
type PAC struct {
	Site    string // empty for the general one
	Sites   []string
	Problem string // why there is no script
	Script  string
	ETag    string

	URL, CA  string // that devices can reach; empty: there is none
	QR, CAQR Code

	URLs        string // to test, a line each
	Answers     []PACAnswer
	TestProblem string

	Former         []history.Entry // the newest first
	Old            string          // id of the one to compare with; empty: none
	Changes        []pac.Change
	Asked          int // URLs that both were asked about
	CompareProblem string
}

// PACAnswer is what a script answers.
type PACAnswer struct{ URL, Answer, Problem string }

// pacPage is GET /pac?site=SITE&urls=LINES&old=ID: the script, what it answers,
// and what it answers else than one that was in force.
func (c pages) pacPage(r *http.Request, p *Page) (any, int) {
	q := r.URL.Query()
	e := c.Explainer()
	site := q.Get("site")
	if site != "" && !e.PAC.HasSite(site) {
		return notice(NoSuchThing), http.StatusNotFound
	}
	view := PAC{Site: site, Sites: e.PAC.Sites(), URLs: q.Get("urls")}
	script, _, err := e.Script(site, netip.Addr{})
	if err != nil {
		view.Problem = err.Error()
		return view, http.StatusOK
	}
	view.Script, view.ETag = string(script.Body), script.ETag
	if at := p.Status.PACURL; at != "" {
		scheme, rest, _ := strings.Cut(at, "://")
		host, _, _ := strings.Cut(rest, "/")
		base := scheme + "://" + host
		view.URL = base + e.PAC.Path(site)
		if p.Status.CA != nil {
			view.CA = base + "/ca.mobileconfig"
		}
		view.QR, view.CAQR = code(view.URL), code(view.CA)
	}
	view.Old = q.Get("old")
	c.compare(r.Context(), script.Body, &view)
	if view.URLs == "" {
		view.URLs = "https://gs.apple.com/\nhttps://www.icloud.com/\nhttps://example.com/"
		return view, http.StatusOK
	}
	view.Answers, view.TestProblem = answers(script.Body, strings.Fields(view.URLs))
	return view, http.StatusOK
}

// comparing bounds how long two scripts are asked.
const comparing = 10 * time.Second

// compare adds the site's former scripts, and what has changed since view.Old.
func (c pages) compare(ctx context.Context, script []byte, view *PAC) {
	entries, err := c.History.List()
	if err != nil {
		c.Log.Warn("the history of the PAC script cannot be read", zap.Error(err))
		return
	}
	for _, e := range slices.Backward(entries) {
		if e.Site == cmp.Or(view.Site, pac.General) && len(view.Former) < 50 {
			view.Former = append(view.Former, e)
		}
	}
	if view.Old == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, comparing)
	defer cancel()
	if view.Changes, view.Asked, err = c.changes(ctx, view.Old, script); err != nil {
		view.CompareProblem = err.Error()
	}
}

// changes are what a script answers else than one of the history.
func (c pages) changes(ctx context.Context, id string, script []byte) ([]pac.Change, int, error) {
	former, err := c.History.Find(id)
	if err != nil {
		return nil, 0, err
	}
	var engines [2][]*pac.Evaluator
	for i, text := range [][]byte{former, script} {
		engine, err := pac.NewEvaluator(text)
		if err != nil {
			return nil, 0, err
		}
		engines[i] = []*pac.Evaluator{engine}
	}
	e := c.Explainer()
	patterns := slices.Concat(pac.HostsIn(former), pac.HostsIn(script))
	for _, r := range e.Rules {
		patterns = append(patterns, r.When.Hosts...)
	}
	return pac.Compare(ctx, engines[0], engines[1], pac.Samples(e.Policy.Apple().Rows(), patterns))
}

// answers are those of a script to URLs.
func answers(script []byte, urls []string) (list []PACAnswer, problem string) {
	engine, err := pac.NewEvaluator(script)
	if err != nil {
		return nil, err.Error()
	}
	for _, text := range urls[:min(len(urls), api.MaxURLs)] {
		a := PACAnswer{URL: text}
		url, host, _, err := pac.DeviceURL(text)
		if err == nil {
			a.Answer, err = engine.FindProxy(url, host)
		}
		if err != nil {
			a.Problem = err.Error()
		}
		list = append(list, a)
	}
	return list, ""
}

// downloadPAC is GET /pac/script?site=SITE&client=ADDRESS.
func (c pages) downloadPAC(w http.ResponseWriter, r *http.Request) {
	site, script, _, err := c.Script(r.URL.Query().Get("site"), r.URL.Query().Get("client"))
	if err != nil {
		api.ProblemOf(err).Write(w)
		return
	}
	w.Header().Set("Content-Type", "application/x-ns-proxy-autoconfig")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", cmp.Or(site, "proxy")+".pac"))
	w.Write(script.Body)
}

// Code is a QR code: the path of an SVG that many units wide. Size 0: none.
type Code struct {
	Size int
	Path string
}

// code is a QR code of a text, as the path of an SVG with a margin; the zero Code
// for no text.
func code(text string) Code {
	if text == "" {
		return Code{}
	}
	made, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return Code{} // too long for any
	}
	const margin = 4
	size := made.Bounds().Dx()
	var path strings.Builder
	for y := range size {
		for x := range size {
			if red, _, _, _ := made.At(x, y).RGBA(); red == 0 {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x+margin, y+margin)
			}
		}
	}
	return Code{Size: size + 2*margin, Path: path.String()}
}
