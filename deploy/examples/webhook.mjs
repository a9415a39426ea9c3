// A webhook that believes only what the receiver has signed, and handles each event once.
//
//     WEBHOOK_SECRET=whsec_… node deploy/examples/webhook.mjs 3000
//
// Listens on 127.0.0.1; port 0 is any free one. Needs Node 18 or newer alone. While a secret changes, give both, with a
// space between. deploy/alerting.md has the rules.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE = 300; // seconds that a delivery may be old, or ahead of this machine's clock
const LARGEST = 64 * 1024;
if (!process.env.WEBHOOK_SECRET || process.argv.length !== 3) {
  console.error("usage: WEBHOOK_SECRET=whsec_… webhook.mjs PORT");
  process.exit(2);
}
const secrets = process.env.WEBHOOK_SECRET.split(" ");
const done = new Set(); // in your service: a unique key in the database, written in the transaction of the effect

class Forged extends Error {}

// The event, if it is signed with one of the secrets. `body` is a Buffer: the bytes as they came.
function verified(headers, body) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  const age = Math.abs(Date.now() / 1000 - Number(timestamp));
  if (!(age <= TOLERANCE)) throw new Forged("too old, or without a time");
  const signatures = (headers["webhook-signature"] ?? "").split(" ").filter((each) => each.startsWith("v1,"));
  for (const secret of secrets) {
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    const right = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
    for (const each of signatures) {
      const given = Buffer.from(each.slice(3), "base64");
      if (given.length === right.length && timingSafeEqual(given, right)) return JSON.parse(body);
    }
  }
  throw new Forged("no signature is right");
}

// Your effect. Throw if it could not be done: the receiver sends the event again.
async function handle(event) {
  const { refundAmount, statusDetails } = event.data;
  const words = [event.type, event.subject, refundAmount?.amount, refundAmount?.currencyCode, statusDetails?.reasonCode];
  console.log(words.filter(Boolean).join(" "));
}

async function answer(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > LARGEST) return 413;
    chunks.push(chunk);
  }
  try {
    const event = verified(request.headers, Buffer.concat(chunks));
    if (!done.has(event.id)) {
      await handle(event);
      done.add(event.id);
    }
    return 204;
  } catch (error) {
    console.error(error instanceof Forged ? `refused: ${error.message}` : `not handled, it comes again: ${error}`);
    return error instanceof Forged ? 401 : 500;
  }
}

const server = createServer(async (request, response) => {
  response.writeHead(request.method === "POST" ? await answer(request) : 405).end();
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/hooks`);
});
