// The JavaScript SDK's own tests, unchanged, against a server of the Centrifuge protocol.
//
// They are in no package: `checkout` is a folder with the SDK's repository, where `npm install --ignore-scripts
// --legacy-peer-deps` has been run. Takes one argument, a JSON object: `checkout`, `address` (host:port) of the server,
// `expected`, the path of a list of expected failures, and `admin` and `key` of Curfew's admin API, by which the tests' requests
// to Centrifugo's are answered; without them these go to the server. Prints each test that went otherwise than the list
// says, and fails if there is one.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';

const { checkout, address, expected, admin, key } = JSON.parse(process.argv[2]);

/** Files about features that Curfew leaves out, and one that measures. */
const LEFT_OUT = ['map', 'shared_poll', 'debounce', 'codec.bench'];

const LONGEST_SUITE_MS = 600_000;

/** An admin request to Curfew. */
async function ask(method, path, body) {
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const answer = await fetch(`http://${admin}${path}`, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

/** The two requests of Centrifugo's API that the tests make. */
const api = {
  async publish({ channel, data }) {
    await ask('POST', '/v1/publish', { channel, data });
    return {};
  },
  async history({ channel }) {
    const { epoch, offset } = await ask('GET', `/v1/channels/${encodeURIComponent(channel)}/history?limit=0`);
    return { epoch, offset };
  },
};

/** Stands before the server: what is for Centrifugo's API goes to Curfew's, all else as it is. */
async function front() {
  const [host, port] = address.split(':');
  const server = http.createServer(async (request, response) => {
    const call = admin && api[request.url.replace('/api/', '')];
    if (!call) {
      const { method, url, headers } = request;
      const onward = http.request({ host, port, method, path: url, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        response.flushHeaders();
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      response.on('close', () => onward.destroy());
      request.pipe(onward);
      return;
    }
    const body = JSON.parse(Buffer.concat(await request.toArray()).toString());
    const answer = await call(body).then((result) => ({ result }), (error) => ({ error: error.message }));
    response.writeHead(answer.error ? 500 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer));
  });
  server.on('upgrade', (request, client, rest) => {
    const onward = net.connect({ host, port }, () => {
      const headers = request.rawHeaders.map((text, at) => (at % 2 ? `${text}\r\n` : `${text}: `)).join('');
      onward.write(`${request.method} ${request.url} HTTP/1.1\r\n${headers}\r\n`);
      onward.write(rest);
      client.pipe(onward).pipe(client);
    });
    onward.on('error', () => client.destroy());
    client.on('error', () => onward.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `127.0.0.1:${server.address().port}`;
}

async function results(place) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'suite-'));
  const output = path.join(folder, 'results.json');
  const config = {
    rootDir: path.resolve(checkout),
    roots: ['<rootDir>/src'],
    testMatch: ['**/*.test.ts'],
    testPathIgnorePatterns: LEFT_OUT.map((name) => `/${name.replaceAll('.', '\\.')}(\\.protobuf)?\\.test\\.ts$`),
    transform: { '^.+\\.(ts|js)$': path.join(import.meta.dirname, 'centrifuge_js_suite.cjs') },
  };
  const arguments_ = ['jest', '--no-cache', '--forceExit', '--json', '--outputFile', output, '--config', JSON.stringify(config)];
  const jest = spawn('npx', arguments_, {
    cwd: checkout,
    env: { ...process.env, CENTRIFUGE_ADDRESS: place, no_proxy: '*' },
    stdio: 'ignore',
    timeout: LONGEST_SUITE_MS,
  });
  await once(jest, 'exit');
  const { testResults } = JSON.parse(fs.readFileSync(output, 'utf8'));
  fs.rmSync(folder, { recursive: true });
  return testResults.flatMap(({ name, message, assertionResults }) => {
    const file = path.basename(name, '.test.ts');
    if (assertionResults.length === 0) return [{ name: file, status: 'failed', reason: message }];
    return assertionResults.map(({ fullName, status, failureMessages: [reason] }) => ({ name: `${file}: ${fullName}`, status, reason }));
  });
}

const list = JSON.parse(fs.readFileSync(expected, 'utf8'));
const all = await results(await front());
const names = new Set(all.map(({ name }) => name));
const surprises = [
  ...Object.keys(list).filter((name) => !names.has(name)).map((name) => `${name} is expected to fail, and the suite has no such test`),
  ...all.filter(({ name, status }) => status === 'passed' && list[name]).map(({ name }) => `${name} passes, and was expected to fail: ${list[name]}`),
  ...all.filter(({ name, status }) => status !== 'passed' && !list[name]).map(({ name, status, reason }) => `${name} ${status}: ${reason?.split('\n')[0]}`),
];
for (const surprise of surprises) console.log(surprise);
const failed = all.filter(({ status }) => status !== 'passed').length;
console.log(`${all.length} tests, ${failed} failed, ${Object.keys(list).length} were expected to, ${surprises.length} surprises`);
process.exit(all.length > 0 && surprises.length === 0 ? 0 : 1);
