//go:build linux

package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// corpusRequests are requests as devices, tools and browsers send them. What they
// have after the head is the body.
var corpusRequests = []string{
	// A captive portal check, software update, a revocation check, the App Store.
	"GET ${url}/hotspot-detect.html HTTP/1.0\r\nHost: ${host}\r\nConnection: close\r\nUser-Agent: CaptiveNetworkSupport-494.0.1 wispr\r\n\r\n",
	"GET ${url}/2026/mobileassets/042-11/8AD0.zip?x=%7B1%7D HTTP/1.1\r\nHost: ${host}\r\nAccept: */*\r\nRange: bytes=1048576-2097151\r\nIf-Range: \"6f-61\"\r\nAccept-Language: sv-SE,sv;q=0.9\r\nAccept-Encoding: identity\r\nUser-Agent: softwareupdated (unknown version) CFNetwork/3826.500.131 Darwin/24.5.0\r\n\r\n",
	"POST ${url}/ocsp04-devid01 HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/ocsp-request\r\nContent-Length: 9\r\nUser-Agent: com.apple.trustd/3.0\r\nAccept: */*\r\nAccept-Language: en-GB\r\nAccept-Encoding: gzip, deflate\r\n\r\n0\x82\x00\x01\x7f\xff\r\n0",
	"GET ${url}/bag.xml?deviceClass=iPhone&os=iOS&osVersion=26.1 HTTP/1.1\r\nHost: ${host}\r\nX-Apple-Store-Front: 143456-2,29\r\nX-Apple-I-MD-RINFO: 17106176\r\nuser-agent: AppStore/3.0 iOS/26.1 model/iPhone17,1 hwp/t8140 build/23B85 (6; dt:311)\r\nx-apple-client-versions: GameCenter/2.0\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n",
	"HEAD ${url}/content/catalogs/others/index-15-14-13-12.merged-1.sucatalog.gz HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: curl/8.7.1\r\nAccept: */*\r\n\r\n",
	"PUT ${url}/cache/register?port=49152 HTTP/1.1\r\nUser-Agent: AssetCache/1\r\nHost: ${host}\r\nContent-Type: application/x-plist\r\nContent-Length: 0\r\n\r\n",
	// Browsers and tools.
	"GET ${url}/ HTTP/1.1\r\nHost: ${host}\r\nUpgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: sv-SE,sv;q=0.9\r\nPriority: u=0, i\r\nCookie: a=1; b=\"2\"; c=%zz\r\nAccept-Encoding: gzip, deflate\r\n\r\n",
	"POST ${url}/a/../b//c?q=[x]&r=|^ HTTP/1.1\r\nHost: ${host}\r\nOrigin: null\r\nReferer: http://example.net/a b\r\nContent-Length: 7\r\nContent-Type: application/x-www-form-urlencoded;charset=UTF-8\r\n\r\na=1&b=2",
	"OPTIONS ${url}/api HTTP/1.1\r\nHost: ${host}\r\nAccess-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: x-b,x-a\r\nOrigin: http://example.net\r\n\r\n",
	"PROPFIND ${url}/dav/%C3%A5%20(1)/ HTTP/1.1\r\nHost: ${host}\r\nDepth: 1\r\nTranslate: f\r\nBrief:t\r\nX-Empty:\r\nX-Blank: \r\nX-Tab:\ta\tb\t\r\nContent-Length: 4\r\n\r\n<a/>",
	"DELETE ${url}/v1/~user/;p=1/@x?a=b?c=d HTTP/1.1\r\nHost: ${host}\r\nIf-Match: W/\"a,b\"\r\nIf-Match: \"c\"\r\nauthorization: Bearer x.y.z\r\nX_Under_Score: 1\r\n\r\n",
	"GET ${url}/?%00%0a=\"<>` HTTP/1.1\r\nHost: ${host}\r\nUser-Agent:\r\nVia: 1.1 earlier\r\nX-Forwarded-For: 192.0.2.1\r\nForwarded: for=\"[2001:db8::1]\"\r\nX-Latin: caf\xe9\r\n\r\n",
}

// corpusAnswers are answers as servers and caches send them.
var corpusAnswers = []string{
	"HTTP/1.1 200 OK\r\nServer: Apple\r\nDate: Sun, 29 Nov 2026 08:00:00 GMT\r\nContent-Type: text/html\r\nContent-Length: 68\r\nCache-Control: max-age=300\r\nVia: 1.1 sesto4-edge-bx-005.ts.apple.com (acdn/288.16276)\r\nX-Cache: hit-fresh\r\nCDNUUID: 0c3e\r\nEtag: \"abc\"\r\n\r\n<HTML><HEAD><TITLE>Success</TITLE></HEAD><BODY>Success</BODY></HTML>",
	"HTTP/1.1 206 Partial Content\r\nDate: Sun, 29 Nov 2026 08:00:00 GMT\r\nContent-Range: bytes 0-3/4096\r\nContent-Length: 4\r\nETag: W/\"6f-61\"\r\nx-amz-request-id: 4D\r\nx-amz-id-2: a/b+c=\r\nAccept-Ranges: bytes\r\nX-Cache: TCP_MEM_HIT from a23-62-2-1 (AkamaiGHost/22.1.4) (-)\r\n\r\nPK\x03\x04",
	"HTTP/1.1 200 \r\nContent-Type: application/ocsp-response\r\ncontent-transfer-encoding: binary\r\nContent-Length: 5\r\nLast-Modified: Sun, 29 Nov 2026 07:00:00 GMT\r\n\r\n0\x03\n\x01\x00",
	"HTTP/1.1 302 Moved Temporarily\r\nLocation: http://example.net/a b|c?d=\"e\"\r\nSet-Cookie: a=1; Path=/; HttpOnly\r\nset-cookie: b=2; Expires=Thu, 01-Jan-1970 00:00:10 GMT\r\nSet-Cookie: c=3\r\nP3P: CP=\"This is not a policy\"\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nDate: Sun, 29 Nov 2026 08:00:00 GMT\r\nETag: \"x\"\r\nContent-Length: 4711\r\nVary: Accept-Encoding\r\nVary: *\r\n\r\n",
	"HTTP/1.1 204 No Content\r\nX-Powered-By: ASP.NET\r\nMS-Author-Via: DAV\r\nDAV: 1, 2, <x>\r\n\r\n",
	"HTTP/1.1 404 N\xe5 hittas inte\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Length: 3\r\nX-Odd:  two  spaces  \r\nX-Empty:\r\n\r\n404",
	"HTTP/1.1 599 Custom, with: punctuation; (x)\r\ncontent-length: 2\r\nAge: 0\r\nWarning: 110 - \"stale\"\r\n\r\nno",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\nAlt-Svc: h3=\":443\"; ma=86400\r\nStrict-Transport-Security: max-age=31536000\r\n\r\n5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\n\r\n",
	"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a, b\", Digest nonce=\"c==\"\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n",
}

// token are the characters of field names (RFC 9110, 5.6.2).
const token = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// drawFields draws header lines that concern no single connection and do not
// frame the message.
func drawFields(t *rapid.T) string {
	name := rapid.StringOfN(rapid.RuneFrom([]rune(token)), 1, 20, -1)
	value := rapid.StringOfN(rapid.RuneFrom([]rune("\t !\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~")), 0, 40, -1)
	var b strings.Builder
	for i := range rapid.IntRange(0, 12).Draw(t, "fields") {
		n := rapid.SampledFrom([]string{"X-", "x-", "X_", "q"}).Draw(t, fmt.Sprint("prefix", i)) + name.Draw(t, fmt.Sprint("name", i))
		b.WriteString(n + ":" + strings.ReplaceAll(value.Draw(t, fmt.Sprint("value", i)), "${", "$") + "\r\n")
	}
	return b.String()
}

var drawnRequest = rapid.Custom(func(t *rapid.T) string {
	method := rapid.SampledFrom([]string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "REPORT", "M-SEARCH", "X"}).Draw(t, "method")
	path := rapid.StringOfN(rapid.RuneFrom([]rune("!\"$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~")), 0, 30, -1).Draw(t, "path")
	h := method + " ${url}/" + strings.ReplaceAll(path, "${", "$") + " HTTP/1.1\r\nHost: ${host}\r\n" + drawFields(t)
	if method == "GET" || method == "HEAD" || method == "DELETE" {
		return h + "\r\n"
	}
	body := string(rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "body"))
	return h + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n" + drawFields(t) + "\r\n" + strings.ReplaceAll(body, "${", "$.")
})

var drawnAnswer = rapid.Custom(func(t *rapid.T) string {
	status := rapid.SampledFrom([]int{200, 201, 203, 226, 299, 301, 400, 403, 418, 500, 503, 599}).Draw(t, "status")
	reason := rapid.StringOfN(rapid.RuneFrom([]rune("\t !\"#%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~")), 0, 30, -1).Draw(t, "reason")
	body := strings.ReplaceAll(string(rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "body")), "${", "$.")
	return fmt.Sprintf("HTTP/1.1 %d %s\r\n%sContent-Length: %d\r\n%s\r\n%s", status, reason, drawFields(t), len(body), drawFields(t), body)
})

// TestBytes shows that what leaves the proxy by HTTP/1 equals what came: heads and
// bodies byte for byte, but for the fields of one connection.
func TestBytes(t *testing.T) {
	var list []*scenario
	for i, request := range corpusRequests {
		s := &scenario{name: fmt.Sprintf("%scorpus-%d", madePrefix, i), only: "h1"}
		for _, answer := range corpusAnswers {
			s.pair(request, answer)
		}
		list = append(list, s)
	}
	drawn := &scenario{name: madePrefix + "drawn", only: "h1"}
	for i := range 100 {
		drawn.pair(drawnRequest.Example(2*i), drawnAnswer.Example(2*i+1))
	}
	playAll(t, append(list, drawn), madePrefix)
}

// pair adds a request and its answer, which pass unchanged.
func (s *scenario) pair(request, answer string) {
	h, body, _ := strings.Cut(request, "\r\n\r\n")
	sent := strings.Replace(h, "${url}", "${to}", 1) + "\r\n\r\n" + body
	if strings.HasPrefix(request, "HEAD") {
		h, _, _ := strings.Cut(answer, "\r\n\r\n")
		answer = h + "\r\n\r\n"
	}
	closes := strings.Contains(h, " HTTP/1.0\r\n")
	if closes && strings.Contains(answer, "chunked") {
		return // HTTP/1.0 has no chunks
	}
	line := len(s.client) + 1
	add := func(list *[]step, verb, text string) { *list = append(*list, step{line: line, verb: verb, text: text}) }
	if closes {
		// The version and what concerns the connection change; the rest does not.
		sent = strings.Replace(strings.Replace(sent, " HTTP/1.0\r\n", " HTTP/1.1\r\n", 1), "Connection: close\r\n", "", 1)
		add(&s.client, "connect", "")
	}
	method, _, _ := strings.Cut(request, " ")
	again := body == "" && slices.Contains([]string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}, method)
	if !again && len(s.origin) > 0 { // it has a connection of its own
		add(&s.origin, "accept", "")
	}
	add(&s.client, "send", request)
	add(&s.origin, "receive", sent)
	add(&s.origin, "send", answer)
	add(&s.client, "receive", answer)
	if closes {
		add(&s.client, "end", "")
	}
}
