-- wrk script: POSTs the lines of the file $REQUESTS in turn and prints the run's figures as one line of JSON.
-- A line is "path<TAB>body"; $HEADERS has one "Name: value" a line.
local requests, at = {}, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
for name, value in string.gmatch(os.getenv("HEADERS") or "", "([^:\n]+): ([^\n]*)") do wrk.headers[name] = value end

function init(args)
  for line in io.lines(os.getenv("REQUESTS")) do
    local path, body = string.match(line, "^([^\t]*)\t(.*)$")
    requests[#requests + 1] = wrk.format(nil, path, nil, body)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests_per_second":%.2f,"requests":%d,"mean_ms":%.4f,"p50_ms":%.3f,"p95_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.requests / (summary.duration / 1e6), summary.requests, latency.mean / 1000, latency:percentile(50) / 1000,
    latency:percentile(95) / 1000, latency:percentile(99) / 1000, latency.max / 1000,
    e.connect, e.read, e.write, e.status, e.timeout))
end
