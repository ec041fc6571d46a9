// Restate as a peer of the bench: its server, the user's saga, three participants, and the driver that the bench
// speaks to over lines (see ../README.md).
//
//   bench ──lines──▶ driver (this process) ──HTTP──▶ restate-server ──HTTP/2──▶ saga ──HTTP──▶ participants

import { fork, spawn } from "node:child_process";
import { once } from "node:events";
import { openSync, readFileSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const [folder, durability, order] = process.argv.slice(2);
const PATIENCE_MS = 60_000;
const PARTITIONS = 4;
const require = createRequire(import.meta.url);
const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
const children = [];
const say = (line) => process.stdout.write(`${line}\n`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function post(port, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const all = { "content-type": "application/json", "content-length": Buffer.byteLength(body), ...headers };
    const asked = request({ agent, host: "127.0.0.1", port, method: "POST", path, headers: all }, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (part) => (text += part));
      answer.on("error", reject);
      answer.on("end", () => resolve({ status: answer.statusCode, text }));
    });
    asked.on("error", reject);
    asked.setTimeout(PATIENCE_MS, () => asked.destroy(new Error(`no answer within ${PATIENCE_MS} ms`)));
    asked.end(body);
  });
}

async function freePorts(count) {
  const held = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      return server;
    }),
  );
  const ports = held.map((server) => server.address().port);
  held.forEach((server) => server.close());
  return ports;
}

/** A service of ours in a process of its own, and where it listens. */
async function service(file, ...given) {
  const child = fork(fileURLToPath(new URL(file, import.meta.url)), given.map(String), {
    stdio: ["ignore", 2, 2, "ipc"],
  });
  children.push(child);
  child.on("exit", (code) => code && fail(`${file} ended with ${code}`));
  const [{ port }] = await once(child, "message");
  return { pid: child.pid, port };
}

/** The server's program, from its package, without the launcher around it: its processor time is to be seen. */
async function restateServer() {
  const [node, ingress, admin] = await freePorts(3);
  const config = join(folder, "restate.toml");
  writeFileSync(
    config,
    `base-dir = ${JSON.stringify(join(folder, "data"))}
node-name = "bench"
listen-mode = "tcp"
bind-ip = "127.0.0.1"
advertised-host = "127.0.0.1"
bind-port = ${node}
disable-telemetry = true
default-num-partitions = ${PARTITIONS}
log-filter = "warn"
log-disable-ansi-codes = true
[ingress]
bind-port = ${ingress}
[admin]
bind-port = ${admin}
disable-web-ui = true
[log-server]
rocksdb-disable-wal-fsync = ${durability === "C"}
`,
  );
  const program = require.resolve(`@restatedev/restate-server-${process.platform}-${process.arch}/bin/restate-server`);
  const log = openSync(join(folder, "restate.log"), "w");
  const child = spawn(program, ["--no-logo", "--config-file", config], { stdio: ["ignore", log, log] });
  children.push(child);
  child.on("exit", (code) => fail(`restate-server ended with ${code}: ${readFileSync(join(folder, "restate.log"))}`));
  return { pid: child.pid, ingress, admin };
}

/** Until the server is there and knows the saga. */
async function register(admin, saga) {
  const body = JSON.stringify({ uri: `http://127.0.0.1:${saga}` });
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const told = await post(admin, "/deployments", body).catch((error) => ({ status: 0, text: String(error) }));
    if (told.status === 200 || told.status === 201) return;
    if (Date.now() > deadline) throw new Error(`the saga is not registered: ${told.status} ${told.text}`);
    await pause(250);
  }
}

/** Starts a saga under its id as idempotency key, and waits for its end. */
async function outcome(ingress, id) {
  const told = await post(ingress, "/orders/place", `{"id":"${id}","order":${order}}`, { "idempotency-key": id });
  if (told.status === 200) return "committed";
  if (told.status === 409) return "compensated";
  throw new Error(`status ${told.status}: ${told.text}`);
}

/** How many sagas the server says have not ended. */
async function open(admin) {
  const query = "SELECT count(1) AS open FROM sys_invocation WHERE status <> 'completed'";
  const told = await post(admin, "/query", JSON.stringify({ query }), { accept: "application/json" });
  if (told.status !== 200) throw new Error(`the query: ${told.status} ${told.text}`);
  return JSON.parse(told.text).rows[0].open;
}

function about() {
  const version = (name) => require(`@restatedev/${name}/package.json`).version;
  const kept = "log server's RocksDB, write-ahead log";
  return {
    server: `@restatedev/restate-server ${version("restate-server")}, all roles in one process`,
    sdk: `@restatedev/restate-sdk ${version("restate-sdk")}, node ${process.version}`,
    settings: `${PARTITIONS} partitions, one copy, otherwise defaults; results kept 24 h`,
    durability:
      durability === "C"
        ? `${kept} without fsync: a crash of the machine loses the last writes`
        : `${kept} with fsync (its default): on the disk before it is acknowledged`,
  };
}

function fail(why) {
  console.error(`restate: ${why}`);
  children.forEach((child) => child.removeAllListeners("exit").kill("SIGKILL"));
  process.exit(1);
}

process.on("unhandledRejection", (error) => fail(error.stack));

const participants = await service("participants.mjs");
const saga = await service("saga.mjs", participants.port);
const server = await restateServer();
await register(server.admin, saga.port);
// Partitions of a new server find their leaders late.
const deadline = Date.now() + PATIENCE_MS;
for (let warm = 0; warm < 4 * PARTITIONS; ) {
  warm += await outcome(server.ingress, `r0-${warm}`).then(
    () => 1,
    async (error) => {
      if (Date.now() > deadline) throw error;
      await pause(250);
      return 0;
    },
  );
}
const processes = { orchestrator: server.pid, saga: saga.pid, participants: participants.pid };
say(JSON.stringify({ about: about(), processes }));

for await (const line of createInterface({ input: process.stdin })) {
  const [verb, run, rest] = line.split(" ");
  if (verb === "start") {
    outcome(server.ingress, `r${run}-${rest}`).then(
      (told) => say(`ended ${run} ${rest} ${told}`),
      (error) => say(`failed ${run} ${rest} ${JSON.stringify(error.message)}`),
    );
  } else if (verb === "open") {
    say(`open ${await open(server.admin)}`);
  } else if (verb === "ledger") {
    const told = await post(participants.port, `/ledger?run=${run}&path=${encodeURIComponent(rest)}`, "");
    if (told.status !== 200) fail(`the ledger: ${told.status}`);
    say("written");
  } else {
    fail(`not understood: ${line}`);
  }
}
children.forEach((child) => child.removeAllListeners("exit").kill("SIGKILL"));
process.exit(0);
