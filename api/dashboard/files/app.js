// The dashboard: it asks for /overview every few seconds, and shows it.

import { Charts, plots } from "./charts.js";
import { clock, duration, between } from "./format.js";
import * as panels from "./panels.js";
import { Repositories } from "./repos.js";
import { make, text } from "./table.js";

const refreshEvery = 5000; // milliseconds
const linesShown = 300;

const at = (id) => document.getElementById(id);
const charts = new Charts(at("charts"), plots);
let lastLine = 0; // id
let started = ""; // when the daemon was started
let timer = 0;
let asking = false;

// ask sends a request, and returns the JSON of the answer and the cursor of its next page. Its
// errors have the message of the answer.
async function ask(method, path, body) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The daemon does not answer.");
  }
  if (answer.status === 401) {
    location.assign("login"); // the session has ended
    throw new Error("The session has ended.");
  }
  const value = await answer.json().catch(() => null);
  if (!answer.ok || value == null) throw new Error(value?.message ?? `The daemon answered ${answer.status}.`);
  return { body: value, next: answer.headers.get("Cistern-Next-Cursor") ?? "" };
}

let saying = 0;

// say shows a sentence for some seconds.
function say(words) {
  const e = at("said");
  text(e, words);
  clearTimeout(saying);
  saying = setTimeout(() => text(e, ""), 8000);
}

const repositories = new Repositories(ask, say);

async function operate(name, run) {
  try {
    const { body } = await ask(run ? "POST" : "DELETE", `maintenance/${name}`);
    say(`${name}: ${body.result}`);
  } catch (e) {
    say(e.message);
  }
  refresh();
}

// log adds lines at the end, and follows the end if it was in view.
function log(lines) {
  const list = at("log");
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  for (const line of lines) {
    const item = make("li");
    const level = make("span", "badge", line.level);
    level.dataset.level = { ERROR: "bad", WARN: "warn" }[line.level] ?? "idle";
    const time = make("time", "", clock(line.time));
    time.dateTime = line.time;
    item.append(time, level, make("b", "", line.message), make("code", "", line.attributes ?? ""));
    list.append(item);
    lastLine = line.id;
  }
  while (list.children.length > linesShown) list.firstElementChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
}

// forget drops the points and lines of an earlier run of the daemon.
function forget() {
  charts.clear();
  at("log").replaceChildren();
  lastLine = 0;
}

function show(o) {
  charts.add(o.charts, new Date(o.time) / 1000);
  panels.verdict(o);
  panels.tiles(o, (name) => charts.last(name));
  panels.alerts(o);
  panels.conditions(o);
  panels.repositories(o, (query, name) => repositories.list(query, name));
  panels.sources(o);
  panels.hosts(o);
  panels.subscriptions(o);
  panels.maintenance(o, operate);
  panels.disk(o);
  log(o.log);
  at("logout").hidden = !o.login;
  text(at("about"), `${o.version}, up ${duration(between(o.started, o.time))}`);
  text(at("asof"), `as of ${clock(o.time)}`);
  document.body.dataset.loaded = "yes";
}

async function overview() {
  return (await ask("GET", `overview?${charts.query()}&log=${lastLine}`)).body;
}

// refresh asks and shows once, unless that is under way.
async function refresh() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    let o = await overview();
    if (started && o.started !== started) {
      forget();
      o = await overview();
    }
    started = o.started;
    show(o);
  } catch (e) {
    panels.show("bad", e.message);
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
