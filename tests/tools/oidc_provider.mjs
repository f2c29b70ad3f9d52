// An OpenID provider on a free port of loopback, by the package oidc-provider. CURFEW_TOOLS says where
// that is.
//
// Each line of standard input is {"path","keys","clients","rotates"}: what the issuer identifier has behind
// its port, the algorithms of the keys to sign with, the clients' metadata, and true to make the keys anew. Each
// is answered with a line that has the issuer. The end of standard input ends the provider. Users have no password:
// the one whom login_hint names is signed in.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const library = `${process.env.CURFEW_TOOLS}/node_modules/oidc-provider/lib/index.js`;
const { Provider } = await import(pathToFileURL(library).href);

const CURVES = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' };
const LOGOUT_TIMEOUT_MS = 60_000;

// The package's notices are no answers.
console.info = console.error;

let made = 0;
let provider;
let jwks;

function key(alg) {
  const { privateKey } = alg === 'EdDSA'
    ? generateKeyPairSync('ed25519')
    : generateKeyPairSync('ec', { namedCurve: CURVES[alg] });
  made += 1;
  return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `${alg}-${made}` };
}

function make(issuer, { keys, clients, rotates }) {
  if (rotates) jwks = { keys: keys.map(key) };
  return new Provider(issuer, {
    jwks,
    clients,
    clientDefaults: { id_token_signed_response_alg: keys[0] },
    enabledJWA: { idTokenSigningAlgValues: ['ES256', 'ES384', 'ES512', 'EdDSA'] },
    scopes: ['openid'],
    claims: { openid: ['sub', 'sid'] },
    pkce: { required: () => false },
    cookies: { keys: ['of a test'] },
    httpOptions: () => ({ signal: AbortSignal.timeout(LOGOUT_TIMEOUT_MS) }),
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    // The user consents.
    async loadExistingGrant(context) {
      const { client, session } = context.oidc;
      const grant = new context.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope('openid');
      await grant.save();
      return grant;
    },
    // Access tokens name the login as ID tokens do.
    extraTokenClaims(context) {
      const { AuthorizationCode: code, RefreshToken: refresh } = context.oidc.entities;
      return { sid: (code ?? refresh)?.sid };
    },
    features: {
      devInteractions: { enabled: false },
      claimsParameter: { enabled: true },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource(context, form) { context.body = form; },
        postLogoutSuccessSource(context) { context.body = 'signed out'; },
      },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource, client) => ({
          scope: '',
          audience: resource,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: client.idTokenSignedResponseAlg } },
        }),
      },
    },
  });
}

async function signIn(request, response) {
  const { params } = await provider.interactionDetails(request, response);
  await provider.interactionFinished(request, response, { login: { accountId: params.login_hint } });
}

const server = createServer((request, response) => {
  const answer = request.url.startsWith('/interaction/') ? signIn : provider.callback();
  Promise.resolve(answer(request, response)).catch((error) => {
    console.error(error);
    response.writeHead(500).end(String(error));
  });
});
await new Promise((listening) => { server.listen(0, '127.0.0.1', listening); });

for await (const line of createInterface({ input: process.stdin })) {
  const wanted = JSON.parse(line);
  const issuer = `http://127.0.0.1:${server.address().port}${wanted.path}`;
  provider = make(issuer, wanted);
  provider.on('server_error', (_, error) => console.error(error));
  provider.on('backchannel.error', (_, error) => console.error(String(error)));
  console.log(JSON.stringify({ issuer }));
}
process.exit(0);
