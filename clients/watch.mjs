// Opens streams as a program on Node does, and prints what it sees, one JSON object a line.
//
//   node watch.mjs <eventsource | eventsource-2 | fetch>      targets as JSON on standard input

function tell(stream, saw, more) {
  process.stdout.write(`${JSON.stringify({ stream, saw, ...more })}\n`);
}

const clients = {
  // The package's third generation: over fetch, which is where headers are added.
  async eventsource() {
    const { EventSource } = await import("eventsource");
    return ({ url, headers }) =>
      new EventSource(url, {
        fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
      });
  },

  // The second, over node:http, which much still installs.
  async "eventsource-2"() {
    const { default: EventSource } = await import("eventsource-2");
    return ({ url, headers }) => new EventSource(url, { headers });
  },
};

function watch({ name, ...target }, open) {
  const source = open(target);
  source.onopen = () => tell(name, "open");
  source.onmessage = (event) => tell(name, "message", { id: event.lastEventId, data: event.data });
  source.onerror = () => tell(name, source.readyState === source.CLOSED ? "closed" : "error");
}

// Not node:readline, for which U+2028 ends a line too.
async function* lines(body) {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const whole = (rest + text).split("\n");
    rest = whole.pop();
    yield* whole;
  }
}

// A reader of one's own, as front ends have that want headers in a browser: fetch, lines, fields, and again.
async function read({ name, url, headers }) {
  let id = "";
  let retry = 2000;
  for (;;) {
    try {
      const resume = id ? { "last-event-id": id } : {};
      const answer = await fetch(url, { headers: { accept: "text/event-stream", ...headers, ...resume } });
      if (answer.status !== 200) {
        tell(name, "closed", { data: `${answer.status} ${await answer.text()}` });
        return;
      }
      tell(name, "open");
      let data = [];
      for await (const line of lines(answer.body)) {
        const [, field, value] = /^([^:]*)(?:: ?(.*))?$/u.exec(line) ?? [];
        if (line === "") {
          if (data.length > 0) tell(name, "message", { id, data: data.join("\n") });
          data = [];
        } else if (field === "data") data.push(value ?? "");
        else if (field === "id") id = value ?? "";
        else if (field === "retry") retry = Number(value);
      }
    } catch {
      // The connection was refused or broke; it is tried again.
    }
    tell(name, "error");
    await new Promise((resolve) => setTimeout(resolve, retry));
  }
}

let input = "";
for await (const chunk of process.stdin) input += chunk;
const targets = JSON.parse(input);
const [kind] = process.argv.slice(2);
if (kind === "fetch") {
  await Promise.all(targets.map(read));
} else {
  const open = await clients[kind]();
  for (const target of targets) watch(target, open);
}
