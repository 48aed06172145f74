package catalog

import (
	"fmt"
	"html"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// A language renders rows the way the article writes them, with sentences of
// our own.
type language struct {
	head              []string // host to proxy
	and, only         string
	onlyInFront       bool
	yes, apns, before string
	sections          map[string]string // English title: title; missing: the same
	date              string
}

var english = language{
	head: []string{"Hosts", "Ports", "Protocol", "OS", "Description", "Supports proxies"},
	and:  ", and ", only: " only", yes: "Yes", apns: "See what is said of APNs and proxies.",
	before: "Devices need these hosts.", date: "Published Date: July 29, 2023",
}

var swedish = language{
	head: []string{"Servrar", "Portar", "Protokoll", "OS", "Beskrivning", "Stöd för proxyservrar"},
	and:  " och ", only: "Endast ", onlyInFront: true, yes: "Ja", apns: "Se texten om PN-tjänster med proxy.",
	before: "Enheterna behöver de här servrarna.", date: "Publiceringsdatum: 29 juli 2023",
	sections: map[string]string{
		"Device setup":      "Enhetsinställning",
		"Device management": "Enhetshantering",
		"Apple Business Manager and Apple School Manager": "Apple Business Manager och Apple School Manager",
		"Apple Business Essentials device management":     "Apple Business Essentials-enhetshantering",
		"Classroom and Schoolwork":                        "Klassrum och Skolarbete",
		"Software updates":                                "Mjukvaruuppdateringar",
		"Carrier updates":                                 "Uppdateringar från operatör",
		"Content caching":                                 "Innehållscachning",
		"App features":                                    "Appfunktioner",
		"Beta updates":                                    "Betauppdateringar",
		"DNS resolution":                                  "DNS-konvertering",
		"Certificate validation":                          "Certifikatvalidering",
		"Apple ID":                                        "Apple-ID",
		"Siri and search":                                 "Siri och sökning",
		"Tap to Pay on iPhone":                            "Tap to Pay på iPhone",
		"Additional content":                              "Ytterligare innehåll",
	},
}

func (l language) section(name string) string {
	if s, ok := l.sections[name]; ok {
		return s
	}
	return name
}

var systemNames = map[string]string{
	"ios": "iOS", "ipados": "iPadOS", "tvos": "tvOS", "macos": "macOS", "watchos": "watchOS", "visionos": "visionOS",
}

// cells are the cells of a row as the article has them, empty ones too.
func (l language) cells(r Row) []string {
	var names []string
	for _, s := range r.Systems {
		names = append(names, systemNames[s])
	}
	systems := strings.Join(names, ", ")
	switch n := len(names); {
	case n == 1 && l.onlyInFront:
		systems = l.only + systems
	case n == 1:
		systems += l.only
	case n > 1:
		systems = strings.Join(names[:n-1], ", ") + l.and + names[n-1]
	}
	protocol := strings.ToUpper(join(r.Transports, ", "))
	if slices.Equal(r.Ports, []uint16{22}) {
		protocol, systems = "SSH", "-"
	}
	proxy := map[Proxy]string{ProxyYes: l.yes, ProxySeeAPNs: l.apns}[r.Proxy]
	return []string{r.Host, join(r.Ports, ", "), protocol, systems, r.Purpose, proxy}
}

// text renders rows one cell a line, without the empty cells.
func (l language) text(rows []Row) string {
	var b strings.Builder
	line := func(s string) {
		if s != "" {
			b.WriteString(s + "\r\n\r\n")
		}
	}
	line("\ufeffA title that is no section")
	line("• A list that stands before it all")
	for i, r := range rows {
		if i == 0 || r.Section != rows[i-1].Section {
			line(l.section(r.Section))
			line(l.before)
			for _, h := range l.head {
				line(h)
			}
		}
		for _, c := range l.cells(r) {
			line(strings.ReplaceAll(c, ", ", ",\u00a0"))
		}
	}
	line("HTTP-proxy")
	line("Something about proxies and *.apple.com.")
	b.WriteString(l.date)
	return b.String()
}

// html renders rows as a page, with what pages have in their cells.
func (l language) html(rows []Row) string {
	var b strings.Builder
	b.WriteString("<!doctype html>\n<title>A page</title><h1>A title that is no section</h1><table><tr><td>not ours</td></tr></table>\n")
	for i, r := range rows {
		if i == 0 || r.Section != rows[i-1].Section {
			if i > 0 {
				b.WriteString("</table>\n")
			}
			fmt.Fprintf(&b, "<h2 id=\"s%d\"><span>%s</span></h2><p>%s</p>\n<table class=x>", i, html.EscapeString(l.section(r.Section)), l.before)
			if i%2 == 0 {
				b.WriteString("<thead><tr><th scope=col>" + strings.Join(l.head, "</th><th>") + "</th></tr></thead><tbody>\n")
			} else {
				b.WriteString("<tr><td><b>" + strings.Join(l.head, "</b></td><td><b>") + "</b></td></tr>\n")
			}
		}
		b.WriteString("<tr>")
		for k, c := range l.cells(r) {
			c = strings.ReplaceAll(html.EscapeString(c), ", ", ",&nbsp;")
			switch (i + k) % 4 {
			case 0:
				c = "<p class=\"y\">" + c + "</p>"
			case 1:
				c = "<a href=\"https://example.com\">" + c + "</a><sup>1</sup>"
			case 2:
				c = strings.ReplaceAll(c, ",&nbsp;", ",<br>")
			case 3:
				if c == "" {
					c = "—"
				}
			}
			b.WriteString("<td>" + c + "</td>")
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</table><h2>HTTP-proxy</h2><p>" + l.date + "</p>")
	return b.String()
}

// articleRows are the rows of July 2023 as an import gives them. Some have no
// description, as in the article.
func articleRows() []Row {
	var rows []Row
	for i, r := range Embedded() {
		if r.Source != "article 2023-07" {
			continue
		}
		r.Until, r.Note = "", ""
		if i%4 == 0 {
			r.Purpose = ""
		}
		rows = append(rows, r)
	}
	return rows
}

func TestImportGivesTheRowsOfTheArticle(t *testing.T) {
	want := articleRows()
	for name, l := range map[string]language{"english": english, "swedish": swedish} {
		for form, article := range map[string]string{"text": l.text(want), "html": l.html(want)} {
			t.Run(name+" "+form, func(t *testing.T) {
				got, err := Import(strings.NewReader(article))
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != 127 {
					t.Fatalf("%d rows, want 127", len(got))
				}
				for i := range want {
					if !reflect.DeepEqual(got[i], want[i]) {
						t.Errorf("row %d:\ngot  %+v\nwant %+v", i, got[i], want[i])
					}
				}
				again, err := Parse([]byte(encode(t, got)))
				if err != nil || !reflect.DeepEqual(again, got) {
					t.Errorf("what was imported is not read back: %v", err)
				}
			})
		}
	}
}

// lines makes text of cells, one a line.
func lines(cells ...string) string { return strings.Join(cells, "\n") + "\n" }

const head = "Hosts\nPorts\nProtocol\nOS\nDescription\nSupports proxies\n"

func TestImportText(t *testing.T) {
	for _, tt := range []struct{ name, article, want string }{
		{"a table that goes on with the section before", "iCloud\n" + head +
			lines("a.example.com", "443", "TCP", "Yes", "A paragraph stands here.") + head + lines("b.example.com", "443", "TCP", "Yes"),
			"a.example.com icloud [] \"\" yes; b.example.com icloud [] \"\" yes"},
		{"a list of systems is no section", "Software updates\nmacOS, iOS, and tvOS\nA paragraph.\n" + head + lines("a.example.com", "443", "TCP"),
			`a.example.com software-update [] "" unmarked`},
		{"a description that is the section's title, then the next section", "Certificate validation\n" + head +
			lines("a.example.com", "80", "TCP", "iOS", "Certificate validation") + "Apple ID\nA paragraph.\n" + head + lines("b.example.com", "443", "TCP"),
			`a.example.com certificates [ios] "Certificate validation" unmarked; b.example.com apple-account [] "" unmarked`},
		{"a description that is another section's title, above a row", "Tap to Pay on iPhone\n" + head +
			lines("a.example.com", "80", "TCP", "iCloud", "b.example.com", "443", "TCP"),
			`a.example.com tap-to-pay [] "iCloud" unmarked; b.example.com tap-to-pay [] "" unmarked`},
		{"a description that is another section's title, marked", "Tap to Pay on iPhone\n" + head + lines("a.example.com", "80", "TCP", "iCloud", "Yes"),
			`a.example.com tap-to-pay [] "iCloud" yes`},
		{"no description, then the next section", "iCloud\n" + head + lines("a.example.com", "80", "TCP") + "App Store\n" + head + lines("b.example.com", "443", "TCP"),
			`a.example.com icloud [] "" unmarked; b.example.com app-store [] "" unmarked`},
		{"a description like a list of systems", "iCloud\n" + head + lines("a.example.com", "80", "TCP", "iOS-, iPadOS- and watchOS-updates", "Yes"),
			`a.example.com icloud [] "iOS-, iPadOS- and watchOS-updates" yes`},
		{"a description of one system", "iCloud\n" + head + lines("a.example.com", "80", "TCP", "iOS", "macOS", "Yes"),
			`a.example.com icloud [ios] "macOS" yes`},
		{"dashes for empty cells", "iCloud\n" + head + lines("a.example.com", "80", "TCP", "—", "—", "—"),
			`a.example.com icloud [] "" unmarked`},
		{"tabs between cells", "iCloud\nHosts\tPorts\tProtocol\tOS\tDescription\tSupports proxies\na.example.com\t443, 80\tTCP\tiOS\t\tYes\n",
			`a.example.com icloud [ios] "" yes`},
		{"Port for Portar, Endast, och", "iCloud\nServrar\nPort\nProtokoll\nOS\nBeskrivning\nStöd för proxyservrar\na.example.com\n443 och 80\nTCP och UDP\nEndast macOS\nJa\n",
			`a.example.com icloud [macos] "" yes`},
		{"no column for systems", "iCloud\nHosts\nPorts\nProtocol\nDescription\nSupports proxies\na.example.com\n443\nTCP\nThings\nYes\n",
			`a.example.com icloud [] "Things" yes`},
		{"newer titles", "Apple Intelligence, Siri, and Search\n" + head + lines("a.example.com", "443", "TCP") +
			"Apps and additional content\n" + head + lines("b.example.com", "443", "TCP") +
			"Apple Account\n" + head + lines("c.example.com", "443", "TCP", "visionOS only"),
			`a.example.com siri [] "" unmarked; b.example.com additional-content [] "" unmarked; c.example.com apple-account [visionos] "" unmarked`},
		{"letters with combining marks", "iCloud\nServrar\nPortar\nProtokoll\nOS\nBeskrivning\nSto\u0308d fo\u0308r proxyservrar\na.example.com\n443\nTCP\nJa\n",
			`a.example.com icloud [] "" yes`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := Import(strings.NewReader(tt.article))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range rows {
				got = append(got, fmt.Sprintf("%s %s %v %q %s", r.Host, r.Service, r.Systems, r.Purpose, r.Proxy))
			}
			if s := strings.Join(got, "; "); s != tt.want {
				t.Errorf("got  %s\nwant %s", s, tt.want)
			}
		})
	}
}

func TestImportEdition(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"english", "Published Date: July 29, 2024", "article 2024-07"},
		{"british", "Published Date:\n29 October 2024", "article 2024-10"},
		{"swedish", "Publiceringsdatum: 3 maj 2024", "article 2024-05"},
		{"by the list of changes", "Nyligen genomförda förändringar\n\nJuli 2023:\n\nPubliceringsdatum:", "article 2023-07"},
		{"not told", "Published Date:", "article"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := Import(strings.NewReader("iCloud\n" + head + "a.example.com\n443\nTCP\nYes\n" + tt.line))
			if err != nil {
				t.Fatal(err)
			}
			if rows[0].Source != tt.want {
				t.Errorf("source %q, want %q", rows[0].Source, tt.want)
			}
		})
	}
}

func TestImportHTMLTakesColumnsByTheirHead(t *testing.T) {
	rows, err := Import(strings.NewReader(`<h2>iCloud</h2><table>
		<tr><th>Description</th><th>Hosts</th><th>OS</th></tr>
		<tr><td>Things</td><td>A.example.com</td><td>iOS and macOS</td></tr>
		<tr><td></td><td>*.b.example.com</td></tr></table>`))
	if err != nil {
		t.Fatal(err)
	}
	unknown := []string{"ports", "transports", "proxy"}
	want := []Row{
		{Host: "a.example.com", Ports: []uint16{443}, Transports: []string{"tcp"}, Systems: []string{"ios", "macos"}, Service: "icloud",
			Section: "iCloud", Purpose: "Things", Proxy: ProxyUnmarked, Source: "article", Unknown: unknown},
		{Host: "*.b.example.com", Ports: []uint16{443}, Transports: []string{"tcp"}, Service: "icloud",
			Section: "iCloud", Proxy: ProxyUnmarked, Source: "article", Unknown: unknown},
	}
	if !reflect.DeepEqual(rows, want) {
		t.Errorf("got  %+v\nwant %+v", rows, want)
	}
}

const noTable = `no table found (want tables headed "Hosts", "Ports", "Protocol" …, in Swedish "Servrar", "Portar", "Protokoll" …)`

func TestImportMistakesInText(t *testing.T) {
	row := func(cells ...string) string { return "iCloud\n" + head + lines(cells...) } // the row begins in line 8
	for _, tt := range []struct{ name, article, want string }{
		{"nothing", "", noTable},
		{"another text", "Dear reader,\n\nthis is not it.\n", noTable},
		{"not text", "iCloud\n\xff\xfe", "line 2: not UTF-8 text"},
		{"no host below the head", row("Example"), `line 8: "Example": want a host name below the table's head`},
		{"nothing below the head", "iCloud\n" + head, "line 7: the text ends here: want a host name below the table's head"},
		{"no section", head + lines("a.example.com", "443", "TCP"), `line 1: "Hosts": a table without a section's heading above it`},
		{"unknown section", "Flying cars\nA paragraph.\n" + head + lines("a.example.com", "443", "TCP"),
			`line 1: "Flying cars": not a section that is known here, yet a table stands below it`},
		{"unknown section behind a table", row("a.example.com", "443", "TCP", "iOS", "Things") + "Flying cars\nA paragraph.\n" + head + lines("b.example.com", "443", "TCP"),
			`line 13: "Flying cars": not a section that is known here, yet a table stands below it`},
		{"unknown section behind a row without a description", row("a.example.com", "443", "TCP", "iOS") + "Flying cars\nA paragraph.\n" + head + lines("b.example.com", "443", "TCP"),
			`line 12: "Flying cars": not a section that is known here, yet a table stands below it`},
		{"a section that has no table", "Firewalls\n" + head + lines("a.example.com", "443", "TCP"),
			`line 1: "Firewalls": not a section that is known here, yet a table stands below it`},
		{"a row without a head", "iCloud\na.example.com\n443\nTCP\n", `line 2: "a.example.com": a row without a table's head above it`},
		{"host misspelt", row("a.example.com", "443", "TCP", "iOS", "Things", "b_example.com", "443", "TCP"), `line 13: "b_example.com": not a host name, yet ports follow it`},
		{"host misspelt, below a row without a description", row("a.example.com", "443", "TCP", "b,example.com", "443", "TCP"), `line 11: "b,example.com": not a host name, yet ports follow it`},
		{"no ports", row("a.example.com", "TCP"), `line 9: a.example.com: ports: "TCP" is not a list of ports (want numbers such as "443, 80")`},
		{"port too large", row("a.example.com", "443, 70000", "TCP"), `line 9: a.example.com: ports: "70000" is not a port (allowed: 1 to 65535)`},
		{"port twice", row("a.example.com", "443, 443", "TCP"), `line 9: a.example.com: ports: 443 stands twice`},
		{"range of ports", row("a.example.com", "5000-5010", "TCP"), `line 9: a.example.com: ports: "5000-5010" is not a list of ports (want numbers such as "443, 80")`},
		{"no protocol", row("a.example.com", "443", "iOS"), `line 10: a.example.com: protocol: "iOS" is not a protocol (known: TCP, UDP, SSH)`},
		{"unknown protocol", row("a.example.com", "443", "TCP, SCTP"), `line 10: a.example.com: protocol: "TCP, SCTP" is not a protocol (known: TCP, UDP, SSH)`},
		{"unknown system", row("a.example.com", "443", "TCP", "iOS, fooOS and macOS"), `line 11: a.example.com: OS: "fooOS" is not an operating system (known: iOS, iPadOS, tvOS, macOS, watchOS, visionOS)`},
		{"system twice", row("a.example.com", "443", "TCP", "iOS and iOS"), `line 11: a.example.com: OS: operating system ios stands twice`},
		{"one cell too many", row("a.example.com", "443", "TCP", "iOS", "Things", "Yes", "More things", "b.example.com", "443", "TCP"),
			`line 14: "More things": not a cell of the row above, yet the table goes on in line 15`},
		{"one cell too many, then the text is cut off", row("a.example.com", "443", "TCP", "iOS", "Things", "Yes", "More things", "b.example.com", "443"),
			`line 14: "More things": not a cell of the row above, yet the table goes on in line 15`},
		{"two descriptions", row("a.example.com", "443", "TCP", "iOS", "Things", "Perhaps", "b.example.com", "443", "TCP"),
			`line 13: "Perhaps": not a cell of the row above, yet the table goes on in line 14`},
		{"a mark without a column for it", "iCloud\nHosts\nPorts\nProtocol\na.example.com\n443\nTCP\nYes\n", `line 8: "Yes": not a cell of the row above`},
		{"a protocol without a column for it", "iCloud\nHosts\nPorts\nDescription\na.example.com\n443\nTCP\n", `line 7: "TCP": not a cell of the row above`},
		{"a description without a column for it", "iCloud\nHosts\nPorts\nProtocol\na.example.com\n443\nTCP\nThings\nApp Store\n" + head + lines("b.example.com", "443", "TCP"),
			`line 8: "Things": neither a cell of the row above nor a section that is known here`},
		{"cut off behind a host", row("a.example.com"), "line 8: the text ends here: a.example.com has no ports"},
		{"cut off behind the ports", row("a.example.com", "443"), "line 9: the text ends here: a.example.com has no protocol"},
	} {
		t.Run(tt.name, func(t *testing.T) { importFails(t, tt.article, tt.want) })
	}
}

func TestImportMistakesInHTML(t *testing.T) {
	table := func(rows string) string {
		return "<h2>iCloud</h2><table><tr><th>Hosts<th>Ports<th>Protocol<th>OS<th>Description<th>Supports proxies</tr>" + rows + "</table>"
	}
	for _, tt := range []struct{ name, article, want string }{
		{"another page", "<p>Hello", noTable},
		{"another table", "<table><tr><td>a<td>b</table>", noTable},
		{"a head that is not known", "<h2>iCloud</h2><table><tr><th>Where<th>Which</tr><tr><td>a.example.com<td>443</table>",
			"line 1: table 1, row 2: a.example.com: a row like the article's below a head that is not (Where, Which)"},
		{"a column that is not known", "<h2>iCloud</h2><table><tr><th>Hosts<th>Colour</tr><tr><td>a.example.com<td>red</table>",
			`line 1: table 1: the column "Colour" is not known or stands twice`},
		{"no section", "<table><tr><th>Hosts<th>Ports</tr><tr><td>a.example.com<td>443</table>", "line 1: table 1: no section's heading above it"},
		{"unknown section", "<h2>Flying cars</h2><table><tr><th>Hosts<th>Ports</tr><tr><td>a.example.com<td>443</table>",
			`line 1: table 1: the heading "Flying cars" is not a section that is known here`},
		{"unknown section behind a table", table("<tr><td>a.example.com<td>443<td>TCP") + "<h3>Flying cars</h3><table><tr><th>Hosts<th>Ports</tr><tr><td>a.example.com<td>443</table>",
			`line 1: table 2: the heading "Flying cars" is not a section that is known here`},
		{"no rows", table(""), "line 1: table 1: no row below its head"},
		{"host", table("<tr><td>a example.com<td>443<td>TCP"), `line 1: table 1, row 2: "a example.com" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
		{"no host", table("<tr><td>a.example.com<td>443<td>TCP<tr><td><td>443"), `line 1: table 1, row 3: "" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
		{"ports", table("<tr><td>a.example.com<td>70000<td>TCP"), `line 1: table 1, row 2: a.example.com: ports: "70000" is not a port (allowed: 1 to 65535)`},
		{"no ports", table("<tr><td>a.example.com<td><td>TCP"), `line 1: table 1, row 2: a.example.com: ports: "" is not a list of ports (want numbers such as "443, 80")`},
		{"protocol", table("<tr><td>a.example.com<td>443<td>QUIC"), `line 1: table 1, row 2: a.example.com: protocol: "QUIC" is not a protocol (known: TCP, UDP, SSH)`},
		{"system", table("<tr><td>a.example.com<td>443<td>TCP<td>iOS and Linux"), `line 1: table 1, row 2: a.example.com: OS: "Linux" is not an operating system (known: iOS, iPadOS, tvOS, macOS, watchOS, visionOS)`},
		{"proxy", table("<tr><td>a.example.com<td>443<td>TCP<td>iOS<td>Things<td>Perhaps"),
			`line 1: table 1, row 2: a.example.com: proxy support: "Perhaps" is not understood (known: Yes, Ja, nothing, the note on APNs)`},
		{"too many cells", table("<tr><td>a.example.com<td>443<td>TCP<td><td><td><td>x"), "line 1: table 1, row 2: a.example.com: cells: 7 in the row, 6 in the table's head"},
		{"a cell that spans", table("<tr><td rowspan=2>a.example.com<td>443<td>TCP"), "line 1: table 1, row 2: a.example.com: cells: a cell with rowspan is not understood"},
		{"lines", "<p>\n" + table("\n<tr><td>a.example.com<td>443<td>TCP\n<tr>\n<td>b.example.com\n<td>x<td>TCP"),
			`line 4: table 1, row 3: b.example.com: ports: "x" is not a list of ports (want numbers such as "443, 80")`},
		{"lines of a table in a table", "<table><tr><td>\n<table><tr><td>x</table>\n</table>\n" + table("\n<tr><td>a b<td>443<td>TCP"),
			`line 5: table 3, row 2: "a b" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
	} {
		t.Run(tt.name, func(t *testing.T) { importFails(t, tt.article, tt.want) })
	}
}

func importFails(t *testing.T, article, want string) {
	t.Helper()
	rows, err := Import(strings.NewReader(article))
	if err == nil {
		t.Fatalf("imported as %+v", rows)
	}
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestImportTooLarge(t *testing.T) {
	if _, err := Import(strings.NewReader(strings.Repeat("x", maxArticle+1))); err == nil || err.Error() != "the article is larger than 16 MB" {
		t.Errorf("got %v", err)
	}
}

// What Import returns can be written and read again; what it refuses says why.
func FuzzImport(f *testing.F) {
	rows := articleRows()[:12]
	f.Add(english.text(rows))
	f.Add(swedish.text(rows))
	f.Add(english.html(rows))
	f.Add("iCloud\n" + head + "a.example.com\n443\nTCP\niOS, macOS\nThings\nYes\nApp Store\n" + head + "b.example.com\n80\nSSH\n-\n")
	f.Fuzz(func(t *testing.T, article string) {
		rows, err := Import(strings.NewReader(article))
		if err != nil {
			return
		}
		if len(rows) == 0 {
			t.Fatal("no rows and no error")
		}
		again, err := Parse([]byte(encode(t, rows)))
		if err != nil {
			t.Fatalf("what was imported does not parse: %v", err)
		}
		if !reflect.DeepEqual(again, rows) {
			t.Fatalf("read back as\n%+v\nnot\n%+v", again, rows)
		}
	})
}
