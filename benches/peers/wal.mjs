// A slot read by pg-logical-replication, decoded, and nothing done with it.
//
//   node wal.mjs <url> <slot> drain <rows>   prints `done` after so many inserted rows
//   node wal.mjs <url> <slot> follow         prints a line `<marker's sequence> <nanoseconds>` for each

import { LogicalReplicationService, PgoutputPlugin } from "pg-logical-replication";
import { nowNanos } from "./frame.mjs";

const [url, slot, mode, rows] = process.argv.slice(2);
const service = new LogicalReplicationService(
  { connectionString: url },
  // What has been read is not confirmed one by one: the server would be asked to write it down each time.
  { acknowledge: { auto: false, timeoutSeconds: 10 } },
);
let left = Number(rows ?? Infinity);

service.on("start", () => console.log("started"));
service.on("data", (_lsn, message) => {
  if (message.tag !== "insert") return;
  if (mode === "follow") {
    const marker = /#(\d+)#/.exec(message.new.event_type);
    if (marker) console.log(`${marker[1]} ${nowNanos()}`);
    return;
  }
  left -= 1;
  if (left === 0) {
    console.log("done");
    process.exit(0);
  }
});
service.on("error", (error) => {
  console.error(error);
  process.exit(1);
});

service.subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: ["walcast"] }), slot);
