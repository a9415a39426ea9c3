// What became of a refund: waits until Amazon has settled it, and says whether Amazon has processed it.
//
//     RECEIVER_TOKEN=… node deploy/examples/refund_state.mjs S01-5105180-3221187-R022311
//
// Needs Node 18 or newer alone; RECEIVER_URL is the service, by default http://127.0.0.1:8000. Exit code 0: Refunded
// (Amazon has processed it; up to 9 working days can pass before the buyer has the money); 1: declined; 2: not final
// within PATIENCE seconds, 120 unless set; 3: the service does not know it; 4: people have to look, since Amazon
// contradicts itself; 5: anything else, such as no answer, a wrong token or a missing argument: the state is not known.

const url = process.env.RECEIVER_URL ?? "http://127.0.0.1:8000";
const headers = { Authorization: `Bearer ${process.env.RECEIVER_TOKEN}` };
const deadline = Date.now() + 1000 * Number(process.env.PATIENCE ?? 120);
const rest = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

// Node's own exit code for an error is 1, which would mean that the refund was declined.
function fail(error) {
  console.error("no answer:", error.cause?.message ?? error.message);
  process.exit(5);
}
process.on("uncaughtException", fail);
if (process.argv.length !== 3 || !process.env.RECEIVER_TOKEN) {
  console.error("usage: RECEIVER_TOKEN=… refund_state.mjs REFUND_ID");
  process.exit(5);
}

// One answer, read to its end. The timer is one of our own: that of AbortSignal.timeout does not keep Node running, which
// would then end here with exit code 13. It ends the wait for a body too, if its connection is lost and fetch misses that.
async function ask(refundId, wait) {
  const late = new AbortController();
  let timer;
  const tooLate = new Promise((_, reject) => {
    timer = setTimeout(() => {
      late.abort();
      reject(new Error("no whole answer in time"));
    }, (wait + 10) * 1000);
  });
  try {
    return await Promise.race([whole(refundId, wait, late.signal), tooLate]);
  } finally {
    clearTimeout(timer);
  }
}

async function whole(refundId, wait, signal) {
  const answer = await fetch(`${url}/v1/refunds/${encodeURIComponent(refundId)}?wait=${wait}`, { headers, signal });
  return { status: answer.status, retryAfter: answer.headers.get("retry-after"), body: await answer.json() };
}

// The refund, final if that comes in time; null if it is not known. A service that restarts meanwhile is asked again.
async function final(refundId) {
  for (;;) {
    const left = (deadline - Date.now()) / 1000;
    let answer;
    try {
      answer = await ask(refundId, Math.floor(Math.max(0, Math.min(25, left))));
    } catch (error) {
      if (left <= 0) throw error;
      await rest(1);
      continue;
    }
    if (answer.status === 200 || answer.body.reason === "no_such_refund") {
      const refund = answer.status === 200 ? answer.body : null;
      if (left <= 0 || refund?.final) return refund;
    } else if ([429, 502, 503, 504].includes(answer.status) && left > 0) {
      await rest(Number(answer.retryAfter ?? 1));
    } else {
      throw new Error(`${answer.status} ${answer.body.reason}`);
    }
  }
}

let refund;
try {
  refund = await final(process.argv[2]);
} catch (error) {
  fail(error);
}
if (refund === null) {
  console.log("not known: it was never notified; POST /v1/refunds/ID/refresh takes it in");
  process.exit(3);
}
const { state, reasonCode } = refund.statusDetails;
// The amount is a text, exact to the cent: keep it as one, or use a library of decimals.
console.log(state, refund.refundAmount?.amount ?? "?", refund.refundAmount?.currencyCode ?? "", reasonCode ?? "");
for (const action of refund.advice?.actions ?? []) console.log("-", action.text);
process.exit(refund.conflict ? 4 : ({ Refunded: 0, Declined: 1 }[state] ?? 2));
