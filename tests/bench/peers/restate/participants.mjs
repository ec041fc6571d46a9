// The three participants of the Restate peer, in one process: plain HTTP services, as a user's own services are, with
// their effects in memory. A request that comes again does nothing, so each effect is counted once.
//
//   POST /STEP/ID/do    200, or 409 when the plan refuses it        POST /STEP/ID/undo    200
//   POST /ledger?run=N&path=FILE    writes the effects of a run, as the bench's gate reads them

import { createWriteStream } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";

const STEPS = ["reserve", "charge", "book"];

/** Effects by run, then by `index place`. */
const runs = new Map();

/** The bench's plan: of 30 ids two are refused at charge, one at book. */
function refuses(index, place) {
  const at = index % 30;
  return (place === 1 && (at === 9 || at === 19)) || (place === 2 && at === 29);
}

function answer(place, id, operation) {
  const [, run, index] = /^r(\d+)-(\d+)$/.exec(id) ?? [];
  if (place < 0 || run === undefined) return 404;
  if (operation === "do" && refuses(Number(index), place)) return 409;
  if (!runs.has(run)) runs.set(run, new Map());
  const effects = runs.get(run);
  const key = `${index} ${place}`;
  const effect = effects.get(key) ?? { done: 0, undone: 0 };
  if (operation === "do" && effect.done === 0) effect.done += 1;
  else if (operation === "undo" && effect.undone < effect.done) effect.undone += 1;
  else return 200;
  effects.set(key, effect);
  return 200;
}

async function ledger(run, path) {
  const file = createWriteStream(path);
  for (const [key, { done, undone }] of runs.get(run) ?? []) file.write(`${key} ${done} ${undone} 0\n`);
  file.end();
  await once(file, "close");
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  for await (const _ of request); // the order itself is of no interest here
  if (url.pathname === "/ledger") {
    await ledger(url.searchParams.get("run"), url.searchParams.get("path"));
    response.writeHead(200).end();
    return;
  }
  const [, step, id, operation] = url.pathname.split("/");
  response.writeHead(answer(STEPS.indexOf(step), id, operation)).end();
});
server.keepAliveTimeout = 0;
server.listen(0, "127.0.0.1", () => process.send({ port: server.address().port }));
process.on("disconnect", () => process.exit());
