// The panels: each function shows its part of a refresh.

import { ago, between, bytes, date, duration, number, percent, plural, rate, short, until } from "./format.js";
import { kinds, stateRows } from "./states.js";
import { badge, bar, figure, fill, make, plain, text } from "./table.js";

const at = (id) => document.getElementById(id);
const say = (id, value) => text(at(id), value);

// gauges are counts of repositories beside their states.
const gauges = [
  ["syncing", "being fetched"], ["behind", "known to have a later rev"],
  ["lacking", "do not agree with the filter yet"], ["returning", "hidden for a while"],
];

// verdict shows the verdict of the daemon, and the sentences that explain it.
export function verdict({ verdict: v }) {
  show(v.level, v.text);
  const row = (kind, level) => (says, i) => ({ says, kind, level, key: `${kind} ${i}` });
  fill(at("attention"), [...v.problems.map(row("problem", "bad")), ...v.notes.map(row("note", "warn"))], (s) => s.key, [
    badge((s) => [s.kind, s.level]),
    plain((s) => s.says, "clip"),
  ], "All is well.");
}

// show writes the verdict, and gives the page its title.
export function show(level, words) {
  const e = at("verdict");
  e.dataset.level = level;
  text(e, words);
  document.title = level === "good" ? "Cistern" : `${words} - Cistern`;
}

export function tiles(o, last) {
  const { counts, log, firehose } = o.stats;
  const failures = kinds.filter((kind) => counts[`error_${kind}`])
    .map((kind) => `${short(counts[`error_${kind}`])} ${kind}`);
  say("repos", number(counts.repos));
  say("repos-note", counts.repos ? `${percent(counts.synced, counts.repos - counts.idle)} synced` : "none yet");
  say("records", number(counts.records));
  say("records-note", `${rate(last("records"))} stored`);
  say("live", rate(last("live")));
  say("live-note", firehose?.sources
    ? `${number(firehose.running)} of ${plural(firehose.sources, "source")}` : "no firehose");
  say("lag", firehose?.running ? duration(firehose.lag_seconds) : "–");
  say("lag-note", firehose?.running ? "of the slowest source" : "not connected");
  say("queue", number(counts.pending));
  say("queue-note", `${number(counts.syncing)} being fetched`);
  say("failing", number(counts.resync));
  say("failing-note", failures.length ? failures.join(", ") : "no failures");
  say("events", number(Math.max(0, log.head + 1 - Math.max(1, log.tail))));
  say("events-note", `newest ${number(log.head)}, ${rate(last("events"))}`);
  say("free", o.disk ? bytes(o.disk.free) : "–");
  say("free-note", o.disk ? forecastShort(o) : "unknown");
}

function forecastShort({ disk, time }) {
  if (disk.free <= disk.reserve) return "below the reserve";
  if (disk.short) return `short ${until(disk.short, time)}`;
  return disk.per_day == null ? `of ${bytes(disk.total)}` : "no shortage in sight";
}

function forecast({ disk, time }) {
  if (!disk) return "The disk cannot be read.";
  const reserve = disk.reserve ? `the reserve of ${bytes(disk.reserve)}` : "the end of the disk";
  const free = `${bytes(disk.free)} of ${bytes(disk.total)} free`;
  if (disk.free <= disk.reserve) return `${free}: below ${reserve}.`;
  if (disk.per_day == null) return `${free}. A forecast needs a few minutes of figures.`;
  const trend = `${disk.per_day < 0 ? "−" : "+"}${bytes(Math.abs(disk.per_day))} free a day`;
  return disk.short ? `${free}, ${trend}: ${reserve} is reached ${until(disk.short, time)}, ${date(disk.short)}.`
    : `${free}, ${trend}: no shortage in sight.`;
}

export function alerts(o) {
  say("alerts-count", o.alerts.total ? `${number(o.alerting)} alerting, ${number(o.alerts.total - o.alerting)} in grace` : "");
  fill(at("alerts"), o.alerts.items, (a) => `${a.kind} ${a.subject}`, [
    badge((a) => [a.state, a.state === "alert" ? "bad" : "warn"]),
    plain((a) => `${a.kind} ${a.subject}`, "clip"),
    figure((a) => ago(a.since, o.time)),
    figure((a) => number(a.attempts)),
    plain((a) => a.error, "clip long"),
  ], "Nothing fails.");
}

export function conditions(o) {
  const pauses = Object.entries(o.stats.paused ?? {}).sort().map(([part, reasons]) => (
    { name: part, state: "paused", reason: reasons.join("; ") }));
  const waits = o.conditions.map((c) => (
    { ...c, reason: [c.error || c.reason, c.subject].filter(Boolean).join(" at ") }));
  fill(at("conditions"), [...pauses, ...waits], (c) => c.name, [
    plain((c) => c.name),
    badge((c) => [c.state, c.state === "ok" ? "good" : "warn"]),
    plain((c) => c.reason, "clip long"),
  ], "No conditions, and nothing is paused.");
}

// repositories shows the counts by state. choose is called with the query of a chosen row.
export function repositories(o, choose) {
  const { counts } = o.stats;
  const rows = [
    ...stateRows.map((row) => ({ ...row, n: counts[row.count] })),
    ...gauges.map(([gauge, meaning]) => ({ name: gauge, level: "idle", meaning, n: counts[gauge], beside: true })),
  ];
  fill(at("states"), rows, (r) => r.name, [
    {
      begin: (td, r) => {
        td.className = r.below ? "below" : r.beside ? "beside" : "";
        if (!r.query) {
          td.append(make("span", "gauge", r.name));
        } else {
          const button = make("button", "plain", r.name);
          button.addEventListener("click", () => choose(r.query, r.name));
          td.append(button);
        }
        td.firstChild.title = r.meaning;
        td.firstChild.dataset.count = r.query ? r.query.split("=")[1] : r.name;
      },
      show: () => {},
    },
    { ...bar((r) => r.n / (counts.repos || 1)),
      show: (td, r) => {
        td.dataset.level = r.level;
        bar((x) => x.n / (counts.repos || 1)).show(td, r);
      } },
    figure((r) => number(r.n)),
  ]);
}

export function sources(o) {
  const f = o.stats.firehose;
  say("sources-count", f ? `${number(f.running)} of ${number(f.sources)} connected` : "");
  fill(at("sources"), o.sources.items, (s) => s.url, [
    plain((s) => s.url.replace(/^wss?:\/\//, ""), "clip"),
    badge((s) => (s.running ? ["connected", "good"] : s.failing ? ["failing", "bad"] : ["connecting", "idle"])),
    figure((s) => (s.running ? duration(s.stats.lag_seconds) : "–")),
    figure((s) => short(s.stats.events)),
    plain((s) => (s.last_failure
      ? `${s.last_failure.kind}: ${s.last_failure.detail} (${ago(s.last_failure.at, o.time)}${s.running ? "" : `, ${number(s.consecutive_failures)} in a row`})`
      : ""), "clip long"),
  ], "No firehose is followed.");
}

const hostLevels = { ok: "good", parked: "warn", failing: "bad", banned: "idle" };

function limitsOf({ limits: l }) {
  const parts = [`${l.concurrency} at a time`];
  for (const [name, unit] of [["per_second", "s"], ["per_hour", "h"], ["per_day", "d"]]) {
    if (l[name]) parts.push(`${short(l[name])}/${unit}`);
  }
  return parts.join(", ");
}

export function hosts(o) {
  const counted = Object.entries(o.hosts.states).filter(([, n]) => n).map(([s, n]) => `${number(n)} ${s}`);
  say("hosts-count", counted.join(", "));
  fill(at("hosts"), o.hosts.items, (h) => h.host, [
    plain((h) => h.host, "clip"),
    badge((h) => [h.state, hostLevels[h.state]]),
    figure((h) => number(h.queued)),
    figure((h) => number(h.in_flight)),
    plain(limitsOf),
    figure((h) => number(h.accounts)),
    plain((h) => [h.parked_until && `left alone until ${date(h.parked_until)}`,
      h.state !== "ok" && h.last_error && `${h.last_error}${h.last_error_at ? ` (${ago(h.last_error_at, o.time)})` : ""}`].filter(Boolean).join(": "), "clip long"),
  ], "No host is known yet.");
}

const consumer = (s) => {
  if (s.webhook) return [`webhook ${s.webhook}`, s.webhook === "parked" ? "bad" : s.webhook_attempts ? "warn" : "good"];
  return s.connections ? [plural(s.connections, "connection"), "good"] : ["not connected", "idle"];
};

export function subscriptions(o) {
  say("subscriptions-count", o.subscriptions.length ? number(o.subscriptions.length) : "");
  fill(at("subscriptions"), o.subscriptions, (s) => s.name, [
    plain((s) => s.name, "clip"),
    badge(consumer),
    figure((s) => (s.snapshot ? "snapshot" : number(s.lag))),
    figure((s) => number(s.outstanding)),
    figure((s) => (s.holds_log_seconds == null ? "–" : duration(s.holds_log_seconds))),
    plain((s) => s.webhook_error, "clip long"),
  ], "There are no durable subscriptions.");
}

const operationLevels = { idle: "idle", pending: "warn", running: "good", stopping: "warn", interrupted: "warn" };

const progress = {
  begin: (td) => {
    td.className = "progress";
    td.append(make("progress"), make("span"));
  },
  show: (td, { progress: p, state, waits, command, destination }) => {
    const [meter, words] = td.children;
    if (command) {
      meter.hidden = true;
      text(words, `to ${destination}`);
      td.title = words.textContent;
      return;
    }
    const runs = state !== "idle";
    meter.hidden = !runs || !p;
    if (p?.total) {
      meter.max = p.total;
      meter.value = Math.min(p.done, p.total);
    } else {
      meter.removeAttribute("value");
    }
    const share = p?.total ? `${percent(p.done, p.total)} ` : p?.done ? `${short(p.done)} ` : "";
    text(words, runs ? waits || `${p ? share + (p.item ?? "") : ""}` : "");
    td.title = words.textContent;
  },
};

// copyRows returns the copies that commands made last, as rows of operations that cannot be requested.
function copyRows(copies) {
  const most = 3;
  return ["backup", "export"].flatMap((kind) => copies.filter((c) => c.kind === kind).slice(0, most))
    .map((c) => ({ ...c, name: c.kind, command: true, state: c.running ? "running" : "idle" }));
}

function lastRun(op, now) {
  const complete = op.command && op.succeeded ? `done ${ago(op.succeeded, now)}, ${bytes(op.bytes ?? 0)}` : "";
  if (complete) return op.failures ? `${complete}; failed ${ago(op.ended, now)}: ${op.error}` : complete;
  if (op.failures) return `failed ${ago(op.ended, now)}: ${op.error}`;
  return op.succeeded ? `done ${ago(op.succeeded, now)}` : "never";
}

// maintenance shows the operations. act is called with the name of one and whether it is to run.
export function maintenance(o, act) {
  say("maintenance-count", o.maintenance.paused ? `paused: ${o.maintenance.paused}` : o.maintenance.disk_short ? "the disk is short" : "");
  fill(at("maintenance"), [...copyRows(o.copies), ...o.maintenance.operations],
    (op) => (op.command ? `${op.kind} ${op.destination}` : op.name), [
    plain((op) => op.name),
    badge((op) => (op.failures && op.state === "idle" ? ["failed", "bad"] : [op.state, operationLevels[op.state]])),
    progress,
    plain((op) => lastRun(op, o.time), "clip long"),
    figure((op) => (op.state === "idle" ? until(op.due, o.time) || (op.command ? "by command" : "on request") : `for ${duration(between(op.since, o.time))}`)),
    {
      begin: (td, op) => {
        const button = make("button", "plain");
        button.addEventListener("click", () => act(op.name, button.dataset.act === "run"));
        td.append(button);
      },
      show: (td, op) => {
        const run = op.state === "idle";
        td.firstChild.hidden = Boolean(op.command);
        td.firstChild.dataset.act = run ? "run" : "cancel";
        td.firstChild.setAttribute("aria-label", `${run ? "Run" : "Cancel"} ${op.name}`);
        text(td.firstChild, run ? "Run" : "Cancel");
      },
    },
  ], "There are no operations.");
}

export function disk(o) {
  say("forecast", forecast(o));
  const { total, ...spaces } = o.stats.sizes;
  say("disk-count", `${bytes(total)} in all`);
  const rows = Object.entries(spaces).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a)
    .map(([name, n]) => ({ name, n }));
  const most = rows[0]?.n || 1;
  fill(at("disk"), rows, (r) => r.name, [
    plain((r) => r.name),
    bar((r) => r.n / most),
    figure((r) => bytes(r.n)),
  ], "Nothing is stored yet.");
}
