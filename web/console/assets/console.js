"use strict";
// What the pages gain by a script. Without it all can be read, and all forms work.

const lang = document.documentElement.lang;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const seriesColour = (n) => colour(n ? "--series-" + n : "--stone");

function number(v, digits) {
  return v.toLocaleString(lang, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// size writes bytes as the server does.
function size(n) {
  if (n < 1000) return number(n, 0) + " B";
  const units = ["kB", "MB", "GB", "TB", "PB", "EB"];
  let i = -1;
  while (n >= 999.5 && i < units.length - 1) { n /= 1000; i++; }
  return number(n, n < 9.995 ? 2 : n < 99.95 ? 1 : 0) + " " + units[i];
}

// Axes are labelled with round values, which need no zeros behind the comma.
function tick(unit, v) {
  if (unit === "count") return v.toLocaleString(lang);
  const per = unit === "rate" ? "/s" : "";
  for (const [name, one] of [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (v >= one) return (v / one).toLocaleString(lang, { maximumFractionDigits: 2 }) + " " + name + per;
  }
  return v.toLocaleString(lang) + " B" + per;
}

// Times are the server's, as in all texts, wherever the browser is. wall has those
// as its local time.
const offset = Number(document.documentElement.dataset.offset);
function wall(seconds) {
  return new Date((seconds + offset + 60 * new Date(seconds * 1000).getTimezoneOffset()) * 1000);
}

const two = (n) => String(n).padStart(2, "0");
function moment(seconds, span) {
  const t = wall(seconds);
  const clock = two(t.getHours()) + ":" + two(t.getMinutes());
  if (span <= 600) return clock + ":" + two(t.getSeconds());
  if (span <= 2 * 86400) return clock;
  return t.toLocaleDateString(lang, { day: "numeric", month: "short" });
}

// full writes a time as the server does, without what a step leaves out.
function full(seconds, span) {
  const t = wall(seconds);
  const clock = two(t.getHours()) + ":" + two(t.getMinutes());
  if (span <= 600) return clock + ":" + two(t.getSeconds());
  return t.getFullYear() + "-" + two(t.getMonth() + 1) + "-" + two(t.getDate()) + " " + clock;
}

// plot draws series over time into a place. Stacked ones stand on each other, the
// first at the bottom. last is how many seconds it shows, in place of all; whole
// says what the values beside the names are while none is pointed at.
function plot(place, { times, series, unit, stacked, height, last, whole }) {
  place.replaceChildren();
  const values = series.map((s) => s.values);
  let drawn = values;
  const bands = [];
  if (stacked) {
    const sum = new Array(times.length).fill(0);
    drawn = values.map((list) => list.map((v, i) => (sum[i] += v)));
    for (let i = series.length - 1; i > 0; i--) bands.push({ series: [i + 1, i] });
  }
  const span = last || (times.length > 1 ? times[times.length - 1] - times[0] : 0);
  const axis = {
    stroke: colour("--soft"), font: "12px system-ui, sans-serif",
    grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false },
  };
  const legend = document.createElement("ul");
  legend.className = "legend";
  // show writes the values of a moment, or else of the whole: a sum, or what is now.
  const show = (at) => {
    const head = document.createElement("li");
    head.className = "when";
    head.textContent = at == null ? whole : full(times[at], span);
    legend.replaceChildren(head, ...series.map((s, i) => {
      const li = document.createElement("li");
      const mark = document.createElement("i");
      mark.style.background = s.colour;
      const b = document.createElement("b");
      const list = values[i];
      const v = at != null ? list[at] : unit === "rate" ? list[list.length - 1] : list.reduce((a, b) => a + b, 0);
      b.textContent = (unit === "count" ? number(v, 0) : size(v)) + (unit === "rate" ? "/s" : "");
      li.append(mark, s.name, b);
      return li;
    }));
  };
  show(null);
  const chart = new uPlot({
    width: place.clientWidth, height: height || 240, legend: { show: false }, bands, tzDate: wall,
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: {
      x: last ? { range: (u, min, max) => [max - last, max] } : {},
      y: { range: (u, min, max) => [0, Math.max(max * 1.08, unit === "count" ? 1 : 1000)] },
    },
    axes: [
      { ...axis, space: 64, size: 32, values: (u, list) => list.map((v) => moment(v, span)) },
      { ...axis, size: 68, values: (u, list) => list.map((v) => tick(unit, v)) },
    ],
    series: [{}, ...series.map((s) => ({
      label: s.name, stroke: s.colour, width: stacked ? 1 : 2, points: { show: false },
      fill: stacked ? s.colour + "d0" : s.colour + "22",
    }))],
    hooks: { setCursor: [(u) => show(u.cursor.idx)], setData: [(u) => show(u.cursor.idx)] },
  }, [times, ...drawn], place);
  place.append(legend);
  return chart;
}

// charts draws the figures from the tables that they hold.
let drawnCharts = [];
function charts() {
  drawnCharts = [];
  for (const figure of document.querySelectorAll("figure.chart")) {
    const times = [...figure.querySelectorAll("tbody time")].map((e) => Number(e.dataset.at));
    const heads = [...figure.querySelectorAll("thead [data-colour]")];
    const rows = [...figure.querySelectorAll("tbody tr")].map((tr) => [...tr.querySelectorAll("[data-v]")].map((td) => Number(td.dataset.v)));
    const series = heads.map((th, i) => ({ name: th.textContent, colour: seriesColour(Number(th.dataset.colour)), values: rows.map((r) => r[i]) }));
    const place = figure.querySelector(".plot");
    drawnCharts.push([place, plot(place, { times, series, unit: figure.dataset.unit, stacked: "stacked" in figure.dataset, whole: figure.dataset.total })]);
  }
}

let liveChart = null;
addEventListener("resize", () => {
  for (const [place, chart] of [...drawnCharts, ...(liveChart ? [liveChart] : [])]) {
    chart.setSize({ width: place.clientWidth, height: chart.height });
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", charts);

// live shows on the overview what flows now.
function live() {
  const card = document.querySelector(".card.live");
  if (!card) return;
  const seconds = 120;
  const times = [], down = [], up = [];
  const put = (name, text) => {
    const e = document.querySelector('.figures [data-live="' + name + '"]');
    e.hidden = false;
    e.textContent = text;
  };
  const events = new EventSource("/api/v1/events");
  addEventListener("pagehide", () => events.close());
  events.addEventListener("traffic", (e) => {
    const t = JSON.parse(e.data);
    let d = 0, u = 0, requests = 0;
    const rows = new Map([...document.querySelectorAll("tr[data-service]")].map((row) => [row.dataset.service, row]));
    for (const row of rows.values()) {
      row.querySelector("[data-live=rate]").textContent = "";
      row.querySelector("[data-live=open]").textContent = "0";
    }
    for (const s of t.services) {
      d += s.down; u += s.up; requests += s.requests;
      const row = rows.get(s.service);
      if (!row) continue;
      row.querySelector("[data-live=open]").textContent = number(s.tunnels, 0);
      if (s.up + s.down > 0) row.querySelector("[data-live=rate]").textContent = " · " + size((s.up + s.down) / t.seconds) + "/s";
    }
    d /= t.seconds; u /= t.seconds;
    put("down", size(d) + "/s " + card.dataset.now);
    put("up", size(u) + "/s " + card.dataset.now);
    put("requests", number(requests / t.seconds, 1) + "/s " + card.dataset.now);
    put("tunnels", number(t.tunnels, 0));
    times.push(Date.parse(t.time) / 1000); down.push(d); up.push(u);
    for (const list of [times, down, up]) if (list.length > seconds + 1) list.shift();
    if (times.length < 2) return;
    card.hidden = false;
    const place = card.querySelector(".plot");
    if (liveChart) {
      liveChart[1].setData([times, down, up]);
    } else {
      liveChart = [place, plot(place, {
        times, unit: "rate", height: 150, last: seconds, whole: card.dataset.now,
        series: [{ name: card.dataset.down, colour: seriesColour(1), values: down }, { name: card.dataset.up, colour: seriesColour(2), values: up }],
      })];
    }
  });
}

// follow reads the first page of the access log again when records come.
let following = null;
function follow() {
  const results = document.getElementById("results");
  const button = results && results.querySelector("button.follow");
  if (!button) return;
  const wanted = results.dataset.events;
  button.hidden = !wanted;
  if (following && following.url !== new URL(wanted || "/", location).href) stop();
  button.setAttribute("aria-pressed", String(!!following));
  button.onclick = () => {
    if (following) { stop(); button.setAttribute("aria-pressed", "false"); return; }
    following = new EventSource(wanted);
    button.setAttribute("aria-pressed", "true");
    following.addEventListener("records", () => {
      htmx.ajax("GET", location.pathname + location.search, { target: "#results", select: "#results", swap: "outerHTML" });
    });
  };
  const copy = results.querySelector("button.copylink");
  copy.hidden = !navigator.clipboard;
  copy.onclick = async () => {
    await navigator.clipboard.writeText(location.href);
    copy.textContent = copy.dataset.done;
  };
}
function stop() { following.close(); following = null; }
addEventListener("pagehide", () => { if (following) stop(); });

// Empty fields are left out of links to share.
document.addEventListener("htmx:configRequest", (e) => {
  for (const [key, value] of [...e.detail.formData.entries()]) if (value === "") e.detail.formData.delete(key);
});
for (const form of document.querySelectorAll("form.filter[method=get]")) {
  form.addEventListener("formdata", (e) => {
    for (const [key, value] of [...e.formData.entries()]) if (value === "") e.formData.delete(key);
  });
}
document.addEventListener("htmx:afterSettle", follow);
const here = document.querySelector("nav [aria-current=page]");
if (here) here.scrollIntoView({ block: "nearest", inline: "center" });
charts();
live();
follow();
