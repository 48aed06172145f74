// Made by Espalier from its catalogue and its configuration; change those, not this.
//
// espTable says which route the ports of a host take: [port, route, ...], port 0
// for any. "=x" stands for x itself, ".x" for the names below x, "#4" and "#6" for
// the IPv4 and IPv6 addresses with the hexadecimal digits behind. The most specific
// key that has the port decides, route 0 where none has.

var espRoutes = [
  "PROXY 192.0.2.1:3128",
  "PROXY 192.0.2.1:3128; DIRECT",
  "DIRECT"
];
var espTable = {};
var espLengths = [14, 10, 4];
espAdd([0, 1], "#411 #624030300 #6262000001b00 #626200149 #62a01b740 #62a01b747 .apple .apple.com " +
  "=apple-cloudkit.com =apple-dns.net =apple-livephotoskit.com =apple-mapkit.com =apple.com " +
  "=appleschoolcontent.com =apzones.com =axm-usercontent-apple.com =cdn-apple.com " +
  "=icloud-content.com =icloud.com =icloud.com.cn =itunes.com =mzstatic.com");
espAdd([22, 1], "=upload.appleschoolcontent.com");
espAdd([80, 1], "=appldnld.apple.com.edgesuite.net =crl.entrust.net =crl3.digicert.com =crl4.digicert.com " +
  "=ocsp.digicert.cn =ocsp.digicert.com =ocsp.entrust.net =updates-http.cdn-apple.com " +
  "=ws-ee-maidsvc.icloud.com");
espAdd([443, 1], ".apple-cloudkit.com .apple-dns.net .apple-livephotoskit.com .apple-mapkit.com .apzones.com " +
  ".cdn-apple.com .icloud-content.com .icloud.com .icloud.com.cn .mzstatic.com .vertexsmb.com " +
  "=apple-relay.cloudflare.com =apple-relay.fastly-edge.com =cp4.cloudflare.com " +
  "=icons.axm-usercontent-apple.com");

function espAdd(rule, keys) {
  var list = keys.split(" "), i;
  for (i = 0; i < list.length; i++) {
    espTable[list[i]] = rule;
  }
}

// The route of a port by the table's rule for key, -1 where it has none.
function espRule(key, port) {
  var rule = espTable[key], i;
  for (i = 0; rule && i < rule.length; i += 2) {
    if (rule[i] == port || rule[i] == 0) {
      return rule[i + 1];
    }
  }
  return -1;
}

// The port of a URL. What stands before an "@" plays no part.
function espPort(url) {
  var start = url.indexOf("://"), scheme = url.substring(0, start).toLowerCase(), port = -1, i, c;
  for (i = start < 0 ? 0 : start + 3; i < url.length; i++) {
    c = url.charCodeAt(i);
    if (c == 47 || c == 63 || c == 35 || c == 92) { // the authority ends at / ? # or \
      break;
    }
    if (c == 58) { // a colon
      port = 0;
    } else if (c < 48 || c > 57) { // no digit; ] and @ among them
      port = -1;
    } else if (port >= 0) {
      port = port * 10 + c - 48;
    }
  }
  if (port > 0) {
    return port;
  }
  return scheme == "http" || scheme == "ws" ? 80 : scheme == "ftp" ? 21 : 443;
}

// The key of an IPv4 address, "" where s is none.
function espV4(s) {
  var part = s.split("."), key = "#4", i, n;
  for (i = 0; i < 4; i++) {
    n = part[i] >>> 0;
    if (part.length != 4 || n > 255 || String(n) != part[i]) {
      return "";
    }
    key += (n < 16 ? "0" : "") + n.toString(16);
  }
  return key;
}

// Part of an IPv6 address with every group written out.
function espGroups(s) {
  var group = s.split(":"), out = "", i;
  for (i = 0; s && i < group.length; i++) {
    out += group[i] && group[i].length < 5 ? "0000".substring(group[i].length) + group[i] : "-";
  }
  return out;
}

// The key of an address, "" where s is none. An IPv4-mapped one counts as IPv4.
function espAddress(s) {
  var i = s.lastIndexOf(":"), c = s.charCodeAt(s.length - 1), half, head, tail, zeros;
  if (i < 0) {
    return c >= 48 && c <= 57 ? espV4(s) : "";
  }
  if (s.indexOf(".") >= 0) {
    tail = espV4(s.substring(i + 1));
    s = s.substring(0, i + 1) + tail.substring(2, 6) + ":" + tail.substring(6);
  }
  half = s.split("::");
  head = espGroups(half[0]);
  if (half.length == 2) {
    tail = espGroups(half[1]);
    zeros = 32 - head.length - tail.length;
    head += zeros < 4 ? "-" : "0000000000000000000000000000".substring(0, zeros) + tail;
  }
  if (half.length > 2 || !/^[0-9a-f]{32}$/.test(head)) {
    return "";
  }
  return head.indexOf("00000000000000000000ffff") == 0 ? "#4" + head.substring(24) : "#6" + head;
}

function FindProxyForURL(url, host) {
  var port = espPort(url), route = -1, i, key;
  host = host.toLowerCase();
  if (host.charAt(0) == "[") {
    host = host.substring(1, host.indexOf("]"));
  } else if (host.charAt(host.length - 1) == ".") {
    host = host.substring(0, host.length - 1);
  }
  key = espAddress(host);
  if (key) {
    for (i = 0; route < 0 && i < espLengths.length; i++) {
      route = espRule(key.substring(0, espLengths[i]), port);
    }
  } else {
    route = espRule("=" + host, port);
    for (i = host.indexOf("."); route < 0 && i >= 0; i = host.indexOf(".", i + 1)) {
      route = espRule(host.substring(i), port);
    }
  }
  return espRoutes[route < 0 ? 0 : route];
}
