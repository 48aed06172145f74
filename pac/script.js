
var espZeros = ["-", "000", "00", "0", ""];
var espEvery = espTable["*"] ? 1 : 0;
var espHex = "0123456789abcdef";

function espAdd(rule, keys) {
  var list = keys.split(" "), i;
  for (i = 0; i < list.length; i++) {
    espTable[list[i]] = rule;
  }
}

// The route of a port by the table's rule for key, -1 where it has none.
function espRule(key, port) {
  var rule = espTable[key], i;
  if (rule) {
    for (i = 0; i < rule.length; i += 2) {
      if (rule[i] == port || rule[i] == 0) {
        return rule[i + 1];
      }
    }
  }
  return -1;
}

// The port of a URL. What stands before an "@" plays no part.
function espPort(url) {
  var start = url.indexOf("://"), i = start < 0 ? 0 : start + 3;
  var c = url.indexOf(":", i), end = url.indexOf("/", i), port = -1, scheme;
  if (c >= 0 && (end < 0 || c < end)) { // otherwise the authority has no colon
    for (; i < url.length; i++) {
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
  }
  scheme = url.substring(0, start);
  if (scheme == "https") {
    return 443;
  }
  scheme = scheme.toLowerCase();
  return scheme == "http" || scheme == "ws" ? 80 : scheme == "ftp" ? 21 : 443;
}

// The key of an IPv4 address, "" where s is none.
function espV4(s) {
  var key = "#4", dots = 0, n = -1, i, c;
  for (i = 0; i <= s.length; i++) {
    c = i < s.length ? s.charCodeAt(i) : 46;
    if (c == 46) { // a dot
      if (n < 0 || n > 255) {
        return "";
      }
      key += espHex.charAt(n >> 4) + espHex.charAt(n & 15);
      n = -1;
      dots++;
    } else if (c < 48 || c > 57 || n == 0) { // no digit, or one behind a 0
      return "";
    } else {
      n = n < 0 ? c - 48 : n * 10 + c - 48;
    }
  }
  return dots == 4 ? key : "";
}

// Part of an IPv6 address with every group written out.
function espGroups(s) {
  var group = s.split(":"), out = "", i;
  for (i = 0; s && i < group.length; i++) {
    out += espZeros[group[i].length] + group[i];
  }
  return out;
}

// The key of an address, "" where s is none. An IPv4-mapped one counts as IPv4, and
// a zone plays no part.
function espAddress(s) {
  var i = s.lastIndexOf(":"), c = s.charCodeAt(s.length - 1), head, tail, zeros;
  if (i < 0) {
    return c >= 48 && c <= 57 ? espV4(s) : "";
  }
  if (s.indexOf("%") > 0) {
    s = s.substring(0, s.indexOf("%"));
  }
  if (s.indexOf(".") >= 0) {
    tail = espV4(s.substring(i + 1));
    s = s.substring(0, i + 1) + tail.substring(2, 6) + ":" + tail.substring(6);
  }
  i = s.indexOf("::");
  head = espGroups(i < 0 ? s : s.substring(0, i));
  if (i >= 0) {
    tail = espGroups(s.substring(i + 2));
    zeros = 32 - head.length - tail.length;
    head += zeros < 4 ? "-" : "0000000000000000000000000000".substring(0, zeros) + tail;
  }
  if (!/^[0-9a-f]{32}$/.test(head)) {
    return "";
  }
  return head.substring(0, 24) == "00000000000000000000ffff" ? "#4" + head.substring(24) : "#6" + head;
}

// Whether a host without a dot is a name. A number is none: some systems take it for
// an address.
function espPlain(host) {
  var c = host.charCodeAt(0);
  if (c > 96 && c < 123) { // a letter
    return host.indexOf(":") < 0;
  }
  return /^[\w-]+$/.test(host) && !/^(0x[\da-f]*|\d+)$/.test(host);
}

// The route of a name.
function espName(host, port) {
  var route = espRule("=" + host, port), i = host.indexOf(".");
  if (i < 0 && route < 0 && espPlain(host)) {
    return espRule("-", port);
  }
  for (; route < 0 && i >= 0; i = host.indexOf(".", i + 1)) {
    route = espRule(host.substring(i), port);
  }
  return route;
}

function FindProxyForURL(url, host) {
  var port = espPort(url), route = -1, i, key, lengths;
  if (host.length > 255) {
    host = ""; // no name is longer
  }
  host = host.toLowerCase();
  if (host.charAt(0) == "[") {
    host = host.substring(1, host.indexOf("]"));
  } else if (host.charAt(host.length - 1) == ".") {
    host = host.substring(0, host.length - 1);
  }
  key = espAddress(host);
  if (key) {
    lengths = key.charAt(1) == "4" ? espLengths4 : espLengths6;
    for (i = 0; route < 0 && i < lengths.length; i++) {
      route = espRule(key.substring(0, lengths[i]), port);
    }
  } else {
    route = espName(host, port);
  }
  if (route < 0 && espEvery) {
    route = espRule("*", port);
  }
  return espRoutes[route < 0 ? 0 : route];
}
