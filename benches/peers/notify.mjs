// LISTEN on a channel: a line `<marker's sequence> <nanoseconds>` for each notification.
//
//   node notify.mjs <url> <channel>

import pg from "pg";
import { nowNanos } from "./frame.mjs";

const [url, channel] = process.argv.slice(2);
const client = new pg.Client({ connectionString: url });
await client.connect();
client.on("notification", ({ payload }) => {
  const marker = /#(\d+)#/.exec(payload);
  if (marker) console.log(`${marker[1]} ${nowNanos()}`);
});
await client.query(`listen ${channel}`);
console.log("started");
