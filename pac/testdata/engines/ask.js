// jsc ask.js -- SCRIPT CALLS
load(arguments[0]);
for (const [url, host] of JSON.parse(readFile(arguments[1]))) {
  print(FindProxyForURL(url, host));
}
