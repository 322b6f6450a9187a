-- The end of each script for wrk: one line of JSON. Times are in µs.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'MEASURED {"requests":%d,"seconds":%f,"refused":%d,"failed":%d,"p50":%f,"p99":%f,"p999":%f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
