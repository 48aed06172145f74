// node ask.mjs SCRIPT CALLS
import { readFileSync } from "node:fs";
import { createPacResolver } from "pac-resolver";
import { QuickJS } from "quickjs-wasi";

const [script, calls] = process.argv.slice(2).map(file => readFileSync(file, "ascii"));
const findProxy = createPacResolver(await QuickJS.create(), script);
for (const [url, host] of JSON.parse(calls)) {
  console.log(await findProxy(url, host));
}
