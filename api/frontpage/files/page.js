'use strict';

// Shows the newest events of the stream, and the address that the reader came by in the examples.

const shownMax = 30; // rows of the list
const burst = 40; // messages of one connection, after which it rests
const rest = 5000; // ms between two connections

const list = document.getElementById('events');
const panel = document.getElementById('live');
const state = document.getElementById('live-state');
const pause = document.getElementById('pause');

for (const base of document.querySelectorAll('.base')) {
  const scheme = base.textContent.startsWith('ws') ? location.protocol.replace('http', 'ws') : location.protocol;
  base.textContent = scheme + '//' + location.host + location.pathname.replace(/\/[^/]*$/, '');
}

let cursor = panel.dataset.cursor; // of the first connection; later ones begin at the newest event
let socket = null;
let timer = 0;
let paused = false;

function element(name, text, className) {
  const e = document.createElement(name);
  e.textContent = text;
  if (className) e.className = className;
  return e;
}

// row returns the list item of an event.
function row(event) {
  const item = document.createElement('li');
  if (event.type === 'record') {
    const r = event.record;
    item.append(element('b', r.action, r.action), element('span', r.collection, 'collection'));
    const uri = 'at://' + r.did + '/' + r.collection + '/' + r.rkey;
    const query = new URLSearchParams({ repo: r.did, collection: r.collection, rkey: r.rkey });
    const at = element(r.action === 'delete' ? 'code' : 'a', uri, 'uri');
    if (at.tagName === 'A') at.href = 'xrpc/com.atproto.repo.getRecord?' + query;
    item.append(at);
    return item;
  }
  const about = event[event.type] || {};
  const says = event.type === 'account' ? (about.active ? 'active' : about.status || 'inactive') : about.handle || '';
  item.append(element('b', event.type, 'other'), element('span', says, 'collection'), element('code', about.did || '', 'uri'));
  return item;
}

function show(text) {
  const event = JSON.parse(text);
  if (!('id' in event)) return;
  list.prepend(row(event));
  while (list.childElementCount > shownMax) list.lastElementChild.remove();
}

function say(text) {
  if (state.textContent !== text) state.textContent = text;
}

// connect follows the stream. A busy stream is looked at for a moment at a time, so that a page that
// stays open costs neither side much.
function connect() {
  clearTimeout(timer);
  if (paused || document.hidden || socket) return;
  const url = new URL('stream', location.href);
  url.protocol = location.protocol.replace('http', 'ws');
  if (cursor) url.searchParams.set('cursor', cursor);
  const now = new WebSocket(url);
  let messages = 0;
  socket = now;
  now.onopen = () => say('connected');
  now.onmessage = (message) => {
    if (socket !== now) return;
    show(message.data);
    if (++messages >= burst) {
      say('a sample every ' + rest / 1000 + ' s');
      now.close();
    }
  };
  now.onclose = () => {
    if (socket !== now) return;
    socket = null;
    cursor = '';
    if (messages < burst) say('not connected; trying again');
    timer = setTimeout(connect, rest);
  };
}

function disconnect() {
  clearTimeout(timer);
  const old = socket;
  socket = null;
  if (old) old.close();
}

pause.addEventListener('click', () => {
  paused = !paused;
  pause.textContent = paused ? 'Go on' : 'Pause';
  pause.setAttribute('aria-pressed', String(paused));
  if (paused) {
    disconnect();
    say('paused');
  } else {
    connect();
  }
});
document.addEventListener('visibilitychange', () => (document.hidden ? disconnect() : connect()));
addEventListener('hashchange', opened);

// opened shows the group that the address names.
function opened() {
  const group = document.getElementById(location.hash.slice(1));
  if (group instanceof HTMLDetailsElement) group.open = true;
}

panel.hidden = false;
opened();
connect();
