package page

import (
	"bytes"
	_ "embed"
	"html/template"
	"strings"
)

// A Welcome tells people who open the address of the proxy in a browser what it is,
// and how a device is set up by hand. Fields but Language may be empty, and are left
// out then.
type Welcome struct {
	Language     string // as Language returns
	Organization string
	PACURL       string
	// Fingerprint is that of the certificate that devices must trust, SHA-256 in
	// hexadecimal octets with colons, and CAName its name. The page links to /ca.mobileconfig and
	// /ca.crt.
	Fingerprint, CAName string
	Contact             string // whom to ask, in the administrator's words
}

type welcomeWords struct {
	Title, Intro, PAC, CA, CAWhy, Profile, File, Name, Help string
	PACSteps, CASteps                                       []string
}

var welcomes = map[string]welcomeWords{
	"en": {
		Title: "Web proxy",
		Intro: "Devices on this network send their web traffic through this proxy. If your organization manages your device, it is already set up.",
		PAC:   "Set up by hand",
		PACSteps: []string{
			"Open Settings › Wi-Fi and tap the info button of your network.",
			"Tap Configure Proxy, then Automatic.",
			"Enter this URL and tap Save:",
		},
		CA:    "Certificate",
		CAWhy: "This network can inspect encrypted connections, except those of Apple services. Your device must trust this certificate for that. Install it only if your organization asks you to.",
		CASteps: []string{
			"Download the profile in Safari and tap Allow.",
			"Open Settings › General › VPN & Device Management, select the profile and install it. The fingerprint below must be the one that your organization gives you.",
			"Open Settings › General › About › Certificate Trust Settings and turn on the certificate.",
		},
		Profile: "Download profile", File: "Certificate file for other systems", Name: "Name", Help: "Help",
	},
	"sv": {
		Title: "Webbproxy",
		Intro: "Enheter i det här nätverket skickar sin webbtrafik genom den här proxyn. Om din organisation hanterar enheten är den redan inställd.",
		PAC:   "Ställ in för hand",
		PACSteps: []string{
			"Öppna Inställningar › Wi-Fi och tryck på infoknappen för ditt nätverk.",
			"Tryck på Konfigurera proxy och sedan på Automatisk.",
			"Ange den här adressen och tryck på Spara:",
		},
		CA:    "Certifikat",
		CAWhy: "Det här nätverket kan inspektera krypterade anslutningar, utom dem till Apples tjänster. Då måste enheten lita på det här certifikatet. Installera det bara om din organisation ber om det.",
		CASteps: []string{
			"Hämta profilen i Safari och tryck på Tillåt.",
			"Öppna Inställningar › Allmänt › VPN och enhetshantering, välj profilen och installera den. Fingeravtrycket nedan ska vara det som din organisation har uppgett.",
			"Öppna Inställningar › Allmänt › Om, gå till inställningarna för betrodda certifikat och slå på certifikatet.",
		},
		Profile: "Hämta profilen", File: "Certifikatfil för andra system", Name: "Namn", Help: "Hjälp",
	},
}

//go:embed welcome.html
var welcomeDocument string

var parsedWelcome = template.Must(template.New("welcome").Parse(welcomeDocument))

// HTML renders the page, for a header by SetHeader.
func (p Welcome) HTML() []byte {
	var b bytes.Buffer
	// A bytes.Buffer takes everything, and the template has no call that fails.
	_ = parsedWelcome.Execute(&b, struct {
		Welcome
		Words  welcomeWords
		Octets []string // of the fingerprint, between which lines may break
		Style  template.CSS
	}{p, welcomes[p.Language], strings.Split(p.Fingerprint, ":"), template.CSS(style)})
	return b.Bytes()
}
