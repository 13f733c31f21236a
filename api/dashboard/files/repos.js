// The search for repositories, and what can be done with them.

import { number, until, ago } from "./format.js";
import { badge, figure, fill, make, text, wrapped } from "./table.js";
import { levelOf } from "./states.js";

// Repositories lists the rows that a search found. ask sends a request, and say tells the operator
// what became of it.
export class Repositories {
  constructor(ask, say) {
    Object.assign(this, { ask, say, rows: [], next: "", query: "", turn: 0 });
    this.table = document.getElementById("found");
    this.said = document.getElementById("find-said");
    this.more = document.getElementById("more");
    this.input = document.getElementById("find-text");
    document.getElementById("find").addEventListener("submit", (e) => {
      e.preventDefault();
      this.find(this.input.value.trim());
    });
    this.more.addEventListener("click", () => this.page());
    this.show();
  }

  // begin begins a search, and ends the one before it. It returns whether the search still holds.
  begin(words) {
    const turn = ++this.turn;
    this.rows = [];
    this.next = this.query = "";
    text(this.said, words);
    this.show();
    return () => turn === this.turn;
  }

  // find looks for a DID or a handle.
  async find(name) {
    if (!name) return;
    const holds = this.begin("Searching.");
    try {
      let did = name.replace(/^at:\/\//, "").replace(/^@/, "");
      if (!did.startsWith("did:")) {
        const answer = await this.ask("GET", `xrpc/com.atproto.identity.resolveHandle?handle=${encodeURIComponent(did)}`);
        did = answer.body.did;
      }
      const { body } = await this.ask("GET", `repos/${encodeURIComponent(did)}`);
      if (!holds()) return;
      this.rows = [body];
      text(this.said, `Found ${body.did}.`);
    } catch (e) {
      if (holds()) text(this.said, e.message);
    }
    if (holds()) this.show();
  }

  // list shows the repositories of a query of GET /repos.
  async list(query, name) {
    this.begin(`Repositories: ${name}.`);
    this.query = query;
    this.name = name;
    await this.page();
  }

  // page adds the next page. A page may have no rows and not be the last, as each looks at a
  // bounded number of repositories.
  async page() {
    const turn = this.turn;
    this.more.disabled = true;
    try {
      const cursor = this.next ? `&cursor=${encodeURIComponent(this.next)}` : "";
      const { body, next } = await this.ask("GET", `repos?${this.query}&limit=50${cursor}`);
      if (turn !== this.turn) return;
      this.rows.push(...body);
      this.next = next;
      text(this.said, `${number(this.rows.length)} ${this.name}${next ? " so far" : ""}.`);
    } catch (e) {
      if (turn === this.turn) text(this.said, e.message);
    }
    this.show();
  }

  show() {
    const now = new Date();
    this.more.disabled = !this.next;
    fill(this.table, this.rows, (r) => r.did, [
      {
        begin: (td) => {
          td.className = "clip";
          td.append(make("b"), make("code"));
        },
        show: (td, r) => {
          text(td.firstChild, r.handle ?? "");
          text(td.lastChild, r.did);
          td.title = [r.did, r.pds].filter(Boolean).join(" at ");
        },
      },
      badge((r) => [r.state, r.error ? "bad" : levelOf[r.state]]),
      figure((r) => number(r.records)),
      wrapped((r) => why(r, now)),
      figure((r) => until(r.next_look || r.error?.next_retry, now) || "–"),
      this.actions(),
    ], this.turn ? "No repository." : "");
  }

  actions() {
    return {
      begin: (td, r) => {
        const resync = make("button", "plain", "Resync");
        const untrack = make("button", "plain", "Untrack");
        resync.setAttribute("aria-label", `Resync ${r.did}`);
        untrack.setAttribute("aria-label", `Untrack ${r.did}`);
        resync.addEventListener("click", () => this.act(r.did, "POST", "repos/resync"));
        untrack.addEventListener("click", () => this.confirm(untrack, r.did));
        td.className = "actions";
        td.append(resync, untrack);
      },
      show: (td, r) => {
        for (const button of td.children) button.disabled = !r.tracked;
      },
    };
  }

  // confirm untracks at the second click within some seconds.
  confirm(button, did) {
    if (button.dataset.sure) {
      this.act(did, "DELETE", "repos");
    } else {
      button.dataset.sure = "yes";
      button.textContent = "Really?";
      setTimeout(() => {
        delete button.dataset.sure;
        button.textContent = "Untrack";
      }, 4000);
    }
  }

  // act changes a repository, and shows its row as it is then.
  async act(did, method, path) {
    try {
      const { body } = await this.ask(method, path, [{ did }]);
      this.say(`${did}: ${body[0].result || body[0].message}`);
      const row = (await this.ask("GET", `repos/${encodeURIComponent(did)}`)).body;
      this.rows = this.rows.map((r) => (r.did === did ? row : r));
      this.show();
    } catch (e) {
      this.say(e.message);
    }
  }
}

// why says why a repository is not synced.
function why(r, now) {
  const parts = [];
  if (r.status !== "active" && r.status !== "unknown") parts.push(`account ${r.status}`);
  if (r.error) {
    parts.push(`${r.error.kind}${r.error.count ? `, ${r.error.count} in a row` : ""}: ${r.error.message}`);
    if (r.error.since) parts.push(`since ${ago(r.error.since, now)}`);
  } else if (r.reason) {
    parts.push(r.reason);
  }
  if (r.lacking) parts.push("records that the filter wants are missing");
  return parts.join("; ");
}
