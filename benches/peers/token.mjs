// Verifies an HS256 token with Node's own HMAC: what the peers in JavaScript do at a connection.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';

export function verifier(file) {
  const secret = readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  return (authorization) => {
    const token = (authorization ?? '').replace(/^Bearer /, '');
    const [header, payload, signature] = token.split('.');
    if (!signature) return null;
    const good = createHmac('sha256', secret).update(`${header}.${payload}`).digest();
    const sent = Buffer.from(signature, 'base64url');
    if (sent.length !== good.length || !timingSafeEqual(sent, good)) return null;
    if (JSON.parse(Buffer.from(header, 'base64url')).alg !== 'HS256') return null;
    const claims = JSON.parse(Buffer.from(payload, 'base64url'));
    return claims.exp > Date.now() / 1000 ? claims : null;
  };
}
