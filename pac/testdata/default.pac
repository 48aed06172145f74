// Made by Espalier from its catalogue and its configuration; change those, not this.
//
// espTable says which route the ports of a host take: [port, route, ...], port 0
// for any. "=x" stands for x itself, ".x" for the names below x, "-" for names
// without a dot, "#4" and "#6" for the IPv4 and IPv6 addresses with the hexadecimal
// digits behind, "*" for everything. The most specific key that has the port decides,
// route 0 where none has.

var espRoutes = [
  "PROXY 192.0.2.1:3128",
  "DIRECT",
  "PROXY 192.0.2.1:3128; DIRECT"
];
var espTable = {};
var espLengths4 = [6, 5, 4];
var espLengths6 = [34, 14, 10, 5, 4];
espAdd([0, 1], "#40a #4644 #4645 #4646 #4647 #47f #4a9fe #4ac1 #4c0a8 #600000000000000000000000000000001 #6fc " +
  "#6fd #6fe8 #6fe9 #6fea #6feb #6fec #6fed #6fee #6fef - .local .localhost");
espAdd([0, 2], "#411 #624030300 #6262000001b00 #626200149 #62a01b740 #62a01b747 .apple .apple.com " +
  "=apple-cloudkit.com =apple-dns.net =apple-livephotoskit.com =apple-mapkit.com =apple.com " +
  "=appleschoolcontent.com =apzones.com =axm-usercontent-apple.com =cdn-apple.com " +
  "=icloud-content.com =icloud.com =icloud.com.cn =itunes.com =mzstatic.com");
espAdd([22, 2], "=upload.appleschoolcontent.com");
espAdd([80, 2], "=appldnld.apple.com.edgesuite.net =crl.entrust.net =crl3.digicert.com =crl4.digicert.com " +
  "=ocsp.digicert.cn =ocsp.digicert.com =ocsp.entrust.net =updates-http.cdn-apple.com " +
  "=ws-ee-maidsvc.icloud.com");
espAdd([443, 2], ".apple-cloudkit.com .apple-dns.net .apple-livephotoskit.com .apple-mapkit.com .apzones.com " +
  ".cdn-apple.com .icloud-content.com .icloud.com .icloud.com.cn .mzstatic.com .vertexsmb.com " +
  "=apple-relay.cloudflare.com =apple-relay.fastly-edge.com =cp4.cloudflare.com " +
  "=icons.axm-usercontent-apple.com");

var espZeros = ["-", "000", "00", "0", ""];
var espEvery = espTable["*"] ? 1 : 0;
var espHex = "0123456789abcdef";

function espAdd(rule, keys) {
  var list = keys.split(" "), i;
  for (i = 0; i < list.length; i++) {
    espTable[list[i]] = rule;
  }
}

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

function espPort(url) {
  var start = url.indexOf("://"), i = start < 0 ? 0 : start + 3;
  var c = url.indexOf(":", i), end = url.indexOf("/", i), port = -1, scheme;
  if (c >= 0 && (end < 0 || c < end)) {
    for (; i < url.length; i++) {
      c = url.charCodeAt(i);
      if (c == 47 || c == 63 || c == 35 || c == 92) {
        break;
      }
      if (c == 58) {
        port = 0;
      } else if (c < 48 || c > 57) {
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

function espV4(s) {
  var key = "#4", dots = 0, n = -1, i, c;
  for (i = 0; i <= s.length; i++) {
    c = i < s.length ? s.charCodeAt(i) : 46;
    if (c == 46) {
      if (n < 0 || n > 255) {
        return "";
      }
      key += espHex.charAt(n >> 4) + espHex.charAt(n & 15);
      n = -1;
      dots++;
    } else if (c < 48 || c > 57 || n == 0) {
      return "";
    } else {
      n = n < 0 ? c - 48 : n * 10 + c - 48;
    }
  }
  return dots == 4 ? key : "";
}

function espGroups(s) {
  var group = s.split(":"), out = "", i;
  for (i = 0; s && i < group.length; i++) {
    out += espZeros[group[i].length] + group[i];
  }
  return out;
}

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

function espPlain(host) {
  var c = host.charCodeAt(0);
  if (c > 96 && c < 123) {
    return host.indexOf(":") < 0;
  }
  return /^[\w-]+$/.test(host) && !/^(0x[\da-f]*|\d+)$/.test(host);
}

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
    host = "";
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
