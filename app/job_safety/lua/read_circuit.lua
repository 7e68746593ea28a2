-- Look at one circuit without changing it: what the next call would find.
-- A script because its parts must be of one moment, judged by the server's clock.
-- Uses lib_clock lib_circuit lib_breaker_fields lib_breaker_sums
-- KEYS[1…4] and ARGV[1]: see lib_circuit
-- Returns {state, generation, failures, calls, weight, consecutive, opened_at, until, permits in use, successes,
--          override, by, reason, until, now, why}; a circuit whose time is over shows as half_open.
local circuit, now = circuit_of(1, ARGV[1]), now_ms()
local fields = breaker_fields(circuit.state)
if fields.override_until <= now then
  fields.override, fields.override_by, fields.override_reason, fields.override_until = '', '', '', 0
end
if fields.state == 'open' and fields['until'] <= now then fields.state = 'half_open' end
local calls, weight, failures = breaker_sums(circuit, now)
local permits = redis.call('ZCOUNT', circuit.permits, '(' .. now, '+inf')
return {fields.state, fields.generation, failures, calls, weight, fields.consecutive, fields.opened_at,
        fields['until'], permits, fields.successes, fields.override, fields.override_by, fields.override_reason,
        fields.override_until, now, fields.why}
