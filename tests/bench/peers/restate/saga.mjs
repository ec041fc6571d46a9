// The user's service: the order saga as Restate's own guide writes sagas. Each step is a durable `ctx.run` that calls a
// participant; what has been done is noted with its undoing, and a terminal error undoes it, last first.

import { createServer } from "node:http2";
import { Agent, request } from "node:http";
import * as restate from "@restatedev/restate-sdk";

const PARTICIPANTS = Number(process.argv[2]);
const agent = new Agent({ keepAlive: true, maxSockets: 256 });

/** Anything but a business no is an error that Restate tries again. */
function call(step, id, operation, order) {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(order) };
    const path = `/${step}/${id}/${operation}`;
    const asked = request({ agent, host: "127.0.0.1", port: PARTICIPANTS, method: "POST", path, headers }, (answer) => {
      answer.resume();
      answer.on("error", reject);
      answer.on("end", () => {
        if (answer.statusCode === 200) resolve();
        else if (answer.statusCode === 409) reject(new restate.TerminalError(`${step} refused`, { errorCode: 409 }));
        else reject(new Error(`${step}: status ${answer.statusCode}`));
      });
    });
    asked.on("error", reject);
    asked.end(order);
  });
}

const orders = restate.service({
  name: "orders",
  handlers: {
    place: async (ctx, { id, order }) => {
      const compensations = [];
      const text = JSON.stringify(order);
      try {
        for (const step of ["reserve", "charge", "book"]) {
          await ctx.run(step, () => call(step, id, "do", text));
          compensations.push(() => ctx.run(`undo ${step}`, () => call(step, id, "undo", text)));
        }
      } catch (error) {
        if (error instanceof restate.TerminalError) {
          for (const compensate of compensations.reverse()) await compensate();
        }
        throw error;
      }
      return "committed";
    },
  },
});

// A refusal is an end like any other here, and the SDK would log each with its stack.
const server = createServer(restate.createEndpointHandler({ services: [orders], logger: () => {} }));
server.listen(0, "127.0.0.1", () => process.send({ port: server.address().port }));
process.on("disconnect", () => process.exit());
