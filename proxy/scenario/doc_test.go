// Package scenario runs scenarios against every entry of the proxy, over real
// sockets: what a client sends, what the origin does, and what must come of it.
// A scenario is a file in testdata, one for each hazard; the runner plays it once
// on each entry, so that no entry behaves differently:
//
//	loop            the plain port; heads come in one segment
//	drip            the plain port; heads come in pieces
//	proxyprotocol   behind a load balancer's PROXY header
//	tls             the proxy is spoken to inside TLS, by HTTP/1.1
//	parent          the plain port; the origin is a parent proxy
//	intercepted     inside intercepted TLS, by HTTP/1.1
//	h2              the proxy is spoken to inside TLS, by HTTP/2
//	intercepted-h2  inside intercepted TLS, by HTTP/2
//
// Groups of entries: h1 (all by HTTP/1.1), http2, plain (not inside TLS), inside
// (intercepted TLS).
//
// # Format
//
// A file is a txtar archive. Its comment says what the hazard is in lines that
// begin with "#", and then:
//
//	fault: 3                        number in the list of faults found in the field
//	kind: tunnel                    the client uses CONNECT; default: request
//	entries: h1 !parent (reason)    entries or groups that apply; default: all
//	bounds: stall=400ms reply=1s    of the proxy; head, keep-alive, reply, stall,
//	                                half-closed, watch, idle, connect
//	setup: deny=example.com         apple, closing-parent, dead-first, dead-only, deny,
//	                                max-tunnels, max-tunnels-per-client, refuse, users
//	rounds: 8                       the scripts are played so often, for races; the
//	                                records repeat, the numbers are those of all
//
// The sections client and origin are scripts, a step in a line. A line that begins
// with white space continues the one before. "[h2]" and "[!h2]" before a step
// restrict it to entries. Strings are Go's; 100*"x" is a hundred of them. In
// strings, ${host} is the origin's authority, ${name} its name, ${url} what stands
// before the path in a request to the proxy, ${to} the same in the request that
// the origin gets.
//
// Both scripts send and receive bytes of HTTP/1.1. By HTTP/2 the client's are
// translated, and compared by what they mean: names in lower case, in any order,
// without the fields of a connection. Lines that the proxy may add are ignored: Via of
// requests, and Connection with close or keep-alive.
//
//	connect, accept     take another connection; the first is taken by itself
//	keep x, use x       go back to a connection
//	another-stream      leave the stream as it is, for one more of its connection
//	send "…"            send
//	try-send "…"        send, even if the other side has left
//	send-end "…"        send and close the sending side, in one segment
//	drip 10 100ms "…"   send ten times, with pauses
//	flood               send until the other side leaves
//	receive "…"         expect these messages, or the parts of them
//	answer 200 x="…"    expect a whole response: its status, patterns of fields, of
//	                    line, body and trailers; !x: no such field
//	request x="…"       expect a whole request
//	head …              expect a head; the body stays to be received
//	any-interims        expect any number of 1xx
//	refused             expect a 4xx, or a reset of the stream
//	half-close          close the sending side
//	close, reset        close the connection in order, or by RST (a stream's by
//	                    RST_STREAM)
//	close-all           close all connections of the origin
//	end                 expect an end in order, and nothing before it
//	closed              expect any end
//	cut                 expect an end that shows that the message is incomplete; the
//	                    code of RST_STREAM may follow
//	relay               send the request that came back to the proxy: a loop
//	signal x, await x   wait for the other script
//	pause 100ms         wait; a bounded time, longer on a slow machine
//	clock, elapsed 1s   measure; the time from clock to elapsed is at most that
//
// The section want compares what came of it:
//
//	asked 1             heads of requests that reached the origin
//	connections 1..2    connections to the origin that carried something
//	records 2           in the access log, without the CONNECT of intercepted TLS
//	record action=pass  patterns of a record's fields, one line for each record;
//	                    action pass is tunnel, forward or inspect; the error is
//	                    empty and the host the origin's unless named;
//	                    duration>=1s is a bound
//
// # Known failures
//
// testdata/red.txt lists what is known to fail, and nothing else may fail. A
// scenario that passes must be removed from it. "go test -v -args -red" prints the
// failures.
//
// The scenarios run on Linux only: they use sock_diag(7) and TCP_CORK.
package scenario
