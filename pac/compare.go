package pac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Change is a URL for which two scripts differ.
type Change struct {
	URL string `json:"url"`
	Old string `json:"old"`
	New string `json:"new"`
	// Engine is set if engines differ about the URL: the change is this engine's.
	Engine Engine `json:"engine,omitempty"`
}

// A SlowError says that a comparison stopped before it had asked about all URLs.
type SlowError struct {
	Old         bool // the old script is too slow, else the new one
	Asked, URLs int
}

func (e *SlowError) Error() string {
	which := "new"
	if e.Old {
		which = "old"
	}
	return fmt.Sprintf("the %s script is too slow (over %s for a URL): only the first %d of %d URLs were compared", which, evalLimit, e.Asked, e.URLs)
}

// Compare asks two scripts about each URL, once, and returns those for which they
// differ, and how many it has asked about. old and new each are evaluators of one
// script, of the same engines in the same order. The error names an invalid URL, says
// that ctx has ended, or is a *SlowError; beside that the changes found are returned.
func Compare(ctx context.Context, old, new []*Evaluator, urls []string) (changes []Change, asked int, err error) {
	changes = []Change{} // never null in JSON
	seen := map[string]bool{}
	before, after := make([]byHost, len(old)), make([]byHost, len(new))
	for _, arg := range urls {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		url, host, _, err := DeviceURL(arg)
		if err != nil {
			return nil, 0, err
		}
		if seen[url] {
			continue
		}
		if slow := slices.ContainsFunc(old, (*Evaluator).TooSlow); slow || slices.ContainsFunc(new, (*Evaluator).TooSlow) {
			return changes, asked, &SlowError{Old: slow, Asked: asked, URLs: len(urls)}
		}
		seen[url] = true
		asked++
		var of []Change
		same := true
		for i := range old {
			if i == 1 && !old[0].differs() && !new[0].differs() {
				break // every engine answers the same
			}
			c := Change{URL: url, Engine: old[i].engine}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.Old = before[i].meaning(old[i], url, host)
			}()
			c.New = after[i].meaning(new[i], url, host)
			<-done
			of = append(of, c)
			same = same && c.Old == of[0].Old && c.New == of[0].New
		}
		if same {
			of = of[:1]
			of[0].Engine = ""
		}
		for _, c := range of {
			if c.Old != c.New {
				changes = append(changes, c)
			}
		}
	}
	return changes, asked, nil
}

// byHost remembers what a script answers that does not use the URL.
type byHost map[string]remembered

type remembered struct {
	meaning string
	differs bool
}

func (m *byHost) meaning(e *Evaluator, url, host string) string {
	if e.usesURL {
		return e.Meaning(url, host)
	}
	if *m == nil {
		*m = byHost{}
	}
	r, known := (*m)[host]
	if !known {
		r = remembered{meaning: e.Meaning(url, host)}
		r.differs = e.differs()
		(*m)[host] = r
	} else if e.host != nil {
		e.host.differs = r.differs
	}
	return r.meaning
}

// Meaning is what the script answers for url and host in the form of ParseAnswer,
// so that only answers of different meaning differ; or what is wrong.
func (e *Evaluator) Meaning(url, host string) string {
	answer, err := e.FindProxy(url, host)
	if err != nil {
		return "error: " + err.Error()
	}
	hops, err := ParseAnswer(answer)
	if err != nil {
		return fmt.Sprintf("invalid answer %q", answer)
	}
	var parts []string
	for _, hop := range hops {
		parts = append(parts, strings.TrimSpace(hop.Kind+" "+hop.Proxy))
	}
	return strings.Join(parts, "; ")
}

// differs reports whether another engine may answer differently from the last answer.
func (e *Evaluator) differs() bool {
	return e.fault != nil || e.mayDiffer || e.host != nil && e.host.differs
}

// Differ returns what each evaluator of a panel answers, or nil if all answer the
// same.
func Differ(panel []*Evaluator, url, host string) []string {
	answers := []string{panel[0].Meaning(url, host)}
	if !panel[0].differs() {
		return nil
	}
	same := true
	for _, e := range panel[1:] {
		answers = append(answers, e.Meaning(url, host))
		same = same && answers[len(answers)-1] == answers[0]
	}
	if same {
		return nil
	}
	return answers
}

// Engine is the engine that e imitates; empty without functions of browsers.
func (e *Evaluator) Engine() Engine { return e.engine }

// NewPanel returns an evaluator of the script for each engine. One of an engine
// that the script does not run in answers with that error; the error of NewPanel is
// that it runs in none.
func NewPanel(script []byte, b Browser, engines ...Engine) ([]*Evaluator, error) {
	var panel []*Evaluator
	var errs []error
	for _, engine := range engines {
		b.Engine = engine
		e, err := NewBrowserEvaluator(script, b)
		if err != nil {
			errs = append(errs, err)
			e = &Evaluator{engine: engine, fault: err}
		}
		panel = append(panel, e)
	}
	if len(errs) > 0 && len(errs) == len(engines) {
		return nil, errs[0]
	}
	return panel, nil
}

// An EngineAnswer is what a script answers when called with URL and Host.
type EngineAnswer struct {
	URL  string `json:"url"`
	Host string `json:"host"`
	// Engine is set if engines differ: the answer is this engine's.
	Engine Engine `json:"engine,omitempty"`
	Answer string `json:"answer"`
	Error  string `json:"error,omitempty"`
}

// Ask asks the evaluators of a script about destinations, in the forms of DeviceURL. It
// returns the answers to those that are valid, one each where all engines agree, never nil;
// and why the others are not.
func Ask(panel []*Evaluator, destinations []string) (answers []EngineAnswer, invalid error) {
	answers = []EngineAnswer{}
	var errs []error
	for _, d := range destinations {
		url, host, _, err := DeviceURL(d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var of []EngineAnswer
		for _, e := range panel {
			a := EngineAnswer{URL: url, Host: host, Engine: e.Engine()}
			if a.Answer, err = e.FindProxy(url, host); err != nil {
				a.Error = err.Error()
			}
			of = append(of, a)
		}
		if !slices.ContainsFunc(of, func(a EngineAnswer) bool { return a.Answer != of[0].Answer || a.Error != of[0].Error }) {
			of = of[:1]
			of[0].Engine = ""
		}
		answers = append(answers, of...)
	}
	return answers, errors.Join(errs...)
}
