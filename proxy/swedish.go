package proxy

// swedish are the texts of refusals in Swedish, by the English ones.
var swedish = map[string]string{
	refuseDenied.text:    "Reglerna för det här nätverket tillåter inte webbplatsen.",
	refuseClient.text:    "Den här enhetens adress får inte använda proxyn.",
	refuseName.text:      "Målet är inte ett giltigt namn med port.",
	refuseAddress.text:   "Webbplatsens adress får inte nås genom den här proxyn.",
	refuseSignIn.text:    "Det här nätverket ber dig logga in.",
	refuseDamped.text:    "För många inloggningar har misslyckats. Försök igen om en stund.",
	refuseNoSignIn.text:  "Nätverket kan inte kontrollera lösenord just nu.",
	refuseScheme.text:    "Den här proxyn tar emot http-adresser, och allt annat med CONNECT.",
	refuseFull.text:      "Proxyn har så många öppna anslutningar som den klarar.",
	refuseNotFound.text:  "Det finns ingen webbplats med det namnet.",
	refuseLookup.text:    "Webbplatsens namn kunde inte slås upp.",
	refuseSlowDNS.text:   "Webbplatsens namn kunde inte slås upp i tid.",
	refuseSlow.text:      "Webbplatsen svarade inte i tid.",
	refuseRefused.text:   "Webbplatsen tog inte emot anslutningen.",
	refuseUnroute.text:   "Det finns ingen väg till webbplatsens adress härifrån.",
	refuseReset.text:     "Webbplatsen bröt anslutningen innan den hade svarat.",
	refuseSlowReply.text: "Webbplatsen besvarade inte begäran i tid.",
	refuseByParent.text:  "Nästa proxy tillåter inte webbplatsen.",
	refuseParent.text:    "Nästa proxy godtar inte förfrågningar från den här.",
	refuseNoParent.text:  "Nästa proxy kunde inte nås, eller gav inget giltigt svar.",
	refuseParent502.text: "Nästa proxy kunde inte nå webbplatsen.",
	refuseParent504.text: "Nästa proxy, eller webbplatsen bakom den, svarade inte i tid.",
	refuseBadReply.text:  "Webbplatsens svar är inte giltig HTTP.",
}
