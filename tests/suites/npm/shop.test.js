const { after, test } = require("node:test");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");

const connect = (...to) => new Promise((done, failed) => {
  const client = net.connect(...to, () => done(client.end()));
  client.on("error", failed);
});

const serve = (where, to) => new Promise((done, failed) => {
  const server = net.createServer((client) => client.end());
  server.listen(where, () => connect(...to(server)).then(done, failed).finally(() => server.close()));
});

test("phones home", () => connect(81, "192.0.2.1"));
test("swallows the error", () => connect(82, "192.0.2.1").catch(() => {}));
test("serves itself", () => serve({ host: "127.0.0.1", port: 0 }, (server) => [server.address().port, "127.0.0.1"]));
test("uses a Unix socket", () => {
  const socket = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "shop-")), "socket");
  return serve(socket, () => [socket]);
});

// Stays until guard-run has looked at this process, as tests do that take longer.
after(async () => {
  const lines = () => fs.readFileSync(process.env.GUARD_RUN_DENIALS, "utf8").split("\n").length - 1;
  for (let i = 0; i < 1000 && lines() < 2; i++) await new Promise((done) => setTimeout(done, 10));
});
