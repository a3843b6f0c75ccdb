// An in-memory fan-out: every event to every open response. `plain` writes to the response itself, `better-sse` goes
// through that library's channel. Prints its port; lines on stdin (`pace <rate> <count>`, `burst <count>`) make events.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createChannel, createSession } from "better-sse";
import { nowNanos, payload } from "./frame.mjs";

const mode = process.argv[2];
const responses = new Set();
const channel = createChannel();

const server = createServer(async (request, response) => {
  request.socket.setNoDelay(true);
  if (mode === "better-sse") {
    // The events are JSON already.
    const session = await createSession(request, response, { keepAlive: null, serializer: (data) => data });
    channel.register(session);
    return;
  }
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  response.flushHeaders();
  responses.add(response);
  response.on("close", () => responses.delete(response));
});
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => console.log(server.address().port));

let last = 0;

function send() {
  last += 1;
  const data = payload(last, nowNanos());
  if (mode === "better-sse") {
    channel.broadcast(data, "message", { eventId: String(last) });
    return;
  }
  const frame = `id: ${last}\ndata: ${data}\n\n`;
  for (const response of responses) response.write(frame);
}

function pace(rate, count) {
  const began = performance.now();
  let sent = 0;
  const tick = () => {
    const due = Math.min(count, Math.floor(((performance.now() - began) * rate) / 1000) + 1);
    for (; sent < due; sent += 1) send();
    if (sent < count) setTimeout(tick, began + (sent * 1000) / rate - performance.now());
  };
  tick();
}

/** One event a turn of the loop, so that sockets are written to meanwhile. */
function burst(count) {
  if (count === 0) return;
  send();
  setImmediate(burst, count - 1);
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const [verb, ...numbers] = line.split(" ");
  if (verb === "pace") pace(Number(numbers[0]), Number(numbers[1]));
  else burst(Number(numbers[0]));
});
