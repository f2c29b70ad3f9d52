// The page's calls to the node, and a few functions that all its scripts share.

const config = JSON.parse(document.getElementById('curfew-config').textContent);
const { nonce } = document.getElementById('curfew-config');

const at = (root, name) => root.querySelector(`[data-testid="${name}"]`);
const now = () => Date.now() / 1000;

// Quotes a word for a shell, unless every shell takes it unquoted.
const quoted = (word) => (/^[\w:.\/@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

// Numbers stay as they were typed, if the browser can do that: Curfew delivers them byte for byte.
const parsed = (text) => JSON.parse(text, (key, value, { source } = {}) => (typeof value === 'number' && source && JSON.rawJSON ? JSON.rawJSON(source) : value));

// Thrown if the user may have no new token.
class NoToken extends Error {}

const panes = [];
const revocations = new Map();

async function ask(path, body) {
  try {
    return await fetch(path, {
      method: body ? 'POST' : 'GET',
      headers: { 'X-Curfew-Dev': config.csrf, ...(body && { 'Content-Type': 'application/json' }) },
      body: body && JSON.stringify(body),
    });
  } catch {
    throw new Error('The node cannot be reached. Is curfew dev still running?');
  }
}

async function dev(path, body) {
  let response = await ask(`/dev/${path}`, body);
  if (response.status === 403) {
    await meetAgain();
    response = await ask(`/dev/${path}`, body);
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(`${path}: ${answer.detail ?? answer.title ?? `HTTP ${response.status}`}`);
  return answer;
}

// A restarted node has new keys, and knows no revocation.
async function meetAgain() {
  const html = await (await ask('/')).text();
  const anew = new DOMParser().parseFromString(html, 'text/html').getElementById('curfew-config');
  const { csrf } = config;
  Object.assign(config, JSON.parse(anew.textContent));
  if (config.csrf === csrf) return;
  revocations.clear();
  for (const pane of panes) {
    pane.isBarred = false;
    pane.named();
  }
  commands();
}

async function revoke(kind, value, pane) {
  const start = performance.now();
  const named = panes.filter((other) => other.target(kind) === value);
  for (const other of named) other.revokedAt = start;
  try {
    const receipt = await dev('revoke', { kind, value });
    revocations.set(`${kind}:${value}`, [kind, value]);
    for (const other of named) {
      other.receipt = receipt;
      other.note();
      other.told();
    }
    panes.forEach((other) => other.named());
  } catch (problem) {
    (pane ?? panes[0]).note(problem.message);
  }
  refreshSessions();
}
