-- Count the calls that lie within both windows, time and number.
-- Returns calls, weight of the failures, number of the failures.
local function breaker_sums(circuit, now)
  local calls, weight, failures = 0, 0, 0
  local members = redis.call('ZREVRANGEBYSCORE', circuit.window, '+inf', '(' .. (now - circuit.window_ms),
                             'LIMIT', 0, circuit.window_calls)
  for _, member in ipairs(members) do
    local one = tonumber(string.match(member, ':(%d+)$'))
    calls, weight = calls + 1, weight + one
    if one > 0 then failures = failures + 1 end
  end
  return calls, weight, failures
end
