// Handles every refund event, from the feed over HTTP as server-sent events.
//
//     RECEIVER_TOKEN=… node deploy/examples/follow_feed.mjs cursor.txt
//
// Needs Node 18 or newer alone; RECEIVER_URL is the service, by default http://127.0.0.1:8000. The file keeps how far it
// got: it goes on there, however it ended. An event can be handled twice, if it ends between the effect and the file: go
// by the event's `id`.

import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";

const url = process.env.RECEIVER_URL ?? "http://127.0.0.1:8000";
const place = process.argv[2];
if (!place || !process.env.RECEIVER_TOKEN) {
  console.error("usage: RECEIVER_TOKEN=… follow_feed.mjs CURSOR_FILE");
  process.exit(2);
}
let after = existsSync(place) ? readFileSync(place, "utf8") : "beginning";

// Your effect. Throw if it could not be done: the program ends, and begins with this event again.
async function handle(event) {
  const { refundAmount: amount, statusDetails } = event.data;
  const words = [event.id, event.type, event.subject, amount?.amount, amount?.currencyCode, statusDetails.reasonCode];
  console.log(words.filter(Boolean).join(" "));
}

function keep(cursor) {
  after = cursor;
  writeFileSync(`${place}.new`, cursor);
  renameSync(`${place}.new`, place);
}

async function take(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
  }
  if (fields.event === "reset") console.error(`events were lost: ${fields.data}. GET /v1/refunds has the states.`);
  if (fields.event?.startsWith("amazonpay.")) await handle(JSON.parse(fields.data));
  if (fields.id) keep(fields.id);
}

// One connection, until it ends. The service says something every 15 s: 40 s of silence are a dead line.
async function listen() {
  const dead = new AbortController();
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => dead.abort(), 40_000);
  };
  try {
    alive();
    const answer = await fetch(`${url}/v1/events?after=${encodeURIComponent(after)}`, {
      headers: { Authorization: `Bearer ${process.env.RECEIVER_TOKEN}`, Accept: "text/event-stream" },
      signal: dead.signal,
    });
    if ([429, 502, 503, 504].includes(answer.status)) return Number(answer.headers.get("retry-after") ?? 1);
    if (!answer.ok) {
      console.error(`${answer.status} ${(await answer.json()).reason}`);
      process.exit(1);
    }
    let text = "";
    for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
      alive();
      const blocks = (text + chunk).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) await take(block).catch((error) => { console.error(error); process.exit(1); });
    }
  } catch (error) {
    console.error(`the line ended: ${error.message}`);
  } finally {
    clearTimeout(timer);
  }
  return 1;
}

for (;;) {
  const seconds = await listen();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
