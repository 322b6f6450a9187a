// One stream of samples for all tabs of a browser. Whoever holds the lock reads it and tells the others; a tab that
// nobody sees neither holds it nor listens. Where there are no locks (plain HTTP under another name than this machine's),
// each tab that is seen has its own.

import { get, open } from "./api.js";

/** The seconds that are kept. */
const KEPT = 900;
const NAME = "tollgate-live";

/** Tells: `sample` (one came), `series` (the past was read anew), `state`. */
export const live = new EventTarget();
/** Samples, the earliest first; how backends stood; and how the stream is: connecting, live, lost. */
export const known = { samples: [], backends: [], state: "connecting" };

const channel = new BroadcastChannel(NAME);
let running = null;
let heard = 0;

function become(state) {
  if (known.state === state) return;
  const was = known.state;
  known.state = state;
  live.dispatchEvent(new CustomEvent("state", { detail: was }));
  if (state === "live") load();
}

function take(sample) {
  heard = Date.now();
  become("live");
  const { samples } = known;
  if (samples.length && sample.at <= samples[samples.length - 1].at) return;
  samples.push(sample);
  while (samples.length && samples[0].at <= sample.at - KEPT) samples.shift();
  live.dispatchEvent(new Event("sample"));
}

/** Reads the past from the server. What it does not know, as it is another process, stays. */
async function load() {
  const told = await get("/series?minutes=15").catch(() => null);
  if (!told) return;
  const pick = (group, place) => Object.fromEntries(Object.entries(group).map(([name, values]) => [name, values[place]]));
  const read = told.at.map((at, place) => ({
    at,
    answers: pick(told.answers, place),
    latency_ms: pick(told.latency_ms, place),
    connections: told.connections[place],
    in_flight: told.in_flight[place],
    buckets: told.buckets[place],
  }));
  const first = read[0]?.at ?? Infinity;
  const last = read[read.length - 1]?.at ?? -Infinity;
  known.samples = [...known.samples.filter((one) => one.at < first), ...read, ...known.samples.filter((one) => one.at > last && one.at > first)];
  known.backends = told.backends;
  live.dispatchEvent(new Event("series"));
}

async function read(signal) {
  const response = await open("/live", { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      const sample = JSON.parse(event.slice(6));
      take(sample);
      channel.postMessage(sample);
    }
  }
}

const pause = (ms, signal) =>
  new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });

/** Reads the stream again and again until `signal`. */
async function lead(signal) {
  let wait = 250;
  while (!signal.aborted) {
    const began = Date.now();
    try {
      await read(signal);
    } catch (error) {
      if (error.status === 401) return stop();
    }
    if (signal.aborted) return;
    become("lost");
    channel.postMessage("lost");
    wait = Date.now() - began > 5000 ? 250 : Math.min(2 * wait, 4000);
    await pause(wait, signal);
  }
}

channel.addEventListener("message", ({ data }) => {
  if (!running) return;
  if (data === "lost") become("lost");
  else take(data);
});

function begin() {
  if (running || document.hidden) return;
  const control = new AbortController();
  running = control;
  heard = Date.now();
  const { signal } = control;
  const watch = setInterval(() => Date.now() - heard > 5000 && become("lost"), 1000);
  signal.addEventListener("abort", () => clearInterval(watch));
  if (navigator.locks) navigator.locks.request(NAME, { signal }, () => lead(signal)).catch(() => {});
  else lead(signal);
}

function stop() {
  running?.abort();
  running = null;
}

let wanted = false;
document.addEventListener("visibilitychange", () => {
  if (!wanted) return;
  if (document.hidden) {
    stop();
  } else {
    become("connecting");
    begin();
  }
});

/** Begins, once there is a token or none is needed. */
export function start() {
  wanted = true;
  load();
  begin();
}

/** Ends, until it is started again. */
export function end() {
  wanted = false;
  stop();
  become("connecting");
}
