// Baseline N: a straightforward receiver, as one writes it from the three packages' own pages.
// Run by `python -m tests.benchmarks believed` as `node receiver.js PORT SOCKET_OF_REDIS CERTIFICATE_URL CERTIFICATE_FILE`.
'use strict';

const { EventEmitter } = require('node:events');
const fs = require('node:fs');
const https = require('node:https');

const express = require('express');
const { Redis } = require('ioredis');
const MessageValidator = require('sns-validator');

const [port, store, certificateUrl, certificateFile] = process.argv.slice(2);

// sns-validator fetches the certificate with https.get, once, and keeps it. Here this one address is answered from a
// file, and no other is asked: which host it may be, keeping it and the signature remain the library's.
https.get = (address, answered) => {
  const request = new EventEmitter();
  process.nextTick(() => {
    if (address !== certificateUrl) {
      request.emit('error', new Error(`The benchmark has no certificate of ${address}.`));
      return;
    }
    answered(Object.assign(fs.createReadStream(certificateFile), { statusCode: 200 }));
  });
  return request;
};

const redis = new Redis(store);
const validator = new MessageValidator();
const validated = (text) =>
  new Promise((resolve, reject) => {
    validator.validate(text, (error, message) => (error ? reject(error) : resolve(message)));
  });

const app = express();
app.post('/ipn', express.text({ type: '*/*' }), async (request, response) => {
  let message;
  try {
    message = await validated(request.body);
  } catch (error) {
    response.status(403).end();
    return;
  }
  const notice = JSON.parse(message.Message);
  // As in baseline R it is gone after a minute, so that the store stays small.
  await redis.set(`baseline:${notice.ObjectId}`, request.body, 'PX', 60_000);
  response.status(200).end();
});
app.listen(Number(port), '127.0.0.1');
