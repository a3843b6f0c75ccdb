// Opens a page in Chromium and prints what an expression in it comes to, once it is not null. Speaks the DevTools
// protocol over a pipe: messages end with a NUL.
//
//   node inspect.mjs <chromium> <profile folder> <url> <expression>

import { spawn } from "node:child_process";

const [chromium, profile, url, expression] = process.argv.slice(2);
const browser = spawn(
  chromium,
  [
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    `--user-data-dir=${profile}`,
    "--remote-debugging-pipe",
    "about:blank",
  ],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);
const [, , , to, from] = browser.stdio;
const stop = () => browser.kill("SIGKILL");
process.on("exit", stop);
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(1));

const waiting = new Map();
let rest = "";
from.setEncoding("utf8");
from.on("data", (text) => {
  const whole = (rest + text).split("\0");
  rest = whole.pop();
  for (const message of whole.map((part) => JSON.parse(part))) {
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
    if (message.method === "Page.javascriptDialogOpening") {
      console.log(JSON.stringify({ dialog: message.params.message }));
      process.exit(2);
    }
  }
});

let sent = 0;
async function call(method, params, sessionId) {
  sent += 1;
  const id = sent;
  const answer = new Promise((resolve) => waiting.set(id, resolve));
  to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  const { result, error } = await answer;
  if (error) throw new Error(`${method}: ${error.message}`);
  return result;
}

const { targetId } = await call("Target.createTarget", { url: "about:blank" });
const { sessionId } = await call("Target.attachToTarget", { targetId, flatten: true });
await call("Page.enable", {}, sessionId);
await call("Page.navigate", { url }, sessionId);
for (;;) {
  const { result } = await call("Runtime.evaluate", { expression, returnByValue: true }, sessionId);
  if (result.value !== undefined && result.value !== null) {
    console.log(JSON.stringify(result.value));
    await call("Browser.close");
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
}
process.exit(0);
