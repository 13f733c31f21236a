// Tables that are refreshed in place, so that focus and scroll positions stay.

// text sets the text of an element, if it differs.
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

// attribute sets an attribute, if it differs; null removes it.
export function attribute(element, name, value) {
  if (value == null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// make returns a new element.
export function make(tag, className = "", content = "") {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (content) e.textContent = content;
  return e;
}

// Cells. A cell is {begin, show}: begin gets a new td once, and show gets it with each item.

// plain is a cell of text. title is the text that is shown in full when pointed at.
export const plain = (of, className = "") => ({
  begin: (td) => { td.className = className; },
  show: (td, item) => {
    const value = of(item) ?? "";
    text(td, value);
    if (className.includes("clip")) attribute(td, "title", value);
  },
});

// wrapped is a cell of text in a few lines.
export const wrapped = (of) => ({
  begin: (td) => {
    td.className = "wrap";
    td.append(make("div"));
  },
  show: (td, item) => {
    text(td.firstChild, of(item));
    attribute(td, "title", of(item));
  },
});

// figure is a cell of text that is aligned as numbers are.
export const figure = (of) => plain(of, "n");

// badge is a cell with a word in the colour of its level: good, warn, bad or idle.
export const badge = (of) => ({
  begin: (td) => { td.append(make("span", "badge")); },
  show: (td, item) => {
    const [word, level] = of(item);
    text(td.firstChild, word);
    attribute(td.firstChild, "data-level", level);
  },
});

// bar is a cell with a bar of the part, 0 to 1, that of returns.
export const bar = (of) => ({
  begin: (td) => {
    td.className = "bar";
    td.append(make("span"));
  },
  show: (td, item) => {
    const part = Math.min(1, Math.max(0, of(item) || 0));
    // Something is never shown as nothing.
    td.firstChild.style.width = part > 0 ? `max(2px, ${(100 * part).toFixed(2)}%)` : "0";
  },
});

// fill makes the rows of a table body be those of items. key returns what an item is known by from
// one refresh to the next. Without items, one row says none.
export function fill(table, items, key, cells, none = "none") {
  const body = table.tBodies[0];
  const rows = new Map();
  for (const row of body.rows) rows.set(row.dataset.key, row);
  if (items.length === 0 && rows.size === 1 && rows.has("")) return;
  const wanted = new Set(items.map((item) => String(key(item))));
  for (const [k, row] of rows) if (!wanted.has(k)) row.remove();
  items.forEach((item, i) => {
    const k = String(key(item));
    let row = rows.get(k);
    if (!row) {
      row = make("tr");
      row.dataset.key = k;
      for (const cell of cells) cell.begin(row.insertCell(), item);
    }
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
    cells.forEach((cell, c) => cell.show(row.cells[c], item));
  });
  if (items.length === 0 && body.rows.length === 0) {
    const row = body.insertRow();
    row.className = "none";
    row.dataset.key = "";
    const td = row.insertCell();
    td.colSpan = cells.length;
    td.textContent = none;
  }
}
