-- Tell a circuit and the limits what one call has shown; a renewal prolongs its permit and tells nothing.
-- The call counts whoever holds the guard by now: it was made.
-- Uses lib_clock lib_circuit lib_breaker_report lib_rate lib_rate_seen
-- policy: see lib_circuit   generation, and report "result member": see lib_breaker_report
-- request: see lib_rate   seen: see lib_rate_seen
local function call_settled(first, token, action, policy, generation, report, request, seen)
  local circuit, rate = circuit_of(first, policy), rate_of(first + 4, request)
  if not circuit and not rate then return end
  local now = now_ms()
  if action == 'renew' then
    if circuit then redis.call('ZADD', circuit.permits, 'XX', now + circuit.lease_ms, token) end
    return
  end
  if circuit then
    local result, member = string.match(report, '^(%S+) (%S*)$')
    breaker_report(circuit, now, token, generation, member, result)
  end
  if rate then rate_seen(rate, now, seen) end
end
