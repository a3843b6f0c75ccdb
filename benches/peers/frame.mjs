// The events of the bench, as benches/load/marker.rs makes them.

const FRAME = 300;

/** Nanoseconds since 1970. */
export function nowNanos() {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
}

/** The JSON of an event's `data:` line. */
export function payload(sequence, nanos) {
  const id = `0000000000000007.${sequence}.1`;
  const head =
    `{"id":"${id}","type":"tick","timestamp":${nanos / 1_000_000n},"organizationId":"o1",` +
    `"channel":"custom","data":"#${sequence}#${nanos}#`;
  const padding = FRAME - `id: ${id}\ndata: \n\n`.length - head.length - 2;
  return `${head}${".".repeat(Math.max(0, padding))}"}`;
}
