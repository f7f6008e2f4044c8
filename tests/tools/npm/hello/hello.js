#!/usr/bin/env node
// Threads, processes and a server, as tools have them.
const { Worker } = require("worker_threads"), { execFile } = require("child_process"), http = require("http");
const name = process.argv[2];
const server = http.createServer((request, response) => response.end(`hello ${request.url.slice(1)}`));
server.listen(0, "127.0.0.1", async () => {
    const answer = await fetch(`http://127.0.0.1:${server.address().port}/${name}`);
    console.log(await answer.text());
    server.close();
    server.closeAllConnections();
    new Worker("require('fs').writeSync(1, 'a thread\\n')", { eval: true }).on("exit", () => {
        execFile("echo", ["a process"], (error, stdout) => process.stdout.write(stdout));
    });
});
