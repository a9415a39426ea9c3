// Calls Amazon Pay through Amazon's own Node SDK, which signs as it always does: for pay-api.amazon.com and its sisters,
// over https. Every connection goes to a port of this machine, whatever its name; nothing leaves the machine.
//
// Standard input: {"port", "config", "calls": [{"method", "arguments", "tamper"}]}.
// Standard output: a JSON list with {"status", "data", "reason", "authorization", "url"} for each call.
'use strict';

const fs = require('node:fs');
const https = require('node:https');
const tls = require('node:tls');
const { createRequire } = require('node:module');

const SDK = '@amazonpay/amazon-pay-api-sdk-nodejs';
const { WebStoreClient } = require(SDK);
const axios = createRequire(require.resolve(SDK))('axios');

const job = JSON.parse(fs.readFileSync(0, 'utf8'));

const agent = new https.Agent();
agent.createConnection = (options) => tls.connect({ ...options, host: '127.0.0.1', port: job.port, path: undefined });
axios.defaults.httpsAgent = agent;
axios.defaults.proxy = false;

const TAMPERING = {
  body: (sent) => { sent.data = sent.data.replace('"1.00"', '"2.00"'); },
  header: (sent) => { sent.headers['user-agent'] += ' changed'; },
  path: (sent) => { sent.url = sent.url.replace(/C0{5}1$/, 'C000002'); },
  date: (sent) => { sent.headers['x-amz-pay-date'] = '2001-01-01T00:00:00Z'; },
};
let tamper = null;
let sent = null;
axios.interceptors.request.use((request) => {
  if (tamper) TAMPERING[tamper](request);
  sent = request;
  return request;
});

function told(answer) {
  return {
    status: answer.status,
    data: answer.data,
    reason: answer.headers['x-amz-pay-simulator-reason'] || '',
    authorization: sent.headers.authorization,
    url: sent.url,
  };
}

async function main() {
  const client = new WebStoreClient(job.config);
  const answers = [];
  for (const call of job.calls) {
    tamper = call.tamper || null;
    try {
      answers.push(told(await client[call.method](...call.arguments)));
    } catch (error) {
      if (!error.response) throw error;
      answers.push(told(error.response));
    }
  }
  process.stdout.write(JSON.stringify(answers));
}

main().catch((error) => {
  process.stderr.write(`${error.stack || error}\n`);
  process.exitCode = 1;
});
