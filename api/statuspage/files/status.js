// The public status page: it asks for status.json every few seconds, and shows it.

import { Charts, publicPlots } from "./charts.js";
import { ago, clock, date, duration, number, percent, plural, rate, short, until } from "./format.js";
import { kinds, stateRows } from "./states.js";
import { badge, bar, figure, fill, plain, text } from "./table.js";

const refreshEvery = 15000; // milliseconds

const at = (id) => document.getElementById(id);
const say = (id, value) => text(at(id), value);
const charts = new Charts(at("charts"), publicPlots);
let timer = 0;
let asking = false;

// judge writes the verdict, and gives the page its title.
function judge({ level, text: words }) {
  at("verdict").dataset.level = level;
  say("verdict", words);
  document.title = level === "good" ? "Cistern status" : `${words} - Cistern status`;
}

function tiles({ repositories: r, records, backfill: b, firehose: f }) {
  const failures = kinds.filter((kind) => r[`error_${kind}`])
    .map((kind) => `${short(r[`error_${kind}`])} ${kind}`);
  say("repos", number(r.total));
  say("repos-note", r.total ? `${percent(r.synced, r.total - r.idle)} synced` : "none yet");
  say("records", number(records));
  say("records-note", `${rate(charts.last("records"))} stored`);
  say("live", rate(charts.last("live")));
  say("live-note", f.sources ? `${number(f.connected)} of ${plural(f.sources, "source")}` : "no firehose");
  say("lag", f.connected ? duration(f.lag_seconds) : "–");
  say("lag-note", f.connected ? "of the slowest source" : "not connected");
  say("queue", number(b.waiting));
  say("queue-note", `${number(b.fetching)} being fetched`);
  say("failing", number(r.resync));
  say("failing-note", failures.length ? failures.join(", ") : "no failures");
}

const levels = { alert: "bad", failing: "warn", waiting: "warn" };

// abouts say what a problem is about.
const abouts = {
  storage: "storage of this server", hosts: "hosts of repositories", identities: "identities of accounts",
  firehose: "firehose",
  subscriptions: "deliveries to subscriptions", maintenance: "maintenance", machine: "load of this server",
  hours: "backfill waits for its hours of the day", bandwidth: "backfill waits for its share of the network",
  consumers: "backfill waits for consumers", other: "another part",
};

function problems(s) {
  fill(at("problems"), s.problems, (p) => `${p.state} ${p.name}`, [
    badge((p) => [p.state, levels[p.state]]),
    plain((p) => `${abouts[p.name] ?? p.name}${p.count > 1 ? ` (${number(p.count)})` : ""}`, "clip"),
    figure((p) => ago(p.since, s.time)),
  ], "Nothing fails, and nothing waits.");
}

function repositories({ repositories: r }) {
  const rows = stateRows.map((row) => ({ ...row, n: r[row.count] }));
  const share = bar((row) => row.n / (r.total || 1));
  fill(at("states"), rows, (row) => row.name, [
    { begin: (td, row) => {
      td.className = row.below ? "below" : "";
      td.title = row.meaning;
      td.textContent = row.name;
    }, show: () => {} },
    { ...share, show: (td, row) => {
      td.dataset.level = row.level;
      share.show(td, row);
    } },
    figure((row) => number(row.n)),
  ]);
}

function backfill({ backfill: b, time }) {
  at("backfill").max = b.total || 1;
  at("backfill").value = b.done;
  say("backfill-count", percent(b.done, b.total));
  const parts = [`${number(b.done)} of ${number(b.total)} repositories`];
  if (b.waiting) parts.push(b.ends ? `the queue is empty ${until(b.ends, time)}, ${date(b.ends)}` : `${number(b.waiting)} in the queue`);
  if (b.failing) parts.push(`${number(b.failing)} to be tried again`);
  say("backfill-note", `${parts.join("; ")}.`);
}

function sources({ firehose: f }) {
  say("sources-count", f.sources ? `${number(f.connected)} of ${number(f.sources)} connected` : "");
  const rows = f.items.map((s, i) => ({ ...s, i }));
  const level = { connected: "good", failing: "bad", connecting: "idle" };
  fill(at("sources"), rows, (s) => s.name || `${s.kind} ${s.i}`, [
    plain((s) => s.name || `a ${s.kind === "pds" ? "PDS" : "relay"} of a private network`, "clip"),
    badge((s) => [s.state, level[s.state]]),
    figure((s) => (s.state === "connected" ? duration(s.lag_seconds) : "–")),
  ], "No firehose is followed.");
}

function show(s) {
  charts.clear();
  charts.add(s.charts, new Date(s.time) / 1000);
  judge(s.verdict);
  tiles(s);
  problems(s);
  repositories(s);
  backfill(s);
  sources(s);
  text(at("about"), s.version);
  text(at("asof"), `as of ${clock(s.time)}`);
  document.body.dataset.loaded = "yes";
}

// refresh asks and shows once, unless that is under way.
async function refresh() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const answer = await fetch("status.json", { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
    show(await answer.json());
  } catch (e) {
    judge({ level: "bad", text: e instanceof TypeError ? "The server does not answer." : e.message });
  }
  asking = false;
  if (!document.hidden) timer = setTimeout(refresh, refreshEvery);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) refresh();
});
at("range").addEventListener("change", (e) => charts.show(e.target.value));
refresh();
