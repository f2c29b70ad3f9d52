// The page around the panes: the tabs, the town, the sessions, the commands.

// ---- The panes, by tab -------------------------------------------------------------------------

const SESSIONS_EVERY_MS = 3000;
const TERMINAL_TOKEN_SECONDS = 3600;
const WIRES = [CurfewWire, SdkWire];
const wanted = new URLSearchParams(location.search).get('user');
let shownWire = CurfewWire;

function addPane(Wire) {
  const numbers = panes.filter((pane) => pane.Wire === Wire).map(({ number }) => number);
  const pane = new Pane(Math.max(0, ...numbers) + 1, Wire);
  panes.push(pane);
  document.querySelector(`#${Wire.panel} .panes`).append(pane.root);
  terminalUsers();
  return pane;
}

// Two users, or the one that the URL names, who connects at once.
function firstPanes(Wire) {
  const first = addPane(Wire);
  if (!wanted) { addPane(Wire); return; }
  first.be(wanted);
  first.connect();
  terminalUsers();
}

function removePane(pane) {
  pane.wire?.close();
  pane.root.remove();
  panes.splice(panes.indexOf(pane), 1);
  at(document, 'add-user').focus();
  terminalUsers();
  light();
}

const tabs = [...document.querySelectorAll('[role=tab]')];

function showTab(shown) {
  for (const tab of tabs) {
    tab.setAttribute('aria-selected', tab === shown);
    tab.tabIndex = tab === shown ? 0 : -1;
    document.getElementById(tab.getAttribute('aria-controls')).hidden = tab !== shown;
  }
  shownWire = WIRES.find(({ panel }) => shown.getAttribute('aria-controls') === panel);
  at(document, 'second-tab').href = `/?user=bob${shownWire.hash}`;
  if (shownWire === SdkWire) loadSdk();
  else if (!panes.some(({ Wire }) => Wire === CurfewWire)) firstPanes(CurfewWire);
}

// ---- What to do first --------------------------------------------------------------------------

function done(step) { at(document, `step-${step}`).dataset.done = 'true'; }

// ---- The town: every session on the node lights one window, the same one for its whole life ----

const windows = document.querySelectorAll('.windows rect');
const lit = new Map();
let sessions = [];

function light() {
  const here = panes.filter((pane) => pane.isOpen && pane.session);
  const low = new Set(here.filter((pane) => pane.state === 'expiring').map((pane) => pane.session));
  const gone = new Set(panes.filter((pane) => !pane.isOpen).map((pane) => pane.session));
  const inside = new Set([...here.map((pane) => pane.session), ...sessions.map(({ session }) => session).filter((id) => !gone.has(id))]);
  for (const [session, pane] of lit) {
    if (inside.has(session)) continue;
    delete pane.dataset.light;
    lit.delete(session);
  }
  for (const session of inside) {
    if (!lit.has(session)) {
      const free = [...windows].find((one) => !one.dataset.light);
      if (!free) break;
      lit.set(session, free);
    }
    lit.get(session).dataset.light = low.has(session) ? 'low' : 'on';
  }
  const lights = inside.size;
  at(document, 'lights').textContent = lights === 0 ? 'No lights on' : lights === 1 ? '1 light on' : `${lights} lights on`;
}

async function refreshSessions() {
  try {
    sessions = (await dev('sessions')).sessions;
  } catch {
    sessions = [];
  }
  const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
  const rows = sessions.map((one) => {
    const row = made('tr');
    const session = made('td', `…${one.session.slice(-12)}`, 'mono');
    session.title = one.session;
    const cut = made('button', 'Revoke', 'plain');
    cut.type = 'button';
    cut.dataset.testid = 'revoke-session';
    cut.setAttribute('aria-label', `Revoke this session of ${one.user}`);
    cut.addEventListener('click', () => revoke('session', one.session));
    const last = made('td');
    last.append(cut);
    row.append(made('td', one.user), session, made('td', time(one.connected_at)), made('td', time(one.expires_at)), last);
    return row;
  });
  at(document, 'sessions').tBodies[0].replaceChildren(...rows);
  at(document, 'sessions').hidden = sessions.length === 0;
  at(document, 'no-sessions').hidden = sessions.length > 0;
  light();
}

// ---- The commands ------------------------------------------------------------------------------

function terminalUsers() {
  const select = at(document, 'terminal-user');
  const chosen = select.value;
  const users = [...new Set(panes.map((pane) => pane.user).filter(Boolean))];
  select.replaceChildren(...users.map((user) => new Option(user, user, false, user === chosen)));
  if (select.value !== chosen) commands();
}

async function commands() {
  const user = at(document, 'terminal-user').value;
  if (!user) return;
  const show = (name, text) => { at(document, `command-${name}`).textContent = text; };
  show('metrics', `curl -s http://${config.admin}/metrics`);
  try {
    const { token } = await dev('token', { user, roles: ['member'], ttl: TERMINAL_TOKEN_SECONDS });
    if (user !== at(document, 'terminal-user').value) return;
    show('connect', `${config.program} connect ws://${config.address}${config.ws} --subscribe room:1 --token ${token}`);
    show('curl', `curl -isN --max-time 3 http://${config.address}${config.ws} -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: Y3VyZmV3IGF0IHRlbiBwbQ==' -H 'Authorization: Bearer ${token}' --output -`);
  } catch (problem) {
    show('connect', problem.message);
    show('curl', problem.message);
  }
}

document.addEventListener('click', async ({ target }) => {
  const button = target.closest?.('[data-copy]');
  if (!button) return;
  const code = at(button.parentElement, button.dataset.copy);
  const label = button.firstChild;
  try {
    await navigator.clipboard.writeText(code.textContent);
    label.textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(code);
    label.textContent = 'Selected';
  }
  setTimeout(() => { label.textContent = 'Copy'; }, 1500);
});

// ---- The start ---------------------------------------------------------------------------------

for (const tab of tabs) {
  tab.addEventListener('click', () => showTab(tab));
  tab.addEventListener('keydown', ({ key }) => {
    if (key !== 'ArrowLeft' && key !== 'ArrowRight') return;
    const other = tabs.find((one) => one !== tab);
    other.focus();
    showTab(other);
  });
}
at(document, 'address').textContent = `ws://${config.address}${config.ws}`;
at(document, 'version').textContent = `curfew ${config.version}`;
at(document, 'sdk-endpoint').textContent = SDK_ENDPOINT;
at(document, 'sdk-address').textContent = config.sdk.address;
at(document, 'add-user').addEventListener('click', () => addPane(shownWire).part('user').focus());
at(document, 'terminal-user').addEventListener('change', commands);
showTab(tabs[location.hash === SdkWire.hash ? 1 : 0]);
refreshSessions();
setInterval(() => panes.forEach((pane) => pane.tick()), 100);
setInterval(() => { if (!document.hidden) refreshSessions(); }, SESSIONS_EVERY_MS);

// For the browser's console, such as panes[0].wire.client, and for the tests.
globalThis.panes = panes;
