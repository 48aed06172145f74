package catalog_test

import (
	"fmt"
	"html"
	"os"
	"slices"
	"strings"
	"testing"

	"espalier/policy/catalog"
)

// This file writes the article as someone would who has not seen the importer:
// its words are not those of words.go, some headings are of no edition, and the
// sentences are of our own. The facts are those of testdata/editions: one row a
// line, as each edition has them.

// A hand writes the article in a language.
type hand struct {
	head          [6]string
	and           string // between the last two items of a list
	only          string // "%s" is the system
	yes, apns     string
	before, after string // paragraphs
	date          string
	title         func(string) string // of a section
	texts         []string            // descriptions
}

// titled translates the titles that it has and keeps the others.
func titled(pairs ...string) func(string) string {
	return func(s string) string {
		if i := slices.Index(pairs, s); i >= 0 && i%2 == 0 {
			return pairs[i+1]
		}
		return s
	}
}

// numbered gives sections titles that say nothing, each its own.
func numbered(word string) func(string) string {
	seen := []string{}
	return func(s string) string {
		i := slices.Index(seen, s)
		if i < 0 {
			i, seen = len(seen), append(seen, s)
		}
		return fmt.Sprintf("%s %c", word, 'A'+i)
	}
}

var hands = map[string]hand{
	"english": {[6]string{"Hosts", "Ports", "Protocol", "OS", "Description", "Supports proxies"}, ", and ", "%s only", "Yes", "More on APNs and proxies",
		"These are for the network's owner to open.", "See the manual.", "Published Date: August 7, 2026", titled("Apps and additional content", "Apps and additional content"),
		[]string{"Something", "macOS updates", "Certificate validation", "Yes and no", "iOS-, iPadOS- and watchOS-parts"}},
	"german": {[6]string{"Hosts", "Ports", "Protokoll", "Betriebssystem", "Beschreibung", "Proxy möglich"}, " und ", "Nur %s", "Ja", "Mehr über APNs hinter Proxys",
		"Diese Namen braucht ein Gerät.", "Siehe Handbuch.", "Veröffentlicht: 7. August 2026", titled("Device setup", "Erstes Einschalten", "Device management", "Verwalten von Geräten",
			"Software updates", "Updates", "Carrier updates", "Vom Netzbetreiber", "iCloud", "iCloud", "Content caching", "Zwischenspeicher"),
		[]string{"Etwas", "macOS-Updates", "iCloud", "Einstellungen und mehr"}},
	"french": {[6]string{"Noms", "Ports", "Protocole", "Système", "Ce que c'est", "Fonctionne avec un proxy"}, " et ", "%s uniquement", "Oui", "À propos des APN et des proxys",
		"Ces noms doivent répondre.", "Voir le manuel.", "Date de publication : 7 août 2026", numbered("Partie"), []string{"Quelque chose", "Mises à jour de macOS", "Service"}},
	"spanish": {[6]string{"Servidores", "Puertos", "Protocolo", "SO", "Para qué", "Vale un proxy"}, " y ", "Solo %s", "Sí", "Sobre APNs y proxies",
		"Estos nombres hacen falta.", "Véase el manual.", "Fecha de publicación: 7 de agosto de 2026", numbered("Parte"), []string{"Algo", "Actualizaciones de macOS", "Compras"}},
	"japanese": {[6]string{"名前", "ポート番号", "通信プロトコル", "システム", "用途", "プロキシ経由"}, "、", "%sのみ", "はい", "APN とプロキシについて",
		"これらの名前が必要です。", "説明書を参照。", "公開日: 2026 年 8 月 7 日", numbered("章"), []string{"何か", "macOS アップデート", "購入"}},
	"dutch": {[6]string{"Namen", "Poorten", "Protocol", "Besturingssysteem", "Waarvoor", "Gaat via proxy"}, " en ", "Alleen %s", "Ja", "Over APNs en proxy's",
		"Deze namen zijn nodig.", "Zie het handboek.", "Publicatiedatum: 7 augustus 2026", titled("Device setup", "Toestel instellen"), []string{"Iets", "macOS-updates", "Aankopen"}},
	"polish": {[6]string{"Nazwy", "Porty", "Protokół", "System", "Do czego", "Przez proxy"}, " i ", "Tylko %s", "Tak", "O APNs i proxy",
		"Te nazwy są potrzebne.", "Zobacz podręcznik.", "Data publikacji: 7 sierpnia 2026", numbered("Część"), []string{"Coś", "Aktualizacje macOS", "Zakupy"}},
	"chinese": {[6]string{"名称", "端口号", "协议", "系统", "用途", "可用代理"}, "和", "仅限 %s", "是", "关于 APN 与代理",
		"需要这些名称。", "参见手册。", "发布日期：2026 年 8 月 7 日", numbered("第"), []string{"某物", "macOS 更新", "购买"}},
	// Not a word of these is known to the importer.
	"hungarian": {[6]string{"Nevek", "Kapuk", "Protokollok neve", "Rendszer", "Mire való", "Proxyval is"}, " valamint ", "Kizárólag %s", "Mehet", "Bővebben az APNs és a proxyk",
		"Ezek a nevek kellenek.", "Lásd a kézikönyvet.", "Közzététel: 2026-08-07", numbered("Rész"), []string{"Valami", "Frissítések", "Vásárlás"}},
	"korean": {[6]string{"이름", "포트 번호", "프로토콜 이름", "시스템", "용도", "프록시 가능"}, " 및 ", "%s만", "가능", "APN과 프록시에 관하여",
		"이 이름이 필요합니다.", "설명서를 보십시오.", "게시일: 2026년 8월 7일", numbered("장"), []string{"무엇", "macOS 업데이트", "구입"}},
}

// A fact is a row of an edition.
type fact struct {
	section, host string
	ports         []string
	transports    []string
	systems       []string
	proxy         string
	service       string
}

// edition reads the facts of an edition.
func edition(t testing.TB, name string) (facts []fact) {
	t.Helper()
	data, err := os.ReadFile("testdata/editions/" + name + ".tsv")
	if err != nil {
		t.Fatal(err)
	}
	list := func(s string) []string {
		if s == "" {
			return nil
		}
		return strings.Split(s, ",")
	}
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		f := strings.Split(line, "\t")
		if len(f) != 7 {
			t.Fatalf("%s: line %d has %d cells", name, i+1, len(f))
		}
		if i > 0 {
			facts = append(facts, fact{f[0], f[1], list(f[2]), list(f[3]), list(f[4]), f[5], f[6]})
		}
	}
	return facts
}

var systemsAsWritten = map[string]string{"ios": "iOS", "ipados": "iPadOS", "tvos": "tvOS", "macos": "macOS", "watchos": "watchOS", "visionos": "visionOS"}

// cells are those of a row, empty ones too. Every third row has no description.
func (h hand) cells(i int, f fact) []string {
	var names []string
	for _, s := range f.systems {
		names = append(names, systemsAsWritten[s])
	}
	systems := strings.Join(names, ", ")
	switch n := len(names); {
	case n == 1:
		systems = fmt.Sprintf(h.only, names[0])
	case n > 1:
		systems = strings.Join(names[:n-1], ", ") + h.and + names[n-1]
	}
	protocol := strings.ToUpper(strings.Join(f.transports, ", "))
	if f.ports[0] == "22" {
		protocol, systems = "SSH", "-"
	}
	text := ""
	if i%3 != 0 || f.proxy == "see-apns" {
		text = h.texts[i%len(h.texts)]
	}
	return []string{f.host, strings.Join(f.ports, ", "), protocol, systems, text, map[string]string{"yes": h.yes, "see-apns": h.apns}[f.proxy]}
}

// tables calls section above each table and row for each row.
func (h hand) tables(facts []fact, section func(title, sub string), row func([]string)) {
	for i, f := range facts {
		if i == 0 || f.section != facts[i-1].section {
			title, sub, _ := strings.Cut(f.section, " - ")
			if i > 0 && strings.HasPrefix(facts[i-1].section, title+" - ") {
				section("", sub)
			} else {
				section(h.title(title), sub)
			}
		}
		row(h.cells(i, f))
	}
}

func (h hand) lines(facts []fact) string {
	var b strings.Builder
	line := func(s string) {
		if s != "" {
			b.WriteString(s + "\r\n\r\n")
		}
	}
	line("A page about networks")
	h.tables(facts, func(title, sub string) {
		line(title)
		line(h.before)
		if sub != "" {
			line(sub)
			line(h.before)
		}
		for _, s := range h.head {
			line(s)
		}
	}, func(cells []string) {
		for _, c := range cells {
			line(strings.ReplaceAll(c, ", ", ",\u00a0"))
		}
	})
	line(h.after)
	line(h.date)
	return b.String()
}

func (h hand) html(facts []fact) string {
	var b strings.Builder
	b.WriteString("<!doctype html><title>A page</title><h1>A page about networks</h1><table><tr><td>Elsewhere<td>here</table>\n")
	open := false
	h.tables(facts, func(title, sub string) {
		if open {
			b.WriteString("</tbody></table>\n")
		}
		open = true
		if title != "" {
			b.WriteString("<h2><span>" + html.EscapeString(title) + "</span></h2><p>" + h.before + "</p>\n")
		}
		if sub != "" {
			b.WriteString("<h3>" + html.EscapeString(sub) + "</h3>\n")
		}
		b.WriteString("<div><table><thead><tr>")
		for _, s := range h.head {
			b.WriteString("<th scope=col><p>" + html.EscapeString(s) + "</p></th>")
		}
		b.WriteString("</tr></thead><tbody>\n")
	}, func(cells []string) {
		b.WriteString("<tr>")
		for k, c := range cells {
			if c == "" && k > 3 {
				c = "—"
			}
			b.WriteString("<td><p>" + strings.ReplaceAll(html.EscapeString(c), ".apple", "<wbr>.apple") + "</p></td>")
		}
		b.WriteString("</tr>\n")
	})
	b.WriteString("</tbody></table></div><p>" + h.after + "</p><p>" + h.date + "</p>")
	return b.String()
}

func (h hand) markdown(bars bool) func([]fact) string {
	return func(facts []fact) string {
		var b strings.Builder
		row := func(cells []string) {
			if bars {
				b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
			} else {
				b.WriteString(strings.Join(cells, " | ") + "\n")
			}
		}
		b.WriteString("# A page about networks\n\n")
		h.tables(facts, func(title, sub string) {
			if title != "" {
				b.WriteString("\n## " + title + "\n\n" + h.before + "\n")
			}
			if sub != "" {
				b.WriteString("\n**" + sub + "**\n")
			}
			b.WriteString("\n")
			row(h.head[:])
			row([]string{"---", ":--", "--", "---", "---", "--:"})
		}, func(cells []string) {
			cells[0] = strings.ReplaceAll("`"+cells[0]+"`", "`*", `\*`)
			cells[0] = strings.Replace(cells[0], `\*`, "`*", 1)
			row(cells)
		})
		b.WriteString("\n" + h.after + "\n\n" + h.date + "\n")
		return b.String()
	}
}

// spaced has a row a line, with sep between its cells; empty cells stay where sep
// is a tab.
func (h hand) spaced(sep string) func([]fact) string {
	return func(facts []fact) string {
		var b strings.Builder
		row := func(cells []string) {
			if sep != "\t" {
				if cells[3] == "" && strings.Contains(cells[4], "macOS") {
					cells[4] = h.texts[0] // or nothing could tell it from a system
				}
				cells = slices.DeleteFunc(slices.Clone(cells), func(s string) bool { return s == "" })
			}
			b.WriteString(strings.Join(cells, sep) + "\n")
		}
		h.tables(facts, func(title, sub string) {
			b.WriteString("\n" + title + "\n" + h.before + "\n")
			if sub != "" {
				b.WriteString(sub + "\n")
			}
			row(h.head[:])
		}, row)
		b.WriteString("\n" + h.after + "\n" + h.date + "\n")
		return b.String()
	}
}

func describe(host string, ports, transports, systems []string, proxy, service string) string {
	sort := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	return fmt.Sprintf("%s %v %v %v %s %s", host, sort(ports), sort(transports), sort(systems), proxy, service)
}

// Texts by another hand: each row is right, and its service is the catalogue's.
func TestImportBySecondHand(t *testing.T) {
	for _, tt := range []struct{ language, form, edition string }{
		{"english", "lines", "2026-07"}, {"english", "html", "2024-07"}, {"english", "spaces", "2024-07"}, {"english", "tabs", "2026-07"},
		{"german", "lines", "2024-07"}, {"german", "markdown", "2026-07"}, {"german", "spaces", "2026-07"},
		{"french", "html", "2026-07"}, {"french", "lines", "2024-07"}, {"french", "columns", "2024-07"},
		{"spanish", "spaces", "2026-07"}, {"spanish", "lines", "2023-07"}, {"spanish", "bare markdown", "2024-07"},
		{"japanese", "lines", "2026-07"}, {"japanese", "html", "2023-07"}, {"japanese", "markdown", "2024-07"}, {"japanese", "spaces", "2024-07"},
		{"dutch", "bare markdown", "2026-07"}, {"dutch", "tabs", "2023-07"}, {"dutch", "columns", "2026-07"}, {"dutch", "lines", "2026-07"},
		{"polish", "lines", "2026-07"}, {"polish", "spaces", "2023-07"}, {"polish", "tabs", "2024-07"},
		{"chinese", "tabs", "2026-07"}, {"chinese", "lines", "2024-07"}, {"chinese", "spaces", "2026-07"},
		{"hungarian", "lines", "2026-07"}, {"hungarian", "html", "2024-07"}, {"hungarian", "spaces", "2026-07"}, {"hungarian", "bare markdown", "2023-07"}, {"hungarian", "tabs", "2026-07"},
		{"korean", "lines", "2024-07"}, {"korean", "html", "2026-07"}, {"korean", "spaces", "2026-07"}, {"korean", "markdown", "2026-07"},
	} {
		t.Run(tt.language+" "+tt.form+" "+tt.edition, func(t *testing.T) {
			h := hands[tt.language]
			write := map[string]func([]fact) string{
				"lines": h.lines, "html": h.html, "markdown": h.markdown(true), "bare markdown": h.markdown(false),
				"tabs": h.spaced("\t"), "spaces": h.spaced(" "), "columns": h.spaced("   "),
			}[tt.form]
			facts := edition(t, tt.edition)
			a, err := catalog.Import(strings.NewReader(write(facts)), catalog.Options{Known: catalog.Embedded()})
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Rows) != len(facts) {
				t.Fatalf("%d rows, want %d", len(a.Rows), len(facts))
			}
			if a.Edition != "2026-08" {
				t.Errorf("edition %q", a.Edition)
			}
			for i, f := range facts {
				r := a.Rows[i]
				var ports []string
				for _, p := range r.Ports {
					ports = append(ports, fmt.Sprint(p))
				}
				got := describe(r.Host, ports, r.Transports, r.Systems, string(r.Proxy), r.Service)
				if want := describe(f.host, f.ports, f.transports, f.systems, f.proxy, f.service); got != want {
					t.Errorf("row %d:\ngot  %s\nwant %s", i, got, want)
				}
			}
		})
	}
}
