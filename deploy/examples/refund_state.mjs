// What became of a refund: waits until Amazon has settled it, and says whether Amazon has processed it.
//
//     RECEIVER_TOKEN=… node deploy/examples/refund_state.mjs S01-5105180-3221187-R022311
//
// Needs Node 18 or newer alone; RECEIVER_URL is the service, by default http://127.0.0.1:8000. Exit code 0: the buyer has
// the money; 1: declined; 2: not settled within PATIENCE seconds, 120 unless set; 3: the service does not know it; 4:
// people have to look, since Amazon contradicts itself.

const url = process.env.RECEIVER_URL ?? "http://127.0.0.1:8000";
const headers = { Authorization: `Bearer ${process.env.RECEIVER_TOKEN}` };
const deadline = Date.now() + 1000 * Number(process.env.PATIENCE ?? 120);
const rest = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

// The refund, final if that comes in time; null if it is not known. A service that restarts meanwhile is asked again.
async function final(refundId) {
  for (;;) {
    const left = (deadline - Date.now()) / 1000;
    const wait = Math.floor(Math.max(0, Math.min(25, left)));
    let answer;
    try {
      const address = `${url}/v1/refunds/${encodeURIComponent(refundId)}?wait=${wait}`;
      answer = await fetch(address, { headers, signal: AbortSignal.timeout((wait + 10) * 1000) });
    } catch (error) {
      if (left <= 0) throw error;
      await rest(1);
      continue;
    }
    if (answer.ok || answer.status === 404) {
      const refund = answer.ok ? await answer.json() : null;
      if (left <= 0 || refund?.final) return refund;
    } else if ([429, 502, 503, 504].includes(answer.status) && left > 0) {
      await rest(Number(answer.headers.get("retry-after") ?? 1));
    } else {
      throw new Error(`${answer.status} ${(await answer.json()).reason}`);
    }
  }
}

const refund = await final(process.argv[2]);
if (refund === null) {
  console.log("not known: it was never notified; POST /v1/refunds/ID/refresh takes it in");
  process.exit(3);
}
const { state, reasonCode } = refund.statusDetails;
// The amount is a text, exact to the cent: keep it as one, or use a library of decimals.
console.log(state, refund.refundAmount?.amount ?? "?", refund.refundAmount?.currencyCode ?? "", reasonCode ?? "");
for (const action of refund.advice?.actions ?? []) console.log("-", action.text);
process.exit(refund.conflict ? 4 : ({ Refunded: 0, Declined: 1 }[state] ?? 2));
