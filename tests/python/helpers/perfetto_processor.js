// Perfetto's own trace processor in node: its stream of calls in on stdin, of answers out on stdout.
//
// node perfetto_processor.js FOLDER: the folder of a build of Perfetto's UI. Its engine_bundle.js is
// the script of a web worker, which loads the WebAssembly by a synchronous request and is then handed a
// message port. It refuses to run in node, which it knows by `process`: it is shown none.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const v8 = require("node:v8");

v8.setFlagsFromString("--liftoff-only"); // a fifth of the CPU time: what is asked here is quickly answered

const folder = process.argv[2];

class FileRequest {
  open(_method, url) {
    this.file = path.join(folder, path.basename(url));
  }
  send() {
    this.response = fs.readFileSync(this.file);
  }
}

// The worker tries whether 64-bit memories are known, which nodes know in several shapes: to it none
// does. What it tries is the one module that begins with a section of memories (5).
class Module extends WebAssembly.Module {
  constructor(bytes) {
    if (bytes[8] === 5) throw new Error("no 64-bit memories");
    super(bytes);
  }
}

const tell = (...words) => process.stderr.write(`${words.join(" ")}\n`);
const seen = {
  self: { location: { href: "http://localhost/engine_bundle.js" } },
  WorkerGlobalScope: Object,
  XMLHttpRequest: FileRequest,
  WebAssembly: Object.create(WebAssembly, { Module: { value: Module } }),
  console: { log: tell, warn: tell, error: tell }, // stdout is for answers
  process: undefined,
};
const script = fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8");
new Function(...Object.keys(seen), script)(...Object.values(seen));

const port = { postMessage: (bytes) => process.stdout.write(bytes) };
seen.self.onmessage({ data: port });
// The worker gets ready for calls in a microtask: it is when the next turn begins.
setImmediate(() => process.stdin.on("data", (bytes) => port.onmessage({ data: bytes })));
