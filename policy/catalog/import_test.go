package catalog

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// read imports an article without a catalogue.
func read(article string) ([]Row, error) {
	a, err := Import(strings.NewReader(article), Options{})
	if err != nil {
		return nil, err
	}
	return a.Rows, nil
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
		{"full-width letters and digits", "iCloud\nホスト\tポート\tプロトコル\tOS\t説明\tプロキシ\n＊．a.example.com\t４４３、８０\tＴＣＰ\tｉＯＳ\t\tＹｅｓ\n",
			`*.a.example.com icloud [ios] "" yes`},
		{"letters with combining marks", "iCloud\nServrar\nPortar\nProtokoll\nOS\nBeskrivning\nSto\u0308d fo\u0308r proxyservrar\na.example.com\n443\nTCP\nJa\n",
			`a.example.com icloud [] "" yes`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := read(tt.article)
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
			rows, err := read("iCloud\n" + head + "a.example.com\n443\nTCP\nYes\n" + tt.line)
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
	rows, err := read(`<h2>iCloud</h2><table>
		<tr><th>Description</th><th>Hosts</th><th>OS</th></tr>
		<tr><td>Things</td><td>A.example.com</td><td>iOS and macOS</td></tr>
		<tr><td></td><td>*.b.example.com</td></tr></table>`)
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

// The services of hosts that the catalogue does not have, and what is told of
// them and of headings.
func TestImportNewHosts(t *testing.T) {
	known := Embedded()
	row := func(host string) string { return host + "\t443\tTCP\tiOS\tThings\tYes\n" }
	for _, tt := range []struct {
		name, article string
		sections      map[string]string
		want          string // host service, and why
		unknown       string
	}{
		{"by the heading", "Software updates\n" + row("new.apple.com"), nil, `new.apple.com software-update by its section, "Software updates"`, ""},
		{"by the heading in another language", "Zertifikatsvalidierung\n" + row("new.apple.com"), nil, `new.apple.com certificates by its section, "Certificate validation"`, ""},
		{"by a subheading", "Apple Business\nEmployees and students\n" + row("new.apple.com"), nil, `new.apple.com business-school by its section, "Apple Business Manager and Apple School Manager"`, ""},
		{"by a similar heading", "ID Verifier for iPad\n" + row("new.apple.com"), nil, `new.apple.com id-verifier heading "ID Verifier for iPad" is like "ID Verifier"`, "ID Verifier for iPad: 1 "},
		{"by letters of the heading", "Certificates validated\n" + row("new.apple.com"), nil, `new.apple.com certificates heading "Certificates validated" is like "Certificate validation"`, "Certificates validated: 1 "},
		{"by the option", "Flying cars\n" + row("new.apple.com"), map[string]string{"flying Cars": "siri"}, `new.apple.com siri as --section says`, "Flying cars: 1 "},
		{"the option says nothing of known hosts", "Flying cars\n" + row("ppq.apple.com"), map[string]string{"Flying cars": "siri"}, ``, "Flying cars: 1 App Store"},
		{"by the known hosts of its table", "Flying cars\n" + row("swscan.apple.com") + row("swdist.apple.com") + row("new.apple.com"), nil,
			`new.apple.com software-update by its section, "Software updates"`, "Flying cars: 3 Software updates"},
		{"below a known wildcard", "Flying cars\n" + row("new.school.apple.com"), nil, `new.school.apple.com business-school it is below *.school.apple.com`, "Flying cars: 1 "},
		{"push", "Flying cars\n" + row("new.push.apple.com"), nil, `new.push.apple.com push it is below push.apple.com`, "Flying cars: 1 "},
		{"by a similar host", "Flying cars\n" + row("gdmf-new.apple.com"), nil, `gdmf-new.apple.com device-management its name is like gdmf.apple.com`, "Flying cars: 1 "},
		{"by nothing", "Flying cars\n" + row("zzz.apple.com"), nil, `zzz.apple.com apple-other nothing known is like it or its heading`, "Flying cars: 1 "},
		{"without a heading", row("zzz.apple.com"), nil, `zzz.apple.com apple-other nothing known is like it or its heading`, ""},
		{"a further row of a known host", "Flying cars\n" + row("ppq.apple.com") + row("zzz.apple.com") + row("yyy.apple.com") + "Boats\n" + row("ppq.apple.com"), nil,
			`zzz.apple.com app-store by its section, "App Store"; yyy.apple.com app-store by its section, "App Store"; ppq.apple.com app-store by its section, "App Store"`,
			"Flying cars: 3 App Store; Boats: 1 App Store"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Import(strings.NewReader(tt.article), Options{Known: known, Sections: tt.sections})
			if err != nil {
				t.Fatal(err)
			}
			var fresh, unknown []string
			for _, n := range a.New {
				fresh = append(fresh, n.Host+" "+n.Service+" "+n.Why)
			}
			for _, u := range a.Unknown {
				unknown = append(unknown, fmt.Sprintf("%s: %d %s", u.Heading, u.Rows, u.Section))
			}
			if got := strings.Join(fresh, "; "); got != tt.want {
				t.Errorf("new:\ngot  %s\nwant %s", got, tt.want)
			}
			if got := strings.Join(unknown, "; "); got != tt.unknown {
				t.Errorf("unknown:\ngot  %s\nwant %s", got, tt.unknown)
			}
		})
	}
	for name, o := range map[string]Options{
		`section "iCloud": "cloud" is unknown`:                                               {Sections: map[string]string{"iCloud": "cloud"}},
		`section "iCloud": "other" is unknown`:                                               {Sections: map[string]string{"iCloud": Other}},
		`section "Boats": no table of the article is below such a heading (it has "iCloud")`: {Sections: map[string]string{"Boats": "siri"}},
	} {
		if _, err := Import(strings.NewReader("iCloud\n"+row("a.apple.com")), o); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}

const noTable = `no table found (want rows of a host, its ports such as "443, 80" and its protocol such as TCP)`

func TestImportMistakesInText(t *testing.T) {
	row := func(cells ...string) string { return "iCloud\n" + head + lines(cells...) } // the row begins in line 8
	for _, tt := range []struct{ name, article, want string }{
		{"nothing", "", noTable},
		{"another text", "Dear reader,\n\nthis is not it.\n", noTable},
		{"not text", "iCloud\n\xff\xfe", "line 2: not UTF-8 text"},
		{"no host below the head", row("Example"), `line 8: "Example": want a host name below the table's head`},
		{"nothing below the head", "iCloud\n" + head, "line 7: the text ends here: want a host name below the table's head"},
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
		{"two columns that nothing tells", "<h2>iCloud</h2><table><tr><th>Hosts<th>Colour<th>Smell<th>Weight<th>Age</tr><tr><td>a.example.com<td>red<td>sweet<td>1 kg<td>old</table>",
			`line 1: table 1, row 1: unknown column "Smell"`},
		{"a column twice", "<h2>iCloud</h2><table><tr><th>Hosts<th>Ports<th>Ports</tr><tr><td>a.example.com<td>443<td>443</table>", `line 1: table 1, row 1: duplicate column "Ports"`},
		{"no rows", table(""), "line 1: table 1, row 1: no row below the table's head"},
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
	rows, err := read(article)
	if err == nil {
		t.Fatalf("imported as %+v", rows)
	}
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestImportTooLarge(t *testing.T) {
	if _, err := read(strings.Repeat("x", maxArticle+1)); err == nil || err.Error() != "the article is larger than 16 MB" {
		t.Errorf("got %v", err)
	}
}

// What Import returns can be written and read again; what it refuses says why.
func FuzzImport(f *testing.F) {
	row := "a.example.com | 443, 80 | TCP | iOS, macOS | Things | Yes"
	f.Add("iCloud\n" + head + "a.example.com\n443\nTCP\niOS, macOS\nThings\nYes\nApp Store\n" + head + "b.example.com\n80\nSSH\n-\n")
	f.Add("<h2>iCloud</h2><table><tr><th>Hosts<th>Ports<th>Protocol<tr><td>a.example.com<td>443<td>TCP</table>")
	f.Add("## iCloud\n\nHosts | Ports | Protocol | OS | Description | Proxy\n---|---|---|---|---|---\n" + row + "\n")
	f.Add("## iCloud\n\n| Hosts | Ports | Protocol | OS | Description | Proxy |\n|---|---|---|---|---|---|\n| " + row + " |\n")
	f.Add("iCloud\n" + strings.ReplaceAll(row, " | ", "\t") + "\n" + strings.ReplaceAll(row, " | ", "  ") + "\n" + strings.ReplaceAll(row, " | ", " ") + "\n")
	f.Add("Rész\nNevek\nKapuk\nProtokoll\nOS\nMire\nProxy\na.example.com\n443\nTCP\nCsak macOS\nValami\nMehet\nb.example.com\n443\nTCP\nValami\nMehet\n")
	f.Fuzz(func(t *testing.T, article string) {
		a, err := Import(strings.NewReader(article), Options{Known: Embedded()})
		if err != nil {
			return
		}
		if len(a.Rows) == 0 {
			t.Fatal("no rows and no error")
		}
		rows, u := a.Update(Embedded())
		if want := len(Embedded()) + len(a.New); !u.Alone && len(rows) != want {
			t.Fatalf("%d rows, want %d: those of the catalogue and the new ones", len(rows), want)
		}
		if u.Alone {
			rows = a.Rows
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

// Forms that editors and spreadsheets write.
func TestImportForms(t *testing.T) {
	for _, tt := range []struct{ name, article, want string }{
		{"underlined headings", "A page\n======\n\nSoftware updates\n---\n\nText.\n\nHosts | Ports | Protocol\n--- | --- | ---\na.example.com | 443 | TCP\n", "a.example.com [443] [tcp] [] software-update"},
		{"a bold heading", "**iCloud**\n\n| Hosts | Ports | Protocol |\n|---|---|---|\n| a.example.com | 443 | TCP |\n", "a.example.com [443] [tcp] [] icloud"},
		{"links, code and escapes", "## iCloud\n\n| Hosts | Ports | Protocol |\n|---|---|---|\n| [`a.example.com`](https://a.example.com/) | 443 | TCP |\n| \\*.b.example.com | 443<br>80 | TCP\\/UDP |\n",
			"a.example.com [443] [tcp] [] icloud; *.b.example.com [443 80] [tcp udp] [] icloud"},
		{"an empty cell at the start, without outer bars", "## iCloud\n\nDescription | Hosts | Ports | Protocol\n---|---|---|---\n | a.example.com | 443 | TCP\n", "a.example.com [443] [tcp] [] icloud"},
		{"quotes of a spreadsheet", "iCloud\nHosts\tPorts\tProtocol\tOS\na.example.com\t\"443, 80\"\tTCP\t\"iOS, macOS\"\n", "a.example.com [443 80] [tcp] [ios macos] icloud"},
		{"columns of spaces", "iCloud\nHosts            Ports     Protocol   OS\na.example.com    443, 80   TCP, UDP   iOS, iPadOS, and macOS\n", "a.example.com [443 80] [tcp udp] [ios ipados macos] icloud"},
		{"one space", "iCloud\nHosts Ports Protocol OS Description\na.example.com 443, 80 TCP macOS only macOS updates\n", "a.example.com [443 80] [tcp] [macos] icloud"},
		{"columns in another order, without a head", "iCloud\nThings\tTCP\tYes\ta.example.com\tiOS\t443\nThings\tUDP\t\tb.example.com\t\t443\n", "a.example.com [443] [tcp] [ios] icloud yes; b.example.com [443] [udp] [] icloud"},
		{"breaks in cells", "<h2>iCloud</h2><table><tr><th>Hosts<th>Ports<th>Protocol<th>OS<tr><td>a<wbr>.example.com<td>443<br>80<td>TCP<br>UDP<td>iOS<br>macOS</table>", "a.example.com [443 80] [tcp udp] [ios macos] icloud"},
		{"a heading inside a table", "<h2>iCloud</h2><table><tr><th>Hosts<th>Ports<th>Protocol<tr><td colspan=3>Software updates<tr><td>a.example.com<td>443<td>TCP</table>", "a.example.com [443] [tcp] [] software-update"},
		{"a subheading", "<h2>Apple School Manager and Apple Business</h2><h3>Who runs it</h3><table><tr><th>Hosts<th>Ports<th>Protocol<tr><td>a.example.com<td>443<td>TCP</table>", "a.example.com [443] [tcp] [] business-school"},
		{"UTF-16", "\xff\xfe" + strings.Join(strings.Split("iCloud\na.example.com\t443\tTCP\n", ""), "\x00") + "\x00", "a.example.com [443] [tcp] [] icloud"},
		{"marks of writing direction", "iCloud\nHosts\nPorts\nProtocol\n\u200fa.example.com\u200e\n443\nTCP\n", "a.example.com [443] [tcp] [] icloud"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := read(tt.article)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range rows {
				s := fmt.Sprintf("%s %v %v %v %s", r.Host, r.Ports, r.Transports, r.Systems, r.Service)
				if r.Proxy == ProxyYes {
					s += " yes"
				}
				got = append(got, s)
			}
			if s := strings.Join(got, "; "); s != tt.want {
				t.Errorf("got  %s\nwant %s", s, tt.want)
			}
		})
	}
}
