// One stream of samples for all tabs of a browser: whoever holds the lock reads it and tells the others, and a tab that
// is hidden does neither. Where there are no locks (plain HTTP from elsewhere), each tab has its own.

import { get, open } from "./api.js";

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
	known.state = state;
	live.dispatchEvent(new Event("state"));
	if (state === "live") load();
}

function take(sample) {
	heard = Date.now();
	become("live");
	const { samples } = known;
	if (sample.at <= samples.at(-1)?.at) return;
	samples.push(sample);
	while (samples[0].at <= sample.at - 900) samples.shift();
	live.dispatchEvent(new Event("sample"));
}

/** Reads the past from the server. What it does not know, as it is another process, stays. */
async function load() {
	const told = await get("/series?minutes=15").catch(() => null);
	if (!told) return;
	const { backends, ...columns } = told;
	// A column is an array, or several of them by name.
	const pick = (of, place) => (Array.isArray(of) ? of[place] : Object.fromEntries(Object.entries(of).map(([name, column]) => [name, pick(column, place)])));
	const read = told.at.map((_, place) => pick(columns, place));
	const within = ({ at }) => at >= read[0]?.at && at <= read.at(-1).at;
	known.samples = [...known.samples.filter((one) => !within(one)), ...read].sort((one, next) => one.at - next.at);
	known.backends = backends;
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
		await new Promise((done) => {
			setTimeout(done, wait);
			signal.addEventListener("abort", done);
		});
	}
}

channel.addEventListener("message", ({ data }) => {
	if (!running) return;
	if (data === "lost") become("lost");
	else take(data);
});

function begin() {
	if (running || document.hidden) return;
	running = new AbortController();
	heard = Date.now();
	const { signal } = running;
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
	if (document.hidden) return stop();
	become("connecting");
	begin();
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
