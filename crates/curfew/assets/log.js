// Frames and messages as lines of a list.

const TONES = {
  ok: 'good', connected: 'good', refreshed: 'good', expiring: 'bad', error: 'bad',
  auth_failed: 'bad', unsubscribed: 'bad', closing: 'bad', gap: 'bad',
};
const TOKENS = /("(?:[^"\\]|\\.)*")|([{}[\],:])|([^\s"{}[\],:]+)/g;

// Writes JSON with a space after every comma and colon. Numbers and key order stay unchanged.
function pretty(text, into) {
  let type = null;
  let key = '';
  for (const [, string, mark, bare] of text.matchAll(TOKENS)) {
    if (mark) {
      const part = document.createElement('i');
      part.textContent = mark === ',' || mark === ':' ? `${mark} ` : mark;
      into.append(part);
      continue;
    }
    const isType = key === '"type"' && type === null;
    const shown = string?.startsWith('"eyJ') ? `${string.slice(0, 14)}…"` : string ?? bare;
    if (isType) {
      type = document.createElement('b');
      type.textContent = shown;
      into.append(type);
    } else {
      into.append(shown);
    }
    key = string ?? '';
  }
}

const twoDigits = (number) => String(number).padStart(2, '0');

function clock() {
  const time = new Date();
  const milliseconds = String(time.getMilliseconds()).padStart(3, '0');
  return `${[time.getHours(), time.getMinutes(), time.getSeconds()].map(twoDigits).join(':')}.${milliseconds}`;
}

function duration(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  return h ? `${h}:${twoDigits(m)}:${twoDigits(s)}` : `${m}:${twoDigits(s)}`;
}

function made(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

// Adds a line to a list of bounded length. A list that is scrolled to its end stays there.
function append(list, line, most) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
  list.append(line);
  if (list.childElementCount > most) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}
